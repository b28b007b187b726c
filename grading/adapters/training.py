"""The handed-out entry point of a training, `python train.py --flags`, run for a few steps and watched.

Whatever the loop looks like, a step of any torch optimizer can be seen: with which learning rate, with which gradients,
and whether these had been zeroed before the backward pass. Flags that a train.py does not have are left out.
"""

import math
import re
import runpy
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from grading.loading import Code, Kept, NotJudged, Unusable

STEPS = 4
ROWS, LENGTH = 6, 9  # of the batches
LETTERS = "".join(sorted(string.ascii_letters + string.digits + " .,;:!?'\"-()\n"))


class Call(NamedTuple):
    """A call of a model: its input and output, and what the model kept on itself before."""

    net: nn.Module
    inputs: tuple[Any, ...]
    output: Any
    kept: Kept


class Steps:
    """What is seen of every optimizer's steps in this process: learning rates, gradients, and losses.

    Args:
        most: after as many steps the training is ended by an exception.
    """

    def __init__(self, most: float = math.inf):
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.decays: list[float] = []  # weight decay
        self.norms: list[float] = []  # of all gradients together
        self.leftover: list[bool] = []  # whether the step's backward pass found gradients of the step before
        self._found: list[bool] = []  # the same of each backward pass since the last step
        self._parameters: list[nn.Parameter] = []
        self._most = most

    def watch(self) -> None:
        true_backward = Tensor.backward

        def backward(tensor: Tensor, *arguments: Any, **words: Any) -> None:
            self._found.append(any(p.grad is not None and bool(p.grad.any()) for p in self._parameters))
            self.losses.append(tensor.item() if tensor.numel() == 1 else math.nan)
            true_backward(tensor, *arguments, **words)

        Tensor.backward = backward  # type: ignore[method-assign, assignment]
        register_optimizer_step_pre_hook(self._see)

    def _see(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._parameters[:] = [p for group in optimizer.param_groups for p in group["params"]]
        squares = [p.grad.detach().double().square().sum() for p in self._parameters if p.grad is not None]
        self.norms.append(math.sqrt(sum(square.item() for square in squares)))
        self.rates.append(float(optimizer.param_groups[0]["lr"]))
        self.decays.append(float(optimizer.param_groups[0].get("weight_decay", 0)))
        self.leftover += self._found[:1]
        self._found.clear()
        if len(self.rates) >= self._most:
            raise _EnoughError

    def check(self, rate: float | None) -> None:
        """See that gradients are zeroed before each step's backward pass, and that the learning rate is `rate`."""
        assert not any(self.leftover), "the gradients of the step before are still there in backward: no zero_grad"
        assert rate is None or math.isclose(self.rates[0], rate, rel_tol=0.01), (
            f"with the learning rate {rate:g} asked for, the optimizer steps with {self.rates[0]:g}"
        )


class _EnoughError(BaseException):
    """Ends a training that has been watched for long enough; not an Exception, so that a script lets it pass."""


@dataclass
class Training:
    """What was seen of a training's first steps."""

    code: Code
    flags: dict[str, Any]
    steps: Steps = field(default_factory=lambda: Steps(STEPS))
    call: Call | None = None  # the first call of a model in training
    place: str = ""

    def check(self) -> None:
        """See that learning rate, clipping and zeroing are what the flags say; the first that is not is named."""
        rates = self.steps.rates
        if not rates:
            raise NotJudged(f"no optimizer of torch made a step when {self.place} was run")
        self.steps.check(next((value for name, value in self.flags.items() if name in ("lr", "learning_rate")), None))
        fall = min(rates) / rates[0]
        assert fall > 0.5, f"the learning rate falls to {fall:.0%} within {len(rates)} steps: a schedule per batch"
        decay = max(self.steps.decays)
        assert decay < 0.5, f"the optimizer has a weight decay of {decay:g}"
        bound = next((value for name, value in self.flags.items() if name in ("max_norm", "clip_grad_norm")), None)
        if bound:
            worst = max(self.steps.norms)
            assert worst < 1.05 * bound, (
                f"with a norm of at most {bound:g} on the command line, a step is taken with gradients of norm "
                f"{worst:.3g}: they are not clipped between backward and step"
            )

    def check_rows(self) -> None:
        """See that in the model's call a row of the batch changes that row's output and no other."""
        if self.call is None:
            raise NotJudged("no call of the model was seen")
        net, inputs, output, kept = self.call
        x, net = inputs[0], net.eval()
        scores = first_tensor(output)

        def scores_of(x: Tensor) -> Tensor:
            kept.restore()
            return first_tensor(net(x, *inputs[1:]))

        if not isinstance(x, Tensor) or list(x.shape).count(ROWS) != 1 or list(scores.shape).count(ROWS) != 1:
            raise NotJudged("the batch's axis could not be told in the model's input or output")
        axis, out = x.shape.index(ROWS), scores.shape.index(ROWS)
        before, again = (scores_of(x) for _ in range(2))
        if not torch.allclose(before, again, atol=1e-5):
            raise NotJudged("the same input gives another output the second time")
        changed = x.clone()
        row = changed.select(axis, 2)
        is_one_hot = x.dim() == 3 and x.shape[-1] > 1 and x.is_floating_point()
        row.copy_(row.roll(1, -1) if is_one_hot else (row + 1) % 7)
        after = scores_of(changed)
        difference = (after - before).abs().movedim(out, 0).flatten(1).amax(1)
        difference[2] = 0
        other = int(difference.argmax())
        assert difference.max() < 1e-5, (
            f"train.py calls the model on {tuple(x.shape)}; another sequence {3} of the batch changes the output of "
            f"sequence {other + 1}: the batch's axis is read as time"
        )


def watch_calls(seen: Training) -> None:
    """Remember the first call of a model in training, be it by `model(x)` or by `model.forward(x)`."""
    true_init, models = nn.Module.__init__, dict.fromkeys(seen.code.part.signatures)

    def watched(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(net: nn.Module, *inputs: Any, **words: Any) -> Any:
            kept = Kept(net)
            output = forward(net, *inputs, **words)
            if seen.call is None and torch.is_grad_enabled():
                seen.call = Call(net, inputs, output, kept)
            return output

        return call

    def init(net: nn.Module, *arguments: Any, **words: Any) -> None:
        kind = type(net)
        if kind.__name__ in models and models[kind.__name__] is None:
            models[kind.__name__] = kind
            kind.forward = watched(kind.forward)  # type: ignore[method-assign, assignment]
        true_init(net, *arguments, **words)

    nn.Module.__init__ = init  # type: ignore[method-assign, assignment]


def first_tensor(output: Any) -> Any:
    """Return the first tensor of a model's output, which may have a state beside it."""
    tensors = [one for one in output if isinstance(one, Tensor)] if isinstance(output, tuple | list) else []
    return tensors[0] if tensors else output


def tensor_of(output: Any, shape: tuple[int, ...]) -> Any:
    """Return the tensor of this shape in a model's output; where there is none, the first."""
    parts = output if isinstance(output, tuple | list) else ()
    fitting = [one for one in parts if isinstance(one, Tensor) and one.shape == shape]
    return fitting[0] if fitting else first_tensor(output)


def write_text(path: Path) -> None:
    """Write a text of letters, digits and what is between them, none of them rare."""
    generator = torch.Generator().manual_seed(1)
    letters = torch.randint(len(LETTERS), (3000,), generator=generator)
    path.parent.mkdir(exist_ok=True)
    path.write_text(LETTERS + "".join(LETTERS[number] for number in letters), encoding="utf-8")


def run_training(code: Code, script: str = "train.py") -> Training:
    """Run a training script as its own user would, and return what was seen of its first steps.

    Raises:
        Unusable: there is none, it is the template still, or it ends with an error.
        NotJudged: what it needs is not there.
    """
    path = code.file(script)
    source = path.read_text(encoding="utf-8", errors="replace")
    if re.search(r"=\s*\.\.\.|=\s*None\s*#\s*fix", source, re.IGNORECASE):
        raise Unusable(f"run {script}", "not implemented: it has the template's gaps", path.name, is_stub=True)
    write_text(Path(code.part.flags.get("txt_file", "text.txt")))
    seen = Training(code, {name: value for name, value in code.part.flags.items() if f"--{name}" in source})
    seen.place = path.name
    seen.steps.watch()
    watch_calls(seen)
    if not hasattr(nn.utils, "clip_grad_norm"):  # the name in older templates
        nn.utils.clip_grad_norm = nn.utils.clip_grad_norm_  # type: ignore[attr-defined]
    sys.argv = [str(path), *(f"--{name}={value}" for name, value in seen.flags.items())]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except _EnoughError:
        pass
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code and seen.steps.rates:
            return seen
        if isinstance(error, FileNotFoundError):
            raise NotJudged(f"{path.name} needs a file or folder that is not there: {error.filename}") from None
        if "backward through the graph a second time" in str(error):
            raise NotJudged("a state kept from call to call ties each step to the one before") from None
        raise code.unusable(f"run {script}", error) from None
    return seen
