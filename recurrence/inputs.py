"""What a recurrence computes from its inputs alone, for all steps at once, and the shapes that it accepts.

Dimensions: T time steps, B sequences in a batch, d inputs, n hidden units. Tensors are time-first.
"""

import torch
from torch import Tensor

FEW_INPUTS = 32


def input_part(x: Tensor, W_x: Tensor, b: Tensor) -> Tensor:
    """Return z(t) = W_x x(t) + b of every step in one matrix product; autograd differentiates it.

    With few inputs W_x^T is copied, so that autograd computes its gradient with the inputs as rows: up to six times
    faster.

    Args:
        x: (T, B, d).
        W_x: (m, d).
        b: (m,).

    Returns:
        (T, B, m).
    """
    W_x_transposed = W_x.t().contiguous() if W_x.shape[1] < FEW_INPUTS else W_x.t()
    return torch.addmm(b, x.flatten(0, 1), W_x_transposed).unflatten(0, x.shape[:2])


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
