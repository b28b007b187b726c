"""The compiled way through a recurrence on a CPU: the whole loop over time in C (`kernel.c`), without Python.

The machine's C compiler compiles it in a second, when it is first used, into the user's cache folder; where there is
none, and on Windows, `rnn.py` and `lstm.py` compute the same in PyTorch's operations.

What it saves: W_h is brought once a sequence into the order in which the products read it, and stays in a cache. Each
thread takes its sequences through all steps without waiting for the others. The pointwise half of a step follows its
product while that is in the L1 cache, in one pass, with tanh x = 2 sigma(2x) - 1. The gates take z's memory, and in the
backward pass their gradients the gates'.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from common.data import cache_folder, sha256_of
from common.errors import InputError

SOURCE = Path(__file__).with_suffix(".c")
TYPES = {torch.float32: "FLOAT32", torch.float64: "FLOAT64", torch.bfloat16: "BFLOAT16"}
# No flag that changes what NaN and infinity do, or, in the whole process, what becomes of very small numbers
FLAGS = ("-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing")


def version() -> str:
    """Return what tells two kernels apart: 12 digits that change with the source."""
    return sha256_of(SOURCE)[:12]


@cache
def why_not() -> str | None:
    """Return why the kernel is not available; None if it is. It is compiled for that, if it was not before."""
    try:
        loaded(torch.float32)
    except InputError as error:
        return str(error)
    return None


def supports(z: Tensor) -> bool:
    """Whether the kernel takes such tensors, and is available."""
    return z.device.type == "cpu" and z.dtype in TYPES and why_not() is None


@cache
def loaded(dtype: torch.dtype) -> ctypes.CDLL:
    """Return the kernel for tensors of this type, compiled if it was not before.

    Raises:
        InputError: there is no compiler, or it fails.
    """
    compiler = find_compiler()
    openmp = _loaded_openmp()
    flags = [*FLAGS, f"-D{TYPES[dtype]}", "-march=native" if "86" in platform.machine() else "-mcpu=native"]
    flags += ["-Xpreprocessor", "-fopenmp"] if sys.platform == "darwin" else ["-fopenmp"]
    about = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    built_for = "\n".join((SOURCE.read_text(), *flags, *compiler, about, str(openmp), _processor()))
    try:
        return ctypes.CDLL(str(_compiled(compiler, flags, openmp, hashlib.sha256(built_for.encode()).hexdigest()[:16])))
    except OSError as error:  # of the loader, or a full disk
        raise InputError(f"the compiled recurrence cannot be made: {error}") from None


def _compiled(compiler: list[str], flags: list[str], openmp: Path, key: str) -> Path:
    """Return the compiled file of this key. Its name ends in its checksum; one that does not match it is not used."""
    folder = cache_folder()
    for path in folder.glob(f"{key}-*.so"):
        if path.stem == f"{key}-{sha256_of(path)}":
            return path
    with TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "kernel.so")
        _compile(compiler, flags, openmp, path)
        return path.replace(folder / f"{key}-{sha256_of(path)}.so")


def find_compiler() -> list[str]:
    """Return the command that compiles C: $CC, or cc.

    Raises:
        InputError: there is none.
    """
    try:
        command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError:  # a quotation mark without its other half
        command = [os.environ["CC"]]
    if sys.platform == "win32" or not shutil.which(command[0]):
        raise InputError(f"the compiled recurrence needs a C compiler, and {command[0]} is not here")
    return command


def _compile(compiler: list[str], flags: list[str], openmp: Path, path: Path) -> None:
    """Compile the kernel into the file `path`, linked with the OpenMP that PyTorch has loaded: two would be in each
    other's way."""
    object_file = path.with_suffix(".o")
    link = ["-shared", str(object_file), str(openmp), "-lm", "-o", str(path)]
    for arguments in ([*flags, "-c", str(SOURCE), "-o", str(object_file)], link):
        done = subprocess.run([*compiler, *arguments], capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise InputError(f"the recurrence does not compile with {compiler[0]}: {reason}")


def _loaded_openmp() -> Path:
    """Return the file of the OpenMP library that PyTorch computes with.

    Raises:
        InputError: it has none that can be found.
    """
    try:
        files = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    except OSError:
        files = {str(path) for path in (Path(torch.__file__).parent / "lib").iterdir()}
    named = [Path(file) for file in sorted(files) if Path(file).name.startswith(("libgomp", "libiomp5", "libomp."))]
    for path in sorted(named, key=lambda path: not path.is_relative_to(Path(torch.__file__).parent)):
        return path  # other packages may have brought theirs
    raise InputError("the compiled recurrence needs the OpenMP library that PyTorch computes with, which was not found")


def _processor() -> str:
    """Return what tells processors with different instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def lstm_forward(z: Tensor, h_0: Tensor | None, c_0: Tensor, W_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what `lstm.lstm_forward` does."""
    T, (B, n) = len(z), c_0.shape
    h, c = z.new_empty(T, B, n), c_0.new_empty(T, B, n)
    _call("lstm_forward", (T, B, n), W_h, h_0, c_0, z, h, c)
    return h, c, z


def lstm_backward(
    grad_h: Tensor, grad_c_T: Tensor, gates: Tensor, c: Tensor, c_0: Tensor, W_h: Tensor, needs_d_h_0: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Compute what `lstm.lstm_backward` does, in the gates' memory where nobody will need them again."""
    d_a = torch.empty_like(gates) if graph_is_kept() else gates
    d_h_0 = gates.new_empty(c_0.shape) if needs_d_h_0 else None
    d_c = grad_c_T.clone(memory_format=torch.contiguous_format)
    _call("lstm_backward", c.shape, W_h, gates, c, c_0, grad_h, d_a, d_c, d_h_0)
    return d_a, d_h_0, d_c


def rnn_forward(z: Tensor, h_0: Tensor | None, W_hh: Tensor) -> Tensor:
    """Compute what `rnn.rnn_forward` does."""
    _call("rnn_forward", z.shape, W_hh, h_0, z)
    return z


def rnn_backward(grad_h: Tensor, h: Tensor, W_hh: Tensor, needs_d_h_0: bool) -> tuple[Tensor, Tensor | None]:
    """Compute what `rnn.rnn_backward` does."""
    d_a, d_h_0 = torch.empty_like(h), torch.empty_like(h[0]) if needs_d_h_0 else None
    _call("rnn_backward", h.shape, W_hh, h, grad_h, d_a, d_h_0)
    return d_a, d_h_0


def _call(name: str, sizes: tuple[int, ...], W: Tensor, *tensors: Tensor | None) -> None:
    """Call a function of the library for W's type; what it writes to is contiguous, what it reads is made so."""
    contiguous = [None if one is None else one.contiguous() for one in (W, *tensors)]
    pointers = [ctypes.c_void_p(None if one is None else one.data_ptr()) for one in contiguous]
    getattr(loaded(W.dtype), name)(torch.get_num_threads(), *map(ctypes.c_int64, sizes), *pointers)


def graph_is_kept() -> bool:
    """Whether autograd may run this backward pass again (`retain_graph`); yes where this PyTorch does not say."""
    return getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()
