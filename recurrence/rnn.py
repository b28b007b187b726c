"""The vanilla RNN over a whole sequence, with backpropagation through time derived by hand.

Dimensions: T time steps, B sequences in a batch, d inputs, n hidden units. Tensors are time-first.

    z(t) = W_hx x(t) + b_h            of the input alone: one product over all steps (`inputs.py`)
    a(t) = z(t) + W_hh h(t-1)
    h(t) = tanh(a(t))                 equation (1)

Backward. d_v[t] stands for dL/dv(t), the gradient of the loss L along every path from v(t); grad_h[t] is the part of
d_h[t] that does not pass through h(t+1); * is the element-wise product. h(t) acts on L directly and through a(t+1):

    d_h[t] = grad_h[t] + W_hh^T d_a[t+1]                     without the second term at t = T
    d_a[t] = d_h[t] * (1 - h(t)^2)                           tanh' = 1 - tanh^2
    d_z[t] = d_a[t]
    d_W_hh = sum over t of d_a[t] h(t-1)^T                   one product over all steps and sequences

Of each step only h(t) is kept for the backward pass. The tests hold this equal to the equations, differentiated by
autograd one operation at a time, to 1e-10 in float64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recurrence.inputs import check_sequence, check_shapes, input_part


def rnn_sequence(x: Tensor, h_0: Tensor | None, W_hx: Tensor, W_hh: Tensor, b_h: Tensor) -> Tensor:
    """Run equation (1) over a whole sequence.

    Args:
        x: (T, B, d) inputs, T >= 1.
        h_0: (B, n) state before the first step; None for zeros.
        W_hx: (n, d).
        W_hh: (n, n).
        b_h: (n,).

    Returns:
        (T, B, n) states h(1) ... h(T), once differentiable in all arguments.

    Raises:
        ValueError: the shapes do not match.
    """
    check_sequence(x, W_hx, W_hh, h_0=h_0)
    z = input_part(x, W_hx, b_h)
    return rnn_states(z, z.new_zeros(z.shape[1:]) if h_0 is None else h_0, W_hh)


def rnn_states(z: Tensor, h_0: Tensor, W_hh: Tensor) -> Tensor:
    """Return h(1) ... h(T) from z(1) ... z(T), (T, B, n) each; the gradient of z is d_a. Other arguments as above."""
    check_shapes(z, W_hh, 1, h_0=h_0)
    return _RNNStates.apply(z, h_0, W_hh.to(z.dtype))  # under autocast z is in another type


class _RNNStates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, h_0: Tensor, W_hh: Tensor) -> Tensor:
        T, B, n = z.shape
        h = z.new_empty(T + 1, B, n)  # h[t] is h(t); h[0] the initial state
        h[0] = h_0
        h_at, z_at = h.unbind(), z.unbind()  # views of each step; z_at[t] belongs to step t + 1
        for t in range(T):
            torch.addmm(z_at[t], h_at[t], W_hh.t(), out=h_at[t + 1]).tanh_()  # (1)
        ctx.save_for_backward(h, W_hh)
        return h[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, W_hh = ctx.saved_tensors
        T, n = len(grad_h), W_hh.shape[0]
        d_a = 1 - h[1:].square()  # (T, B, n): tanh' for all steps at once; the loop multiplies d_h in
        d_h = grad_h[T - 1]
        for t in range(T - 1, -1, -1):  # d_a[t] and grad_h[t] belong to step t + 1
            d_a[t].mul_(d_h)
            d_h = torch.addmm(grad_h[t - 1], d_a[t], W_hh) if t > 0 else d_a[0] @ W_hh
        d_W_hh = d_a.view(-1, n).t() @ h[:-1].view(-1, n)
        return d_a, d_h, d_W_hh
