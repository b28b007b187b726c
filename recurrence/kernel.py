"""The compiled way through the LSTM's recurrence on a CPU: the whole loop over time, without Python between its steps.

    python -m recurrence.kernel

compiles `kernel.cpp` once, in half a minute, with a C++ compiler and Ninja (`pip install ninja`). From then on
`lstm.lstm_sequence` takes it by default; where it was not compiled, and on GPUs, `lstm.py` computes the same in
PyTorch's operations.

What it saves: each thread takes its sequences through all steps without waiting for the others. PyTorch's operations go
over memory a dozen times a step, and half of that time is spent in tanh; here it is one pass, with tanh x = 2 sigma(2x)
- 1. The gates take z's memory, and in the backward pass their gradients the gates'. The products of wide layers go
through oneDNN, as those of `torch.nn.LSTM` do, with the weights brought into its layout once a sequence.
"""

import hashlib
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.command import ArgumentParser, run_command
from common.errors import CommandError, InputError
from common.paths import INSTALLED, ROOT, short_path

SOURCE = Path(__file__).with_suffix(".cpp")
HOW_TO_COMPILE = "python -m recurrence.kernel compiles it for CPUs"
VECTORS = {
    "AVX2": ["-mavx2", "-mfma", "-DCPU_CAPABILITY=AVX2", "-DCPU_CAPABILITY_AVX2"],
    "AVX512": [
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
        *("-DCPU_CAPABILITY=AVX512", "-DCPU_CAPABILITY_AVX512"),
    ],
}
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []  # in PyTorch's own threads
WIDE = 256  # hidden units from which oneDNN's products are worth bringing the weights into its layout


def main() -> None:
    ArgumentParser(__doc__).parse_args()
    build(kernel_file())
    print(f"compiled: {short_path(kernel_file())}")


def version() -> str:
    """Return what tells two kernels apart: 12 digits that change with the source."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]


def kernel_file() -> Path:
    """Return the path of the compiled kernel: one file for each version of source and PyTorch and kind of processor."""
    build_for = f"{version()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"
    # Beside an installation a folder that every working directory finds: PyTorch's cache, by default ~/.cache/torch
    folder = Path(torch.hub.get_dir()).parent / "recurrent-and-graph-networks" if INSTALLED else ROOT / "build"
    return folder / f"lstm_kernel-{hashlib.sha256(build_for.encode()).hexdigest()[:12]}.so"


def build(path: Path) -> None:
    """Compile the kernel into the file `path`.

    Raises:
        CommandError: there is no compiler or no Ninja, or the compiler fails.
    """
    from torch.utils import cpp_extension

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where pip has put Ninja
    for program in (cpp_extension.get_cxx_compiler(), "ninja"):
        if not shutil.which(program):
            raise CommandError(
                f"compiling the kernel needs {program}, which is not here; everything runs without it, too"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-O3", *OPENMP, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), [])]
    with TemporaryDirectory(dir=path.parent) as folder:
        try:
            cpp_extension.load("lstm_kernel", [str(SOURCE)], flags, build_directory=folder, is_python_module=False)
        except (RuntimeError, OSError) as error:
            raise CommandError(f"the kernel does not compile: {str(error).splitlines()[-1]}") from None
        os.replace(Path(folder, "lstm_kernel.so"), path)


@cache
def is_available() -> bool:
    """Whether the kernel has been compiled; it is then loaded.

    Raises:
        InputError: its file is damaged.
    """
    if not kernel_file().exists():
        return False
    try:
        torch.ops.load_library(kernel_file())
    except OSError:
        name = short_path(kernel_file())
        raise InputError(f"{name} is damaged: remove it; {HOW_TO_COMPILE}") from None
    return True


def supports(z: Tensor, c_0: Tensor) -> bool:
    """Whether the kernel takes these tensors: on the CPU, all of one type, or bfloat16 with float32 cells."""
    types = (torch.float32, torch.float32), (torch.float64, torch.float64), (torch.bfloat16, torch.float32)
    return z.device.type == c_0.device.type == "cpu" and (z.dtype, c_0.dtype) in types


class LSTMStates(torch.autograd.Function):
    """`lstm._LSTMStates`, compiled, name for name; keeps the four gates, c(t) and h(t) of each step."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, h_0: Tensor, c_0: Tensor, W_h: Tensor, zero_h_0: bool
    ) -> tuple[Tensor, Tensor]:
        T, (B, n) = gates.shape[0], h_0.shape
        h, c = h_0.new_empty(T + 1, B, n), c_0.new_empty(T + 1, B, n)
        h[0], c[0] = h_0, c_0
        torch.ops.lstm_kernel.forward(gates, c, h, transposed(W_h, B), zero_h_0)  # the gates take the place of z
        ctx.save_for_backward(gates, c, h, W_h)
        ctx.zero_h_0 = zero_h_0
        return h[1:], c[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c_T: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        gates, c, h, W_h = ctx.saved_tensors
        T, B, n = h[1:].shape
        first = int(ctx.zero_h_0)
        # Each gate is read before its gradient takes its place.
        d_a = torch.empty_like(gates) if graph_is_kept() else gates
        d_c, d_h = grad_c_T.clone(memory_format=torch.contiguous_format), h.new_empty(B, n)
        torch.ops.lstm_kernel.backward(gates, c, grad_h, d_c[None], d_h[None], d_a, transposed(W_h.t(), B), first)
        d_W_h = d_a[first:].view(-1, 4 * n).t() @ h[first:T].view(-1, n)
        return d_a, None if first else d_h, d_c, d_W_h, None


def graph_is_kept() -> bool:
    """Whether autograd may run this backward pass again (`retain_graph`); yes where this PyTorch does not say."""
    return getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()


def transposed(W: Tensor, batch_size: int) -> Tensor:
    """Return W^T, as a view or, where that is faster, copied into oneDNN's layout."""
    if min(W.shape) >= WIDE and _onednn_multiplies(W.dtype):
        return torch.ops.mkldnn._reorder_linear_weight(W.contiguous(), batch_size)
    return W.t()


@cache
def _onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies numbers of this type on this processor."""
    if not torch.backends.mkldnn.is_available() or dtype == torch.float64:
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


if __name__ == "__main__":
    run_command(main)
