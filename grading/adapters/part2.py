"""Models of text: the LSTM and TextGenerationModel of 2021, and the TextGenerationModel of 2019 and 2020.

The last may take (B, T) or (T, B) numbers, (B, T, 1), or one-hot vectors; what is its axis of time is told by which
outputs an input changes. `args` has every flag and attribute of the handed-out train.py, and those that the submission
adds to its own. Samples may be numbers or strings, in tensors or lists, with rows or characters first, and one
character longer, the first being given.
"""

import ast
import inspect
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grading.adapters.training import first_tensor
from grading.loading import SYNONYMS, Code, Kept, NotJudged, Unusable
from grading.submission import source_of

K, D, N = 7, 12, 16  # vocabulary, embedding, hidden units
T, B = 6, 5
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SAMPLERS = ("sample", "generate", "generate_text", "generate_sentence", "generate_sentences", "sample_text")
LENGTHS = ("sample_length", "length", "seq_length", "sequence_length", "max_length", "num_characters", "text_length")
ROWS = ("batch_size", "num_samples", "n_samples", "samples", "num_sentences", "n")
TEMPERATURES = ("temperature", "temp", "tau")


class TextModel:
    """A submission's model, called on (T, B) character numbers, returning scores (T, B, K) whatever its own form.

    The LSTM of 2021 is called on (T, B, d) vectors and returns (T, B, n).

    Args:
        scale: draw parameters anew from +-scale; None keeps the initialisation.
        steps, rows: the sizes that it is constructed for, where its constructor asks, and tried with.

    Raises:
        Unusable: it cannot be constructed, or called in any form.
    """

    def __init__(
        self,
        code: Code,
        name: str = "TextGenerationModel",
        k: int = K,
        d: int = D,
        n: int = N,
        steps: int = T,
        rows: int = B,
        scale: float | None = 0.5,
        num_layers: int | None = None,
        dropout: float = 0.0,
    ):
        self.code, self.name, self.k, self.d, self.n = code, name, k, d, n
        self.is_lstm = name == "LSTM"
        layers = num_layers or code.part.options.get("num_layers", 1)
        values: dict[str, Any] = {"vocabulary_size": k, "embedding_size": d, "num_hidden": n, "num_layers": layers}
        values |= {"seq_length": steps, "batch_size": rows, "device": torch.device("cpu"), "input_dim": d}
        values |= {"dropout": dropout, "dropout_keep_prob": 1 - dropout}
        if "args" in code.part.signatures.get(name, []):
            values["args"] = self._arguments(values)
        self.net = code.construct(name, values)
        if scale:
            for parameter in self.net.parameters():
                if parameter.requires_grad:
                    nn.init.uniform_(parameter, -scale, scale)
        self._kept = Kept(self.net)
        self._find_form(steps, rows)

    def __call__(self, x: Tensor) -> Tensor:
        self._kept.restore()
        return self.again(x)

    def again(self, x: Tensor) -> Tensor:
        """Return the output of a further call, with what the model has kept from earlier ones."""
        return self._checked(self.net(*self._inputs(x)), x)

    def draw(self, steps: int = T, rows: int = B) -> Tensor:
        """Draw characters (T, B), or vectors (T, B, d) for the LSTM."""
        return torch.randn(steps, rows, self.d) if self.is_lstm else torch.randint(self.k, (steps, rows))

    def sample(self, rows: int | None, length: int | None, temperature: float = 0.0) -> Tensor:
        """Return sampled character numbers (L, B), L being `length`, or one more where the first is not counted.

        With None the sampler's own defaults are taken.

        Raises:
            NotJudged: the handout fixes no name for sampling, and none of the usual ones is there.
        """
        sampler = next((getattr(self.net, name) for name in SAMPLERS if callable(getattr(self.net, name, None))), None)
        if sampler is None:
            raise NotJudged("the model has no method sample or generate, and the handout fixes no name for it")
        words: dict[str, Any] = {}
        names = list(inspect.signature(sampler).parameters.values())
        for parameter in names:
            for synonyms, value in ((ROWS, rows), (LENGTHS, length), (TEMPERATURES, temperature)):
                if parameter.name.lower() in synonyms and value is not None:
                    words[parameter.name] = value
        unknown = [p.name for p in names if p.default is p.empty and p.name not in words and p.kind < 2]
        if unknown and not self.code.part.options.get("sample"):
            raise NotJudged(f"{sampler.__name__} asks for {', '.join(unknown)}")
        if unknown:
            raise Unusable(f"call {self.name}.sample", f"sample asks for {', '.join(unknown)}", self.place("sample"))
        if temperature and not {word.lower() for word in words} & set(TEMPERATURES):
            raise Unusable(f"call {self.name}.sample", "sample takes no temperature", self.place("sample"))
        self._kept.restore()
        result = self.code.call(f"call {self.name}.sample", sampler, **words)
        return self._numbers(result, rows, length)

    def place(self, method: str = "forward") -> str:
        return self.code.place(self.name, method)

    def _numbers(self, result: Any, rows: int | None, length: int | None) -> Tensor:
        """Return (L, B) numbers of what a sampler returned in one of its forms."""
        if isinstance(result, tuple) and result and isinstance(result[0], Tensor | list):
            result = result[0]
        if isinstance(result, str):
            result = [result]
        if isinstance(result, list | tuple) and result and isinstance(result[0], str):
            number = {character: k for k, character in enumerate(self.characters())}
            unknown = {character for text in result for character in text} - set(number)
            assert not unknown, f"sample wrote characters that are not in the vocabulary: {sorted(unknown)[:5]}"
            result = [[number[character] for character in text] for text in result]
        if isinstance(result, list | tuple) and result and isinstance(result[0], Tensor):
            result = torch.stack([torch.as_tensor(row).flatten() for row in result])
        samples = torch.as_tensor(result)
        if samples.is_floating_point() and bool((samples == samples.round()).all()):
            samples = samples.long()
        if samples.dim() == 3 and 1 in samples.shape:
            samples = samples.squeeze(samples.shape.index(1) if samples.shape[-1] != 1 else -1)
        if samples.dim() == 1:
            samples = samples.unsqueeze(1)
        if length is None:
            assert samples.dim() == 2, f"sample() has shape {tuple(samples.shape)}"
            samples = samples if samples.shape[0] in (30, 31) else samples.t()
            assert samples.shape[0] in (30, 31), (
                f"sample() has shape {tuple(samples.shape)}: none is 30 characters long"
            )
        else:
            shapes = [(length, rows), (length + 1, rows)]
            found = tuple(samples.shape)
            if found not in shapes and found[::-1] in shapes:
                samples = samples.t()
            elif found not in shapes:
                raise AssertionError(f"{rows} samples of length {length} have shape {found}")
        assert not samples.is_floating_point(), f"the sampled characters are {samples.dtype}, not integers"
        low, high = int(samples.min()), int(samples.max())
        assert 0 <= low and high < self.k, f"sample wrote characters {low} to {high} of a vocabulary of {self.k}"
        return samples.long()

    def characters(self) -> str:
        """Return the vocabulary in the order of its numbers, as the submission's dataset has it."""
        try:
            dataset = self.code.load("TextDataset")("vocabulary.txt", 5)
            return dataset.convert_to_string(list(range(self.k)))
        except Exception:
            return ALPHABET[: self.k]

    def _arguments(self, values: dict[str, Any]) -> Namespace:
        """Return `args`: the handed-out flags and attributes, those the submission adds, and the sizes asked for."""
        Path("vocabulary.txt").write_text(ALPHABET[: self.k] * 40, encoding="utf-8")
        given = dict(self.code.part.arguments)
        tree = parsed(self.code.folder / "train.py")
        given |= added_flags(tree)
        given |= {name: values[key] for key, names in SYNONYMS.items() if key in values for name in names}
        given |= {"txt_file": "vocabulary.txt", "dropout": values["dropout"], "vocab": ALPHABET[: self.k]}
        given |= {"dropout_keep_prob": values["dropout_keep_prob"]}
        return Namespace(**(added_attributes(tree, self.code, given) | given))

    def _find_form(self, steps: int, rows: int) -> None:
        """Find the first form of input in which the model is causal; the first that runs, if none is."""
        runs: Any = None
        first: Exception | None = None
        forms = list(self._forms())
        for form in forms:
            self.form = form
            x = self.draw(steps, rows)
            try:
                self._kept.restore()
                output = self.code.call(f"call {self.name}", self.net, *self._inputs(x))
                self.turn = self._turn(output, steps, rows)
                self._checked(output, x)
            except AssertionError as error:
                first = first or Unusable(
                    f"call {self.name}", f"called on (T, B) = {(steps, rows)}, {error}", self.place()
                )
                continue
            except Exception as error:
                first = first or error
                continue
            runs = runs or (form, self.turn)
            if len(forms) == 1 or self._is_causal(x):
                return
        if runs is None:
            assert first
            raise first
        self.form, self.turn = runs

    def _inputs(self, x: Tensor) -> list[Any]:
        """Return what forward is called on: x in its form, and no state where forward asks for one."""
        parameters = list(inspect.signature(self.net.forward).parameters.values())[1:]
        return [self.form(x), *(None for parameter in parameters if parameter.default is parameter.empty)]

    def _forms(self) -> Iterator[Any]:
        yield lambda x: x
        if not self.is_lstm and self.code.part.options.get("form") == "any":
            yield lambda x: x.t()
            for turn in (lambda x: x.t(), lambda x: x):
                yield lambda x, turn=turn: F.one_hot(turn(x), self.k).float()
                yield lambda x, turn=turn: turn(x).unsqueeze(2).float()
                yield lambda x, turn=turn: turn(x).unsqueeze(2)
                yield lambda x, turn=turn: turn(x).float()

    def _turn(self, output: Any, steps: int, rows: int) -> tuple[int, ...]:
        """Return the permutation that makes an output (T, B, K)."""
        output = first_tensor(output) if isinstance(output, Tensor | tuple | list) else output
        assert isinstance(output, Tensor), f"it returned a {type(output).__name__}, not a tensor"
        wanted = (steps, rows, self.n if self.is_lstm else self.k)
        found = tuple(output.shape)
        only_given = self.code.part.options.get("form") != "any"
        for turn in ((0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)):
            if output.dim() == 3 and tuple(found[axis] for axis in turn) == wanted:
                if turn == (0, 1, 2) or not only_given:
                    return turn
        raise AssertionError(f"it returned shape {found}, not {wanted}")

    def _is_causal(self, x: Tensor) -> bool:
        changed = x.clone()
        changed[2, 1] = (changed[2, 1] + 1) % self.k
        difference = (self(changed) - self(x)).abs().amax(2) > 1e-6
        own = difference[2:, 1].clone()
        difference[2:, 1] = False
        return bool(own[1:].any()) and not bool(difference.any())

    def _checked(self, output: Any, x: Tensor) -> Tensor:
        output = first_tensor(output)
        expected = (*x.shape[:2], self.n if self.is_lstm else self.k)
        output = output.permute(self.turn)
        assert output.shape == expected, (
            f"inputs (T, B) = {tuple(x.shape[:2])} gave {tuple(output.shape)}, not {expected}"
        )
        assert output.isfinite().all(), "the output is not finite"
        return output


def parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(source_of(path)) if path.is_file() else ast.Module([], [])
    except SyntaxError:
        return ast.Module([], [])


def added_attributes(tree: ast.Module, code: Code, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a train.py sets on `args` before it constructs its model, such as `args.dataset = dataset`.

    Only what is made of the data set and of `args` is known here.
    """
    scope: dict[str, Any] = {"args": Namespace(**given)}
    assignments = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    for node in sorted(assignments, key=lambda node: node.lineno):
        with suppress(Exception):
            if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "TextDataset":
                value = code.load("TextDataset")(given["txt_file"], given["seq_length"])
            else:
                value = eval(compile(ast.Expression(node.value), "train.py", "eval"), dict(scope))
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id != "args":
                scope[target.id] = value
            elif isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "args":
                scope["args"].__dict__.setdefault(target.attr, value)
    return vars(scope["args"])


def added_flags(tree: ast.Module) -> dict[str, Any]:
    """Return the flags of the submission's own train.py that have a constant as default."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument" and node.args:
            default = next((word.value for word in node.keywords if word.arg == "default"), None)
            flag = node.args[0]
            if isinstance(flag, ast.Constant) and isinstance(default, ast.Constant):
                found[str(flag.value).lstrip("-").replace("-", "_")] = default.value
    return found
