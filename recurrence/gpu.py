"""The recurrences on a GPU, in Triton.

A step is a small product and a little arithmetic: in PyTorch's operations a GPU spends most of it on starting kernels.
Two ways, by the number of hidden units n:

* narrow: one kernel for the whole sequence (`gpu_kernels.py`). Sequences do not depend on each other, so each program
  takes 16 of them through all steps and waits for no other; W_h comes from the caches.
* wide: cuBLAS's product and one kernel a step. STEPS steps are a CUDA graph, which a GPU runs without the CPU; it is
  captured when the same shapes come a second time, with memory of its own: for the LSTM 6 n numbers a step and sequence
  forward and 10 n backward.

Symbols as in `lstm.py` and `rnn.py`. Plain tensors without gradients: what autograd sees is made of these functions
there. float32 is float32 throughout, or TF32 in the products where PyTorch's own settings allow it. With bfloat16 the
products add up in float32 and the cells are float32; h(t), the gates and d_a are rounded.
"""

import hashlib
import importlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Hidden units up to which a sequence is one kernel: with tensor cores (bfloat16, TF32), and without. Estimates, not
# measured: beyond, one multiprocessor takes longer to read W_h, or to multiply 16 rows in float32, than a step of a
# graph takes, some 6 microseconds.
NARROW = {"tf32": 128, "ieee": 64}
STEPS = 64  # steps of a CUDA graph
MAX_GRAPHS = 16  # kept; a sequence longer than STEPS needs three each way: first, middle and last steps
BLOCK = 256  # elements of a program of the kernels for one step


def version() -> str:
    """Return what tells two versions of this way apart: 12 digits that change with the source."""
    sources = (Path(__file__), Path(__file__).with_name("gpu_kernels.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def is_available(device: torch.device) -> bool:
    """Whether Triton is there and its kernels run on this device.

    That is a CUDA device, or in tests the CPU: with TRITON_INTERPRET=1, before the kernels are first used, Triton's
    interpreter runs them.
    """
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
    return device.type == "cuda" and _runs_on(device)


def supports(z: Tensor) -> bool:
    """Whether these functions take z: float32 or bfloat16, not empty, on a device where the kernels run."""
    return z.dtype in (torch.float32, torch.bfloat16) and z.numel() > 0 and is_available(z.device)


def lstm_forward(z: Tensor, h_0: Tensor | None, c_0: Tensor | None, W_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run equations (4) to (9) over a whole sequence.

    Args:
        z: (T, B, 4n) contiguous, of the input alone; overwritten.
        h_0: (B, n) in z's type; None for zeros.
        c_0: (B, n); None for zeros.
        W_h: (4n, n) in z's type.

    Returns:
        (T, B, n) h(1) ... h(T) in z's type, (T, B, n) c(1) ... c(T) in float32, and (T, B, 4n) the gates g, i, f, o
        in z's memory.
    """
    T, (B, n) = len(z), (z.shape[1], W_h.shape[1])
    has_h_0, W_h = h_0 is not None, W_h.contiguous()
    h, c = z.new_empty(T, B, n), z.new_empty(T, B, n, dtype=torch.float32)
    h_before = h[0] if h_0 is None else h_0.contiguous()  # h[0] is not read
    c_before = torch.zeros_like(c[0]) if c_0 is None else c_0.to(torch.float32).contiguous()
    if _is_narrow(W_h):
        with torch.cuda.device_of(z):
            _kernels().lstm_forward[_programs(B)](
                z, h_before, c_before, W_h, h, c, T, B, n=n, has_h_0=has_h_0, **_blocks(W_h)
            )
        return h, c, z
    for start in range(0, T, STEPS):
        part = slice(start, start + STEPS)
        _run(_lstm_steps, (h[part], c[part]), (z[part],), (h_before, c_before, W_h), start > 0 or has_h_0)
        h_before, c_before = h[part][-1], c[part][-1]
    return h, c, z


def lstm_backward(
    grad_h: Tensor, grad_c_T: Tensor, gates: Tensor, c: Tensor, c_0: Tensor | None, W_h: Tensor, needs_d_h_0: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Run the equations of `lstm.py`'s backward pass from t = T down to 1.

    Args:
        grad_h: (T, B, n) with any strides.
        grad_c_T: (B, n).
        gates: (T, B, 4n), with c as `lstm_forward` has returned them.
        c: (T, B, n).
        c_0: (B, n); None for zeros.
        W_h: (4n, n).
        needs_d_h_0: False leaves the gradient of h_0 out.

    Returns:
        (T, B, 4n) d_a in the gates' type, (B, n) the gradients of h_0, or None, and of c_0, in float32.
    """
    T, (B, n) = len(c), c.shape[1:]
    W_h, d_a = W_h.contiguous(), torch.empty_like(gates)
    c_0 = torch.zeros_like(c[0]) if c_0 is None else c_0.to(torch.float32).contiguous()
    d_c = torch.empty_like(c[0]).copy_(grad_c_T)
    if _is_narrow(W_h):
        with torch.cuda.device_of(c):
            _kernels().lstm_backward[_programs(B)](
                grad_h.contiguous(), d_c, gates, c, c_0, W_h, d_a, T, B, n=n, **_blocks(W_h)
            )
    else:
        d_h, d_a_after = grad_h.clone(memory_format=torch.contiguous_format), d_a[0]  # which is not read
        for start in reversed(range(0, T, STEPS)):
            part, c_before = slice(start, start + STEPS), c[start - 1] if start else c_0
            read = d_h[part], gates[part], c[part], c_before, d_a_after, W_h
            _run(_lstm_steps_backward, (d_a[part],), (d_c,), read, start + STEPS < T)
            d_a_after = d_a[start]
    return d_a, d_a[0] @ W_h if needs_d_h_0 else None, d_c


def rnn_forward(z: Tensor, h_0: Tensor | None, W_hh: Tensor) -> Tensor:
    """Run equation (1) over a whole sequence.

    Args:
        z: (T, B, n) of the input alone.
        h_0: (B, n) in z's type; None for zeros.
        W_hh: (n, n) in z's type.

    Returns:
        (T, B, n) h(1) ... h(T).
    """
    T, B, n = z.shape
    has_h_0, W_hh = h_0 is not None, W_hh.contiguous()
    h_before = z[0] if h_0 is None else h_0.contiguous()  # z[0] is not read as a state
    if _is_narrow(W_hh):
        z = z.contiguous()
        h = torch.empty_like(z)
        with torch.cuda.device_of(z):
            _kernels().rnn_forward[_programs(B)](z, h_before, W_hh, h, T, B, n=n, has_h_0=has_h_0, **_blocks(W_hh))
        return h
    h = z.clone(memory_format=torch.contiguous_format)
    for start in range(0, T, STEPS):
        part = slice(start, start + STEPS)
        _run(_rnn_steps, (), (h[part],), (h_before, W_hh), start > 0 or has_h_0)
        h_before = h[part][-1]
    return h


def rnn_backward(grad_h: Tensor, h: Tensor, W_hh: Tensor, needs_d_h_0: bool) -> tuple[Tensor, Tensor | None]:
    """Run the equations of `rnn.py`'s backward pass from t = T down to 1.

    Args:
        grad_h: (T, B, n) with any strides.
        h: (T, B, n) as `rnn_forward` has returned it.
        W_hh: (n, n).
        needs_d_h_0: False leaves the gradient of h_0 out.

    Returns:
        (T, B, n) d_a and (B, n) the gradient of h_0, or None.
    """
    T, B, n = h.shape
    W_hh = W_hh.contiguous()
    if _is_narrow(W_hh):
        d_a = torch.empty_like(h)
        with torch.cuda.device_of(h):
            _kernels().rnn_backward[_programs(B)](grad_h.contiguous(), h, W_hh, d_a, T, B, n=n, **_blocks(W_hh))
    else:
        d_a = grad_h.clone(memory_format=torch.contiguous_format)
        d_a_after = d_a[0]  # not read
        for start in reversed(range(0, T, STEPS)):
            part = slice(start, start + STEPS)
            _run(_rnn_steps_backward, (), (d_a[part],), (h[part], d_a_after, W_hh), start + STEPS < T)
            d_a_after = d_a[start]
    return d_a, d_a[0] @ W_hh if needs_d_h_0 else None


def _kernels() -> Any:
    """Import the kernels, which takes as long as importing Triton, when they are first used."""
    return importlib.import_module("recurrence.gpu_kernels")


@cache
def _runs_on(device: torch.device) -> bool:
    """Try the smallest kernel on an NVIDIA GPU, Ampere or later: Triton may be older than 3.0, its C compiler missing.

    AMD's GPUs are left out: nobody has tried.
    """
    is_nvidia = torch.version.hip is None and torch.cuda.is_available()
    if not is_nvidia or torch.cuda.get_device_capability(device) < (8, 0) or find_spec("triton") is None:
        return False
    try:
        z = torch.zeros(1, 1, 1, device=device)
        rnn_forward(z, z[0], z[0])
    except Exception as error:  # whatever it is, PyTorch's operations do
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"Triton does not run on {device}, so PyTorch's operations do: {reason}", stacklevel=3)
        return False
    return True


def _precision(dtype: torch.dtype) -> str:
    """How `tl.dot` multiplies float32. It says nothing about bfloat16, which as TF32 goes through tensor cores."""
    matmul = torch.backends.cuda.matmul
    if dtype == torch.float32:
        # From PyTorch 2.9 on, allow_tf32 is deprecated and may not be read where the new name was written.
        tf32 = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
        return "tf32" if tf32 else "ieee"
    return "tf32"


def _is_narrow(W: Tensor) -> bool:
    return W.shape[1] <= NARROW[_precision(W.dtype)]


def _programs(B: int) -> tuple[int]:
    return (-(-B // 16),)


def _blocks(W: Tensor) -> dict[str, Any]:
    """Return the block sizes for W_h or W_hh: blocks of W of 64 KB at most, or 32 KB without tensor cores.

    16, the least that `tl.dot` takes in every version, is also the number of sequences of a program.
    """
    n, precision = W.shape[1], _precision(W.dtype)
    power = max(16, 1 << (n - 1).bit_length())
    BLOCK_N = min(power, 256 * n // W.shape[0])  # the four gates of 64 units, or 256 units of the RNN
    BLOCK_K = min(power, 32 if precision == "ieee" else 256 // W.element_size())
    return {
        "PRECISION": precision,
        "BLOCK_B": 16,
        "BLOCK_N": BLOCK_N,
        "BLOCK_K": BLOCK_K,
        "num_warps": 8 if precision == "tf32" and BLOCK_N >= 64 else 4,
        "num_stages": 1,  # see gpu_kernels.py
    }


def _lstm_steps(
    h: Tensor, c: Tensor, gates: Tensor, h_before: Tensor, c_before: Tensor, W_h: Tensor, has_h_before: bool
) -> None:
    """Steps forward; gates holds z and is overwritten, h and c are written."""
    step, (B, n) = _kernels().lstm_step, c_before.shape
    programs = (-(-B * n // BLOCK),)
    for t in range(len(h)):
        if t > 0 or has_h_before:
            gates[t].addmm_(h_before, W_h.t())  # from z to a
        step[programs](gates[t], c_before, h[t], c[t], B * n, n=n, BLOCK=BLOCK)
        h_before, c_before = h[t], c[t]


def _lstm_steps_backward(
    d_a: Tensor,
    d_c: Tensor,
    d_h: Tensor,
    gates: Tensor,
    c: Tensor,
    c_before: Tensor,
    d_a_after: Tensor,
    W_h: Tensor,
    has_after: bool,
) -> None:
    """Steps backward; d_h holds grad_h, and both d_h and d_c are overwritten, d_a is written."""
    step, (B, n) = _kernels().lstm_step_backward, c_before.shape
    programs = (-(-B * n // BLOCK),)
    for t in reversed(range(len(c))):
        if has_after or t < len(c) - 1:
            d_h[t].addmm_(d_a_after, W_h)
        before = c[t - 1] if t > 0 else c_before
        step[programs](d_h[t], d_c, gates[t], c[t], before, d_a[t], B * n, n=n, BLOCK=BLOCK)
        d_a_after = d_a[t]


def _rnn_steps(h: Tensor, h_before: Tensor, W_hh: Tensor, has_h_before: bool) -> None:
    """Steps forward; h holds z and is overwritten."""
    for t in range(len(h)):
        if t > 0 or has_h_before:
            h[t].addmm_(h_before, W_hh.t())  # from z to a
        h_before = h[t].tanh_()  # (1)


def _rnn_steps_backward(d_a: Tensor, h: Tensor, d_a_after: Tensor, W_hh: Tensor, has_after: bool) -> None:
    """Steps backward; d_a holds grad_h and is overwritten."""
    for t in reversed(range(len(h))):
        if has_after or t < len(h) - 1:
            d_a[t].addmm_(d_a_after, W_hh)  # d_h[t]
        torch.ops.aten.tanh_backward.grad_input(d_a[t], h[t], grad_input=d_a[t])  # d_h[t] * (1 - h(t)^2)
        d_a_after = d_a[t]


# By what is captured, the least recently used first: a graph and its tensors, or None after the first call
_graphs: OrderedDict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, list[Tensor]] | None] = OrderedDict()


def _run(
    steps: Callable[..., None],
    written: tuple[Tensor, ...],
    updated: tuple[Tensor, ...],
    read: tuple[Tensor, ...],
    has_neighbour: bool,
) -> None:
    """Call steps(*written, *updated, *read, has_neighbour); on a GPU, from the second time on, as a CUDA graph.

    has_neighbour tells whether there is a product in the first of these steps, with what the step before it, or in the
    backward pass the step after it, has left.

    A graph works on memory of its own: what it reads is copied there, what it writes copied back. Two calls with the
    same shapes must not run at once, on two streams.
    """
    tensors = (*written, *updated, *read)
    device, dtype = read[-1].device, read[-1].dtype  # those of W, from which the types of the others follow
    if device.type != "cuda":
        return steps(*tensors, has_neighbour)
    with torch.cuda.device(device):
        if torch.cuda.is_current_stream_capturing():  # the caller's graph takes the steps in
            return steps(*tensors, has_neighbour)
        key = (steps, has_neighbour, device, dtype, _precision(dtype), *(tensor.shape for tensor in tensors))
        is_first, captured = key not in _graphs, _graphs.pop(key, None)
        if captured is None and not is_first:
            captured = _capture(steps, tensors, has_neighbour)
        _graphs[key] = captured
        if len(_graphs) > MAX_GRAPHS:
            _graphs.popitem(last=False)
        if captured is None:
            return steps(*tensors, has_neighbour)
        graph, buffers = captured
        for buffer, tensor in list(zip(buffers, tensors))[len(written) :]:
            buffer.copy_(tensor)
        graph.replay()
        for buffer, tensor in list(zip(buffers, tensors))[: len(written) + len(updated)]:
            tensor.copy_(buffer)


def _capture(
    steps: Callable[..., None], tensors: tuple[Tensor, ...], has_neighbour: bool
) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """Return the CUDA graph of the steps and the tensors that it works on."""
    graph, buffers = torch.cuda.CUDAGraph(), [torch.zeros_like(tensor) for tensor in tensors]
    stream = _capture_stream(buffers[0].device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        steps(*buffers, has_neighbour)  # cuBLAS takes its memory, and Triton loads its kernels, before the capture
    torch.cuda.current_stream().wait_stream(stream)
    # Other threads (a data loader's, NCCL's) may go on calling CUDA meanwhile.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        steps(*buffers, has_neighbour)
    return graph, buffers


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all graphs of a device: cuBLAS keeps memory for each stream that it has seen."""
    return torch.cuda.Stream(device)
