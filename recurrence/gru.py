"""The GRU over a whole sequence, with backpropagation through time derived by hand.

Dimensions: T time steps, B sequences in a batch, d inputs, n hidden units. Tensors are time-first. W_x and W_h hold the
update gate z, the reset gate r and the candidate below each other: W_x = [W_zx; W_rx; W_cx], W_h = [W_zh; W_rh; W_ch].
In the handout each row is one matrix, W_z = [W_zh, W_zx], W_r and W likewise, applied to [h(t-1), x(t)].

    a_z(t) = W_zx x(t) + W_zh h(t-1)             the inputs' parts of all steps are one product (`inputs.py`)
    a_r(t) = W_rx x(t) + W_rh h(t-1)
    z(t)   = sigma(a_z(t))
    r(t)   = sigma(a_r(t))
    q(t)   = r(t) * h(t-1)                       the reset gate acts before the product
    a_c(t) = W_cx x(t) + W_ch q(t)
    h~(t)  = tanh(a_c(t))
    h(t)   = (1 - z(t)) * h(t-1) + z(t) * h~(t)

Backward. d_v[t] stands for dL/dv(t), the gradient of the loss L along every path from v(t); grad_h[t] is the part of
d_h[t] that does not pass through h(t+1); * is the element-wise product. h(t) acts on L directly and on h(t+1) in four
ways: copied, through q(t+1), and through both gates:

    d_h[t]   = grad_h[t] + d_h[t+1] * (1 - z(t+1)) + d_q[t+1] * r(t+1)
               + W_zh^T d_a_z[t+1] + W_rh^T d_a_r[t+1]                   the first term alone at t = T
    d_a_c[t] = d_h[t] * z(t) * (1 - h~(t)^2)                             tanh' = 1 - tanh^2
    d_q[t]   = W_ch^T d_a_c[t]
    d_a_z[t] = d_h[t] * (h~(t) - h(t-1)) * z(t) * (1 - z(t))             sigma' = sigma (1 - sigma)
    d_a_r[t] = d_q[t] * h(t-1) * r(t) * (1 - r(t))
    d_W_zh   = sum over t of d_a_z[t] h(t-1)^T                           one product over all steps and sequences
    d_W_rh   = sum over t of d_a_r[t] h(t-1)^T
    d_W_ch   = sum over t of d_a_c[t] q(t)^T
    d_x[t]   = W_x^T d_a[t]                                              d_a: the three below each other
    d_W_x    = sum over t of d_a[t] x(t)^T

`torch.nn.GRU` computes another function: it resets after the product, W_ch (h(t-1)) * r(t), it has biases, and its z is
1 - z here. With one unit, W_ch a number, both are the same.
"""

import torch
from torch import Tensor

from recurrence.autograd import Passes, Tensors, operation
from recurrence.inputs import cast, check_sequence, input_gradients, input_part, types


def gru_sequence(x: Tensor, h_0: Tensor | None, W_x: Tensor, W_h: Tensor) -> Tensor:
    """Run the GRU's equations over a whole sequence, in float32 at least.

    Args:
        x: (T, B, d) inputs, T >= 1.
        h_0: (B, n) state before the first step; None for zeros.
        W_x: (3n, d).
        W_h: (3n, n).

    Returns:
        (T, B, n) states h(1) ... h(T), once differentiable in all tensors.

    Raises:
        ValueError: the shapes do not match.
    """
    check_sequence(x, W_x, W_h, h_0=h_0)
    of_states, dtype = types(x)
    dtype = torch.promote_types(dtype, torch.float32)
    h_0 = x.new_zeros(x.shape[1], W_h.shape[1]) if h_0 is None else h_0
    (h,) = _gru("bptt", *(cast(tensor, dtype) for tensor in (x, h_0, W_x, W_h)))
    return cast(h, of_states)


def gru_forward(z: Tensor, h_0: Tensor, W_h: Tensor) -> tuple[Tensor, Tensor]:
    """Run the equations from t = 1 to T.

    Args:
        z: (T, B, 3n) contiguous, the inputs' parts of a_z, a_r and a_c; overwritten.
        h_0: (B, n).
        W_h: (3n, n).

    Returns:
        (T, B, n) h(1) ... h(T), and (T, B, 3n) z, r and h~ in z's memory.
    """
    n = W_h.shape[1]
    h, (W_zr, W_c) = z.new_empty(*z.shape[:2], n), W_h.t().split((2 * n, n), dim=1)
    for z_t, h_t in zip(z.unbind(), h.unbind()):
        gates, candidate = z_t.split((2 * n, n), dim=1)
        update, reset = gates.addmm_(h_0, W_zr).sigmoid_().chunk(2, dim=1)
        candidate.addmm_(reset * h_0, W_c).tanh_()
        h_0 = torch.lerp(h_0, candidate, update, out=h_t)  # h + z (h~ - h)
    return h, z


def gru_backward(grad_h: Tensor, gates: Tensor, h_before: Tensor, W_h: Tensor) -> tuple[Tensor, Tensor]:
    """Run the backward equations from t = T down to 1.

    Args:
        grad_h: (T, B, n).
        gates: (T, B, 3n), as `gru_forward` has returned them.
        h_before: (T, B, n) h(0) ... h(T-1).
        W_h: (3n, n).

    Returns:
        d_a, (T, B, 3n), and the gradient of h_0, (B, n).
    """
    n = W_h.shape[1]
    z, r, candidate = gates.chunk(3, dim=-1)
    d_a = torch.empty_like(gates)
    d_a_z, d_a_r, d_a_c = d_a.chunk(3, dim=-1)
    # The factors that do not depend on the loss, for all steps before the loop, in the memory of d_a
    torch.mul(candidate - h_before, z * (1 - z), out=d_a_z)
    torch.mul(h_before, r * (1 - r), out=d_a_r)
    torch.mul(z, 1 - candidate.square(), out=d_a_c)
    kept, (W_zr, W_c) = 1 - z, W_h.split((2 * n, n))
    d_h = torch.zeros_like(grad_h[0])  # what comes from step t + 1
    for t in range(len(grad_h) - 1, -1, -1):
        d_h = d_h + grad_h[t]
        d_a_c[t].mul_(d_h)
        d_q = d_a_c[t] @ W_c
        d_a_z[t].mul_(d_h)
        d_a_r[t].mul_(d_q)
        d_h = torch.addmm(d_h * kept[t] + d_q * r[t], d_a[t, :, : 2 * n], W_zr)
    return d_a, d_h


def _forward(way: str, x: Tensor, h_0: Tensor, W_x: Tensor, W_h: Tensor) -> Tensors:
    z = input_part(x, W_x, None)
    return (z.new_empty(*z.shape[:2], W_h.shape[1]), z) if way == "shapes" else gru_forward(z, h_0, W_h)


def _backward(way: str, gradients: Tensors, needs_d_x: bool, inputs: Tensors, results: Tensors) -> Tensors:
    (grad_h,), (x, h_0, W_x, W_h), (h, gates) = gradients, inputs, results
    n, h_before = h.shape[2], torch.cat((h_0.unsqueeze(0), h[:-1]))
    d_a, d_h_0 = gru_backward(grad_h, gates, h_before, W_h)
    d_x, d_W_x, _ = input_gradients(d_a, x, W_x, needs_d_x)
    q = gates[..., n : 2 * n] * h_before
    rows = d_a.flatten(0, 1)
    d_W_h = torch.cat((rows[:, : 2 * n].t() @ h_before.flatten(0, 1), rows[:, 2 * n :].t() @ q.flatten(0, 1)))
    return d_x, d_h_0, d_W_x, d_W_h


_INPUTS = "Tensor x, Tensor h_0, Tensor W_x, Tensor W_h"
_gru = operation(Passes("gru", _INPUTS, num_outputs=1, forward=_forward, backward=_backward))
