"""The machine a run meets: its device, its random streams, its versions."""

import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch

from common.distributed import launcher, own_gpu
from common.errors import CommandError

ROOT = Path(__file__).resolve().parents[1]


def get_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the first CUDA device where there is one, else the CPU.

    Of several processes each gets a CUDA device of its own.

    Raises:
        CommandError: PyTorch does not know the name, or cannot use the device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        name = own_gpu(name)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise CommandError(f"device {name!r} cannot be used here ({reason}); try --device auto") from None
    return device


def seeded_generator(seed: int, stream: str) -> torch.Generator:
    """Return a CPU generator for one purpose, so that the streams of a run (weights, data, ...) do not touch each other."""
    state = np.random.SeedSequence([seed, *stream.encode()]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def short_path(path: str | Path) -> str:
    """Return how to name a path to the user: relative to where they stand, if that is in the repository like the path."""
    path = Path(path).resolve()
    return os.path.relpath(path) if path.is_relative_to(ROOT) and Path.cwd().is_relative_to(ROOT) else str(path)


def provenance() -> dict[str, object]:
    """Return what a result needs to be made again: command, commit, versions, processor."""
    return {
        "command": " ".join([launcher(), *map(shlex.quote, [*_program(), *sys.argv[1:]])]),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "hardware": _hardware(),
    }


def _program() -> list[str]:
    """Return what names the running program: -m and a module, or a script's path."""
    path, spec = Path(sys.argv[0]).resolve(), sys.modules["__main__"].__spec__
    if spec and spec.origin and Path(spec.origin) == path:
        return ["-m", spec.name]
    return [str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name]


@cache  # before the results themselves change the tree
def _commit() -> str | None:
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git here, or not a checkout
        return None


def _hardware() -> str:
    processor, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor}, {torch.get_num_threads()} threads{gpu}"
