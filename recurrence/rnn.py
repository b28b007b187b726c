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
    d_x[t] = W_hx^T d_z[t]
    d_W_hx = sum over t of d_z[t] x(t)^T
    d_b_h  = sum over t of d_z[t]

Of each step only h(t) is kept for the backward pass. `rnn_forward` and `rnn_backward` compute the loop over time in
PyTorch's operations, `kernel.py` compiled for CPUs, `gpu.py` in Triton; the rest is common to them. The tests hold all
equal to the equations, differentiated by autograd one operation at a time: to 1e-10 in float64.
"""

import torch
from torch import Tensor

from recurrence import gpu, kernel
from recurrence.autograd import Passes, Tensors, operation
from recurrence.choice import choose_way
from recurrence.inputs import (
    cast,
    check_sequence,
    check_shapes,
    input_gradients,
    input_part,
    types,
    weights_gradient,
)


def rnn_sequence(
    x: Tensor, h_0: Tensor | None, W_hx: Tensor, W_hh: Tensor, b_h: Tensor, recurrence: str = "auto"
) -> Tensor:
    """Run equation (1) over a whole sequence, in the type of x or, under autocast, in autocast's.

    Args:
        x: (T, B, d) inputs, T >= 1.
        h_0: (B, n) state before the first step; None for zeros.
        W_hx: (n, d).
        W_hh: (n, n).
        b_h: (n,).
        recurrence: "bptt", "compiled", "triton", or "auto", the fastest that there is for these tensors.

    Returns:
        (T, B, n) states h(1) ... h(T), once differentiable in all tensors.

    Raises:
        ValueError: the shapes do not match, or the recurrence is not available for these tensors.
    """
    check_sequence(x, W_hx, W_hh, h_0=h_0)
    of_states, dtype = types(x)
    (h,) = _rnn(recurrence, *(cast(tensor, dtype) for tensor in (x, h_0, W_hx, W_hh, b_h)))
    return cast(h, of_states)


def rnn_states(z: Tensor, h_0: Tensor | None, W_hh: Tensor, recurrence: str = "auto") -> Tensor:
    """Return h(1) ... h(T) from z(1) ... z(T), (T, B, n) each; the gradient of z is d_a. The rest is as above."""
    check_shapes(z, W_hh, 1, h_0=h_0)
    (h,) = _rnn(recurrence, z, cast(h_0, z.dtype), None, cast(W_hh, z.dtype), None)
    return h


def _forward(way: str, x: Tensor, h_0: Tensor | None, W_hx: Tensor | None, W_hh: Tensor, b_h: Tensor | None) -> Tensors:
    z = input_part(x, W_hx, b_h)
    return (z if way == "shapes" else FORWARD[choose_way(way, z)](z, h_0, W_hh),)


def _backward(way: str, gradients: Tensors, needs_d_x: bool, inputs: Tensors, results: Tensors) -> Tensors:
    (grad_h,), (x, h_0, W_hx, W_hh, _), (h,) = gradients, inputs, results
    d_a, d_h_0 = BACKWARD[choose_way(way, h)](grad_h, h, W_hh, h_0 is not None)
    d_x, d_W_hx, d_b_h = input_gradients(d_a, x, W_hx, needs_d_x)
    return d_x, d_h_0, d_W_hx, weights_gradient(d_a, h, h_0), d_b_h


_INPUTS = "Tensor x, Tensor? h_0, Tensor? W_hx, Tensor W_hh, Tensor? b_h"
_rnn = operation(Passes("rnn", _INPUTS, num_outputs=1, forward=_forward, backward=_backward))


def rnn_forward(z: Tensor, h_0: Tensor | None, W_hh: Tensor) -> Tensor:
    """Return h(1) ... h(T) in the memory of z(1) ... z(T), (T, B, n) and contiguous, by equation (1).

    Args:
        h_0: (B, n); None for zeros.
    """
    W = W_hh.t()
    for z_t in z.unbind():
        if h_0 is not None:
            z_t.addmm_(h_0, W)
        h_0 = z_t.tanh_()  # (1)
    return z


def rnn_backward(grad_h: Tensor, h: Tensor, W_hh: Tensor, needs_d_h_0: bool) -> tuple[Tensor, Tensor | None]:
    """Run the backward equations from t = T down to 1; return d_a, (T, B, n), and the gradient of h_0 or None."""
    d_a = 1 - h.square()  # tanh' for all steps at once; the loop multiplies d_h in
    d_h = grad_h[-1]
    for t in range(len(h) - 1, -1, -1):
        d_a[t].mul_(d_h)
        if t > 0:
            d_h = torch.addmm(grad_h[t - 1], d_a[t], W_hh)
    return d_a, d_a[0] @ W_hh if needs_d_h_0 else None


FORWARD = {"bptt": rnn_forward, "compiled": kernel.rnn_forward, "triton": gpu.rnn_forward}
BACKWARD = {"bptt": rnn_backward, "compiled": kernel.rnn_backward, "triton": gpu.rnn_backward}
