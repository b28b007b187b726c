"""Sequence classifiers: VanillaRNN, LSTM and their kin of 2020, in every form in which they are correct.

Inputs may be (B, T), (B, T, 1), (B, T, d) with one-hot vectors, or the same with time first, as floats or integers; the
constructor may know no batch size or device; what it is given is what it is called on, so that it may use both.
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grading.adapters.training import tensor_of
from grading.loading import Code, Kept, Unusable, furthest

B = 16  # rows; no size of a length or of a number of classes, so that axes can be told apart
PALINDROMES = ({"seq_length": 6, "input_dim": 1, "num_classes": 10, "length": 6, "symbols": 10},)
# The three data sets of 2020, as its train.py passes them; a group's model needs to take its own.
SYMBOLS = (
    {"seq_length": 7, "input_dim": 1, "num_classes": 7, "length": 6, "symbols": 7},
    {"seq_length": 8, "input_dim": 3, "num_classes": 2, "length": 8, "symbols": 3},
    {"seq_length": 13, "input_dim": 1, "num_classes": 3, "length": 13, "symbols": 3},
    {"seq_length": 13, "input_dim": 1, "num_classes": 2, "length": 13, "symbols": 3},
)


class Classifier:
    """A submission's model, called on (B, T) digits whatever form it takes, returning scores (B, K).

    Args:
        length: T of its inputs; None: as the edition's data set has it.
        own_init: keep its initialisation; otherwise parameters are drawn anew, so that a small one hides nothing.

    Raises:
        Unusable: it cannot be constructed, or called on a batch of the size it was constructed for.
    """

    def __init__(
        self,
        code: Code,
        name: str,
        length: int | None = None,
        num_hidden: int = 32,
        batch_size: int = B,
        own_init: bool = False,
        **sizes: int,
    ):
        self.code, self.name = code, name
        self.log_probs = code.part.options.get("output") == "log_probs"
        errors: list[Exception] = []
        cases = SYMBOLS if self.log_probs else PALINDROMES
        for as_vectors, case in itertools.product((False, True), cases):
            case = case | ({"seq_length": length, "length": length} if length else {}) | sizes
            values: dict[str, Any] = {key: case[key] for key in ("seq_length", "input_dim", "num_classes")}
            values |= {"num_hidden": num_hidden, "batch_size": batch_size, "device": torch.device("cpu")}
            values["embedding_size"] = 8
            if self.log_probs:
                values |= {"vocabulary_size": case["symbols"], "log_probs": True}
            self.length, self.symbols, self.classes = case["length"], case["symbols"], case["num_classes"]
            if as_vectors:
                values["input_dim"] = case["symbols"]
            self.input_dim = values["input_dim"]
            try:
                self.net = code.construct(name, values)
                self._kept = Kept(self.net)
                if not own_init:
                    self._draw_parameters(num_hidden)
                self._find_form(batch_size, as_vectors)
                return
            except Exception as error:
                errors.append(error)
        raise furthest(errors)

    def __call__(self, digits: Tensor) -> Tensor:
        """Return scores (B, K): logits, or log-probabilities in the edition that asks for them."""
        self._kept.restore()
        return self.again(digits)

    def again(self, digits: Tensor) -> Tensor:
        """Return the scores of a further call, with what the model has kept from earlier ones."""
        return self._checked(self.net(self.form(digits)), len(digits))

    def of_zeros(self) -> Tensor:
        """Return the scores of an input that is nothing but zeros, in the model's own form."""
        self._kept.restore()
        return self._checked(self.net(torch.zeros_like(self.form(self.draw()))), B)

    def draw(self, rows: int = B, length: int | None = None) -> Tensor:
        """Draw (rows, T) symbols, each of them an integer as a float."""
        return torch.randint(self.symbols, (rows, length or self.length)).float()

    def palindromes(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Draw palindromes: (rows, T) digits to read, and (rows,) last digits to name, equal to the first ones."""
        left = torch.randint(self.symbols, (rows, length // 2 + 1)).float()
        return torch.cat((left, left[:, 1 : (length + 1) // 2].flip(1)), dim=1), left[:, 0].long() % self.classes

    def _draw_parameters(self, n: int) -> None:
        for parameter in self.net.parameters():
            nn.init.uniform_(parameter, -(n**-0.5), n**-0.5)

    def _find_form(self, batch_size: int, as_vectors: bool) -> None:
        """Find the first form of input that gives (B, K)."""
        errors: list[Exception] = []
        for form in self._forms(as_vectors):
            self.form = form
            try:
                digits = self.draw(batch_size)
                output = self.code.call(f"call {self.name}", self.net, form(digits))
                self._checked(output, batch_size)
                return
            except AssertionError as error:
                place = self.code.place(self.name, "forward")
                message = f"called on (B, T) = {tuple(digits.shape)}, {error}"
                errors.append(Unusable(f"call {self.name}", message, place, lines=[math.inf]))  # it came to its end
            except Exception as error:
                errors.append(error)
        raise furthest(errors)

    def _forms(self, as_vectors: bool) -> list[Any]:
        if as_vectors:
            one_hot = [lambda x: F.one_hot(x.long(), self.symbols).float()]
            return [*one_hot, lambda x: F.one_hot(x.long(), self.symbols).float().transpose(0, 1)]
        forms = [
            lambda x: x,
            lambda x: x.unsqueeze(2),
            lambda x: x.t(),
            lambda x: x.t().unsqueeze(2),
            lambda x: x.long(),
            lambda x: x.t().long(),
        ]
        if self.log_probs:
            forms = [*forms[:2], lambda x: x.unsqueeze(1), lambda x: x.long().unsqueeze(2), *forms[2:]]
        return forms

    def _checked(self, output: Any, rows: int) -> Tensor:
        """Return the scores in an output: the tensor, or the one of a tuple that has their shape."""
        expected = (rows, self.classes)
        output = tensor_of(output, expected)
        assert isinstance(output, Tensor), f"it returned a {type(output).__name__}, not a tensor"
        assert output.shape == expected, f"it returned scores of shape {tuple(output.shape)}, not (B, K) = {expected}"
        assert output.isfinite().all(), "it returned scores that are not finite"
        return output
