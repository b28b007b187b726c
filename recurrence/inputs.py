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


def check_shapes(z: Tensor, W: Tensor, num_gates: int, **states: Tensor | None) -> None:
    """Raise a ValueError unless, with m = num_gates n, z is (T >= 1, B, m), W (m, n) and each state (B, n) or None."""
    if z.dim() != 3 or z.shape[0] < 1 or z.shape[2] % num_gates:
        raise ValueError(f"z must be (T, B, {num_gates}n) with T >= 1, not {tuple(z.shape)}")
    B, n = z.shape[1], z.shape[2] // num_gates
    if W.shape != (num_gates * n, n):
        raise ValueError(f"the recurrent weights must be {(num_gates * n, n)} for this z, not {tuple(W.shape)}")
    for name, state in states.items():
        if state is not None and state.shape != (B, n):
            raise ValueError(f"{name} must be {(B, n)} for this z, not {tuple(state.shape)}")
