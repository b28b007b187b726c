"""Which way a training takes through its recurrence: chosen once, recorded with the run, and kept when it is resumed.

* loop: the model's own forward pass, the handout's equations step by step, differentiated by autograd.
* bptt: backpropagation through time over the whole sequence, derived by hand (`rnn.py`, `lstm.py`).
* compiled: the same, compiled for CPUs (`kernel.py`).

All compute the same function; they differ in rounding, so that a resumed run must take the way that it has taken
before.
"""

import torch

from common.errors import InputError
from recurrence import kernel

RECURRENCES = ("auto", "loop", "bptt", "compiled")


def choose_recurrence(
    requested: str, offered: tuple[str, ...], device: torch.device, recorded: dict[str, str] | None = None
) -> dict[str, str]:
    """Return the name of what a training runs and, if that is compiled, the kernel's version.

    Args:
        requested: one of RECURRENCES; "auto" is the fastest there is here or, for a resumed run, what it has taken
            before.
        offered: what the model has, the slowest first.
        device: where the model computes.
        recorded: what this function returned when the run was begun; None for a new run.

    Raises:
        ValueError: the model does not have it, it is not available here, or a resumed run has taken another way.
    """
    name = requested
    if requested == "auto":
        name = recorded["name"] if recorded else _fastest(offered, device)
    if name not in offered:
        raise InputError(f"recurrence {name}: this model has {', '.join(offered)}")
    if recorded and name != recorded["name"]:
        raise InputError(f"the run was begun with recurrence {recorded['name']}: resume it with that, not with {name}")
    if name != "compiled":
        return {"name": name}
    if not _compiled_is_available(device):
        begun = "the run was begun with" if recorded else "recurrence compiled asks for"
        raise InputError(f"{begun} the compiled recurrence, which is not available here: {kernel.HOW_TO_COMPILE}")
    if recorded and recorded["kernel"] != kernel.version():
        raise InputError(
            f"the run was begun with version {recorded['kernel']} of the compiled recurrence, and this is "
            f"{kernel.version()}, which may round differently: start a new run"
        )
    return {"name": name, "kernel": kernel.version()}


def _fastest(offered: tuple[str, ...], device: torch.device) -> str:
    return [name for name in offered if name != "compiled" or _compiled_is_available(device)][-1]


def _compiled_is_available(device: torch.device) -> bool:
    return device.type == "cpu" and kernel.is_available()
