"""Which way a computation takes through its recurrence.

* loop: the model's own forward pass, the handout's equations step by step, differentiated by autograd.
* bptt: backpropagation through time over the whole sequence, derived by hand (`rnn.py`, `lstm.py`).
* compiled: the same, compiled for CPUs (`kernel.py`).
* triton: the same, for GPUs (`gpu.py`).

All compute the same function. They differ in rounding: so a training chooses once, records that with the run, and keeps
it when it is resumed.
"""

import torch
from torch import Tensor

from common.errors import InputError
from recurrence import gpu, kernel

RECURRENCES = ("loop", "bptt", "compiled", "triton")  # the slowest first
VERSIONS = {"compiled": kernel.version, "triton": gpu.version}


def choose_way(recurrence: str, z: Tensor) -> str:
    """Return bptt, compiled or triton: what was asked for or, with "auto", the fastest that there is for this z.

    Of a single step bptt computes what compiled stands for: packing the weights takes longer than the step.

    Raises:
        ValueError: there is no such recurrence, or not for this z.
    """
    if recurrence in ("auto", "compiled") and kernel.supports(z):
        return "compiled" if len(z) > 1 else "bptt"
    if recurrence in ("auto", "triton") and gpu.supports(z):
        return "triton"
    if recurrence in ("auto", "bptt"):
        return "bptt"
    check_recurrence(recurrence)
    reason = why_not(recurrence, z.device) or f"it is not for {z.dtype}"
    raise InputError(f"the {recurrence} recurrence is not available for these tensors: {reason}")


def check_recurrence(recurrence: str, offered: tuple[str, ...] = RECURRENCES) -> None:
    """Raise a ValueError unless the recurrence is "auto" or one of those offered."""
    if recurrence not in ("auto", *offered):
        raise InputError(f"the recurrence is auto, {' or '.join(offered)}, not {recurrence}")


def choose_recurrence(
    requested: str, offered: tuple[str, ...], device: torch.device, recorded: dict[str, str] | None = None
) -> dict[str, str]:
    """Return the name of what a training runs and, if that may round differently from version to version, its version.

    Args:
        requested: one of those offered; "auto" is the fastest there is here or, for a resumed run, what it has taken
            before.
        offered: what the model has, the slowest first.
        device: where the model computes.
        recorded: what this function returned when the run was begun; None for a new run.

    Raises:
        ValueError: the model does not have it, it is not available here, or a resumed run has taken another way.
    """
    check_recurrence(requested, offered)
    name = requested
    if requested == "auto":
        name = recorded["name"] if recorded else [one for one in offered if not why_not(one, device)][-1]
    if recorded and name != recorded["name"]:
        raise InputError(f"the run was begun with recurrence {recorded['name']}: resume it with that, not with {name}")
    if reason := why_not(name, device):
        raise InputError(f"{'the run was begun with ' if recorded else ''}recurrence {name}: {reason}")
    if name not in VERSIONS:
        return {"name": name}
    version = VERSIONS[name]()
    if recorded and recorded.get("kernel") != version:
        raise InputError(
            f"the run was begun with version {recorded.get('kernel')} of the {name} recurrence, and this is {version}, "
            "which may round differently: start a new run"
        )
    return {"name": name, "kernel": version}


def why_not(name: str, device: torch.device) -> str | None:
    """Return why a recurrence is not available on a device; None if it is."""
    if name == "compiled":
        return kernel.why_not() if device.type == "cpu" else f"it is for CPUs, and the device is {device}"
    if name == "triton" and not gpu.is_available(device):
        return f"it needs Triton and an NVIDIA GPU, and the device is {device}"
    return None
