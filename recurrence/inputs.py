"""What all recurrences share: what they check, what they compute from the inputs alone, and the weights' gradients.

Dimensions: T time steps, B sequences in a batch, d inputs, n hidden units, m = G n rows of the weights of G gates.
Tensors are time-first.
"""

from typing import Any

import torch
from torch import Tensor

from common.machine import computing_type

FEW_INPUTS = 32


def input_part(x: Tensor, W_x: Tensor | None, b: Tensor | None) -> Tensor:
    """Return z(t) = W_x x(t) + b of every step in one matrix product, (T, B, m); where W_x is None, x is z already.

    Args:
        x: (T, B, d).
        W_x: (m, d).
        b: (m,); None for zeros.
    """
    if W_x is None:
        return x.clone(memory_format=torch.contiguous_format)
    rows = x.reshape(-1, x.shape[2])
    return (rows @ W_x.t() if b is None else torch.addmm(b, rows, W_x.t())).unflatten(0, x.shape[:2])


def input_gradients(d_a: Tensor, x: Tensor, W_x: Tensor | None, needs_d_x: bool) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, W_x and b, given that of z, d_a (T, B, m).

    d_x[t] = W_x^T d_a[t]; d_W_x, the sum over t of d_a[t] x(t)^T; d_b, that of d_a[t].
    """
    if W_x is None:
        return d_a, None, None
    rows, inputs = d_a.flatten(0, 1), x.reshape(-1, x.shape[2])
    # With few inputs the product with them as rows is up to six times faster.
    d_W_x = (inputs.t() @ rows).t() if x.shape[2] < FEW_INPUTS else rows.t() @ inputs
    return (rows @ W_x).view_as(x) if needs_d_x else None, d_W_x, rows.sum(0)


def weights_gradient(d_a: Tensor, h: Tensor, h_0: Tensor | None) -> Tensor:
    """Return d_W_h = sum over t of d_a[t] h(t-1)^T, (m, n), of d_a, (T, B, m), and h(1) ... h(T)."""
    d_W_h = d_a[1:].flatten(0, 1).t() @ h[:-1].flatten(0, 1)
    return d_W_h if h_0 is None else d_W_h.addmm_(d_a[0].t(), h_0)


def types(x: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """Return the type of the states, which is that of x or, under autocast, autocast's, and the one to compute in."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
    return dtype, computing_type(dtype, x.device)


def cast(tensor: Any, dtype: torch.dtype) -> Any:
    """Return a tensor, or None, in a type; the comparison spares most calls of `to`."""
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def check_sequence(x: Tensor, W_x: Tensor, W_h: Tensor, **states: Tensor | None) -> None:
    """Raise a ValueError unless x is (T >= 1, B, d) of floats, W_x has d columns, and each state is (B, n) or None."""
    d, n = W_x.shape[1], W_h.shape[1]
    if x.dim() != 3 or x.shape[0] < 1 or x.shape[2] != d or not x.is_floating_point():
        raise ValueError(f"the inputs must be (T, B, {d}) floats with T >= 1, not {tuple(x.shape)} {x.dtype}")
    check_states((x.shape[1], n), states)


def check_states(shape: tuple[int, int], states: dict[str, Tensor | None]) -> None:
    """Raise a ValueError unless each state, given by its name, has the (B, n) shape or is None."""
    for name, state in states.items():
        if state is not None and state.shape != shape:
            raise ValueError(f"{name} must be {shape} for these inputs, not {tuple(state.shape)}")


def check_shapes(z: Tensor, W: Tensor, num_gates: int, **states: Tensor | None) -> None:
    """Raise a ValueError unless, with m = num_gates n, z is (T >= 1, B, m), W (m, n) and each state (B, n) or None."""
    if z.dim() != 3 or z.shape[0] < 1 or z.shape[2] % num_gates:
        raise ValueError(f"z must be (T, B, {num_gates}n) with T >= 1, not {tuple(z.shape)}")
    B, n = z.shape[1], z.shape[2] // num_gates
    if W.shape != (num_gates * n, n):
        raise ValueError(f"the recurrent weights must be {(num_gates * n, n)} for this z, not {tuple(W.shape)}")
    check_states((B, n), states)
