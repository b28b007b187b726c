"""The fast way through the LSTM's recurrence on a CPU: the element-wise part of a step, compiled into one pass.

    python part1/lstm_kernel.py

compiles `lstm_cell.cpp` once, in half a minute, with a C++ compiler and Ninja (`pip install ninja`). From then on
`bptt.lstm_sequence` runs it; where it was not compiled, and on GPUs, `bptt.py` computes the same in more calls. The tests hold
the two equal.

What it saves: PyTorch's calls go over memory a dozen times a step, and half of that time is spent in tanh, which here is
2 sigma(2x) - 1. The gates take z's memory, and in the backward pass their gradients the gates'. The products of wide layers go
through oneDNN, as those of `torch.nn.LSTM` do, with the weights brought into its layout once a sequence.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.errors import ArgumentParser, CommandError, run_command
from common.machine import ROOT, short_path

SOURCE = Path(__file__).with_name("lstm_cell.cpp")
VECTORS = {
    "AVX2": ["-mavx2", "-mfma", "-DCPU_CAPABILITY=AVX2", "-DCPU_CAPABILITY_AVX2"],
    "AVX512": [
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
        *("-DCPU_CAPABILITY=AVX512", "-DCPU_CAPABILITY_AVX512"),
    ],
}
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []  # in PyTorch's own threads
WIDE = 256  # hidden units from which oneDNN's products are faster in float32


def main() -> None:
    ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    build(kernel_file())
    print(f"compiled: {short_path(kernel_file())}")


def kernel_file() -> Path:
    """Where the compiled kernel lies: one file for each version of source and PyTorch, and each kind of processor."""
    version = f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {SOURCE.read_text(encoding='utf-8')}"
    return ROOT / "build" / f"lstm_cell-{hashlib.sha256(version.encode()).hexdigest()[:12]}.so"


def build(path: Path) -> None:
    """Compile the kernel into the file `path`.

    Raises:
        CommandError: there is no compiler or no Ninja, or the compiler fails.
    """
    from torch.utils import cpp_extension

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where pip has put Ninja
    for program in (cpp_extension.get_cxx_compiler(), "ninja"):
        if not shutil.which(program):
            raise CommandError(f"compiling the kernel needs {program}, which is not here; everything runs without it, too")
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-O3", *OPENMP, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), [])]
    with TemporaryDirectory(dir=path.parent) as folder:
        try:
            cpp_extension.load("lstm_cell", [str(SOURCE)], flags, build_directory=folder, is_python_module=False)
        except (RuntimeError, OSError) as error:
            raise CommandError(f"the kernel does not compile: {str(error).splitlines()[-1]}") from None
        os.replace(Path(folder, "lstm_cell.so"), path)


def fits(z: Tensor, c_0: Tensor) -> bool:
    """Whether there is a compiled kernel for these tensors: on the CPU, all of one type, or bfloat16 with float32 cells."""
    types = (torch.float32, torch.float32), (torch.float64, torch.float64), (torch.bfloat16, torch.float32)
    return z.device.type == c_0.device.type == "cpu" and (z.dtype, c_0.dtype) in types and compiled()


@cache
def compiled() -> bool:
    """Whether the kernel is there; it is then loaded.

    Raises:
        CommandError: its file is damaged.
    """
    if not kernel_file().exists():
        return False
    try:
        torch.ops.load_library(kernel_file())
    except OSError:
        name = short_path(kernel_file())
        raise CommandError(f"{name} is damaged: part1/lstm_kernel.py compiles it anew; or remove it") from None
    return True


class LSTMSequence(torch.autograd.Function):
    """`bptt.lstm_sequence`, compiled; the names are those of its eager twin there. Saves the four gates, c(t) and h(t)."""

    @staticmethod
    def forward(ctx, gates, h_0, c_0, W_h, zero_h_0):
        T, B, n = gates.shape[0], *h_0.shape
        h, c = h_0.new_empty(T + 1, B, n), c_0.new_empty(T + 1, B, n)
        h[0], c[0] = h_0, c_0
        plus_product = adder_of_products(W_h, B)
        for t, (z_t, h_before, c_before, h_t, c_t) in enumerate(zip(gates, h, c, h[1:], c[1:])):
            a = plus_product(z_t, h_before) if t >= zero_h_0 else z_t
            torch.ops.lstm_cell.forward(a, c_before, z_t, c_t, h_t)  # the gates take the place of z(t)
        ctx.save_for_backward(gates, c, h, W_h)
        ctx.zero_h_0 = zero_h_0
        return h[1:], c[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h, grad_c_T):
        gates, c, h, W_h = ctx.saved_tensors
        T, B, n, first = *h[1:].shape, int(ctx.zero_h_0)
        d_a = torch.empty_like(gates) if graph_is_kept() else gates  # each gate is read before its gradient takes its place
        d_c, d_h = contiguous_copy(grad_c_T), grad_h[-1].contiguous()
        plus_product = adder_of_products(W_h.t(), B)
        for t in range(T - 1, -1, -1):
            torch.ops.lstm_cell.backward(gates[t], c[t], c[t + 1], d_h, d_c, d_a[t])
            if t >= first:
                d_h = plus_product(contiguous_copy(grad_h[t - 1]) if t else torch.zeros_like(d_h), d_a[t])
        d_W_h = d_a[first:].view(-1, 4 * n).t() @ h[first:T].view(-1, n)
        return d_a, None if first else d_h, d_c, d_W_h, None


def contiguous_copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def graph_is_kept() -> bool:
    """Whether autograd may run this backward pass again (`retain_graph`), as far as this PyTorch tells."""
    return getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()


def adder_of_products(W: Tensor, batch_size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function y + x W^T of (B, m) y, whose memory it may take, and (B, k) x, for (m, k) weights."""
    wide = min(W.shape) >= WIDE or W.dtype == torch.bfloat16
    if wide and W.dtype != torch.float64 and torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(W.contiguous(), batch_size)
        return lambda y, x: torch.ops.mkldnn._linear_pointwise.binary(x, y, packed, None, "add")
    return lambda y, x: y.addmm_(x, W.t())


if __name__ == "__main__":
    run_command(main)
