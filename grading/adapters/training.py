"""The handed-out entry point of a training, `python train.py --flags`, run for a few steps and watched.

Whatever the loop looks like, a step of any torch optimizer can be seen: with which learning rate, with which gradients,
and whether these had been zeroed before the backward pass. Flags that a train.py does not have are left out.
"""

import math
import re
import runpy
import string
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from grading.loading import Code, NotJudged, Unusable

STEPS = 4
ROWS, LENGTH = 6, 9  # of the batches
LETTERS = "".join(sorted(string.ascii_letters + string.digits + " .,;:!?'\"-()\n"))


class _EnoughError(BaseException):
    """Ends a training that has been watched for long enough; not an Exception, so that a script lets it pass."""


@dataclass
class Training:
    """What was seen of a training's first steps."""

    code: Code
    flags: dict[str, Any]
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # of all gradients, at each step
    rates: list[float] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)  # weight decay
    leftover: list[bool] = field(default_factory=list)  # whether gradients of the step before were still there
    call: tuple[nn.Module, tuple[Any, ...], Any] | None = None  # the first call of a model in training
    place: str = ""

    def check(self) -> None:
        """See that learning rate, clipping and zeroing are what the flags say; the first that is not is named."""
        if not self.rates:
            raise NotJudged(f"no optimizer of torch made a step when {self.place} was run")
        assert not any(self.leftover), "the gradients of the step before are still there in backward: no zero_grad"
        rate = next((value for name, value in self.flags.items() if name in ("lr", "learning_rate")), None)
        if rate:
            found = self.rates[0]
            assert math.isclose(found, rate, rel_tol=0.01), (
                f"with the learning rate {rate:g} on the command line the optimizer steps with {found:g}"
            )
        fall = min(self.rates) / self.rates[0]
        assert fall > 0.5, f"the learning rate falls to {fall:.0%} within {len(self.rates)} steps: a schedule per batch"
        assert max(self.decays) < 0.5, f"the optimizer has a weight decay of {max(self.decays):g}"
        bound = next((value for name, value in self.flags.items() if name in ("max_norm", "clip_grad_norm")), None)
        if bound:
            worst = max(self.norms)
            assert worst < 1.05 * bound, (
                f"with a norm of at most {bound:g} on the command line, a step is taken with gradients of norm "
                f"{worst:.3g}: they are not clipped between backward and step"
            )

    def check_rows(self) -> None:
        """See that in the model's call a row of the batch changes that row's output and no other."""
        if self.call is None:
            raise NotJudged("no call of the model was seen")
        net, inputs, output = self.call
        x, net = inputs[0], net.eval()
        scores = first_tensor(output)
        if not isinstance(x, Tensor) or list(x.shape).count(ROWS) != 1 or list(scores.shape).count(ROWS) != 1:
            raise NotJudged("the batch's axis could not be told in the model's input or output")
        axis, out = x.shape.index(ROWS), scores.shape.index(ROWS)
        with torch.no_grad():
            before, again = (first_tensor(net(*inputs)) for _ in range(2))
            if not torch.allclose(before, again, atol=1e-5):
                raise NotJudged("the model keeps a state from call to call")
            changed = x.clone()
            row = changed.select(axis, 2)
            is_one_hot = x.dim() == 3 and x.shape[-1] > 1 and x.is_floating_point()
            row.copy_(row.roll(1, -1) if is_one_hot else (row + 1) % 7)
            after = first_tensor(net(changed, *inputs[1:]))
        difference = (after - before).abs().movedim(out, 0).flatten(1).amax(1)
        difference[2] = 0
        other = int(difference.argmax())
        assert difference.max() < 1e-5, (
            f"train.py calls the model on {tuple(x.shape)}; another sequence {3} of the batch changes the output of "
            f"sequence {other + 1}: the batch's axis is read as time"
        )


def first_tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def write_text(path: str = "text.txt") -> None:
    """Write a text of letters, digits and what is between them, none of them rare."""
    generator = torch.Generator().manual_seed(1)
    letters = torch.randint(len(LETTERS), (3000,), generator=generator)
    Path(path).write_text(LETTERS + "".join(LETTERS[number] for number in letters), encoding="utf-8")


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
    write_text()
    seen = Training(code, {name: value for name, value in code.part.flags.items() if f"--{name}" in source})
    seen.place = path.name
    models = set(code.part.signatures)
    known: list[nn.Parameter] = []
    true_backward = Tensor.backward

    def watch_backward(tensor: Tensor, *arguments: Any, **words: Any) -> None:
        if len(seen.rates) > len(seen.leftover):
            seen.leftover.append(any(p.grad is not None and bool(p.grad.any()) for p in known))
        seen.losses.append(tensor.item() if tensor.numel() == 1 else math.nan)
        true_backward(tensor, *arguments, **words)

    def watch_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        known[:] = [p for group in optimizer.param_groups for p in group["params"]]
        squares = [p.grad.detach().double().square().sum() for p in known if p.grad is not None]
        seen.norms.append(math.sqrt(sum(square.item() for square in squares)))
        seen.rates.append(float(optimizer.param_groups[0]["lr"]))
        seen.decays.append(float(optimizer.param_groups[0].get("weight_decay", 0)))
        if len(seen.rates) == STEPS:
            raise _EnoughError

    def watch_call(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if seen.call is None and type(module).__name__ in models and torch.is_grad_enabled():
            seen.call = (module, inputs, output)

    if not hasattr(nn.utils, "clip_grad_norm"):  # the name in older templates
        nn.utils.clip_grad_norm = nn.utils.clip_grad_norm_  # type: ignore[attr-defined]
    Tensor.backward = watch_backward  # type: ignore[method-assign, assignment]
    register_optimizer_step_pre_hook(watch_step)
    nn.modules.module.register_module_forward_hook(watch_call)
    sys.argv = [str(path), *(f"--{name}={value}" for name, value in seen.flags.items())]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except _EnoughError:
        pass
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code and seen.rates:
            return seen
        if "backward through the graph a second time" in str(error):
            raise NotJudged("a state kept from call to call ties each step to the one before") from None
        raise code.unusable(f"run {script}", error) from None
    return seen
