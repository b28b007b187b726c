"""What a run takes from its machine: the device, cores, random number generators, versions."""

import os
import platform
import subprocess
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.command import command_line
from common.distributed import local_cuda_device
from common.errors import CommandError
from common.paths import INSTALLED, ROOT

# Whether this CPU has instructions for products in bfloat16 (older versions of PyTorch do not say)
_CAPABILITIES: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
MULTIPLIES_BFLOAT16 = bool(_CAPABILITIES.get("avx512_bf16"))


def computing_type(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return dtype; for bfloat16 on a CPU without instructions for it, where it takes many times as long, float32."""
    emulated = dtype == torch.bfloat16 and device.type == "cpu" and not MULTIPLIES_BFLOAT16
    return torch.float32 if emulated else dtype


def get_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the first CUDA device if there is one, else the CPU.

    If several processes train together, each gets a CUDA device of its own.

    Raises:
        CommandError: PyTorch does not know the name, or cannot use the device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        name = local_cuda_device(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # of many types: PyTorch knows the names of devices that it was not built for
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise CommandError(f"device {name!r} cannot be used here ({reason}); try --device auto") from None
    return torch.device("cpu") if device.type == "cpu" else device  # "cpu:1" is the same


def num_cores() -> int:
    """Return how many cores this process may use; a cluster or `taskset` may give it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seeded_generator(seed: int, stream: str) -> torch.Generator:
    """Return a CPU generator for one purpose (`stream`), so that a run's weights, data, ... are drawn independently."""
    state = np.random.SeedSequence([seed, *stream.encode()]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)  # NumPy 1 does not shift its own 64 bits by an int


class GlobalGenerators:
    """PyTorch's global random number generators, from which dropout draws, to be saved and restored with a run."""

    def __init__(self, device: torch.device):
        self.device = device

    def state_dict(self) -> dict[str, Any]:
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state(), **cuda}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        torch.set_rng_state(saved["cpu"])
        if self.device.type == "cuda" and "cuda" in saved:
            torch.cuda.set_rng_state(saved["cuda"], self.device)


def provenance() -> dict[str, object]:
    """Return what is needed to reproduce a result: command, commit, versions, hardware."""
    return {
        "command": command_line(),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "hardware": _hardware(),
    }


def _commit() -> str | None:
    commit, changed = working_tree()
    return f"{commit}-dirty" if commit and changed else commit


# What experiments and benchmarks write, and what is built from it
BUILT = (
    "report/results",
    "report/figures",
    "report/tables",
    "report/numbers.tex",
    "report/sources.tex",
    "report/main.pdf",
    "README.md",
    "docs/questions.md",
    "docs/results.md",
    "docs/speed.md",
    "benchmarks/scaling.md",
)
CODE = (".py", ".c", ".h", ".cpp", ".cu")  # endings of files that can change a result before git knows them


@cache  # asked once, at the start: afterwards somebody may edit a file
def working_tree() -> tuple[str | None, list[str]]:
    """Return the commit that is checked out and the files that differ from it; (None, []) where there is no checkout.

    Untracked files count if they hold code. Results, and what is built from them, do not count: a sweep that follows
    another finds them changed.
    """
    ours = [".", *(f":(exclude){path}" for path in BUILT)]
    if INSTALLED:
        return None, []
    try:
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
        status = _git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *ours)
    except (OSError, subprocess.CalledProcessError):  # git is not installed, or this is not a checkout
        return None, []
    entries = [(entry[:2], entry[3:]) for entry in status.split("\0") if entry]
    return commit, [path for state, path in entries if state != "??" or path.endswith(CODE)]


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True).stdout


def _hardware() -> str:
    processor, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    vectors = torch.backends.cpu.get_cpu_capability() + (" and bfloat16" if MULTIPLIES_BFLOAT16 else "")
    return f"{processor}, {vectors}, {torch.get_num_threads()} threads{gpu}"
