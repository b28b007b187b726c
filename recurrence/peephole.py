"""The peephole LSTM of UvA 2020 over a whole sequence, with backpropagation through time derived by hand.

Its gates look at the cells, not at h(t-1), and its candidate has a sigmoid and no recurrence: so h is an output only.

Dimensions: T time steps, B sequences in a batch, d inputs, n hidden units. Tensors are time-first. W_x and b hold the
candidate g and the gates i, f, o below each other, W_x = [W_cx; W_ix; W_fx; W_ox]; W_c the three gates' views of the
cells, W_c = [W_ih; W_fh; W_oh] in the handout's names.

    z(t) = W_x x(t) + b                          of the input alone: one product over all steps (`inputs.py`)
    a(t) = z(t) + [0; W_c c(t-1)]                the four pre-activations a_g, a_i, a_f, a_o
    g(t) = sigma(a_g(t))
    i(t) = sigma(a_i(t))
    f(t) = sigma(a_f(t))
    o(t) = sigma(a_o(t))
    c(t) = g(t) * i(t) + c(t-1) * f(t)
    h(t) = tanh(c(t)) * o(t)

Backward. d_v[t] stands for dL/dv(t), the gradient of the loss L along every path from v(t); grad_h[t] is d_h[t] itself,
since no step reads h; * is the element-wise product. c(t) acts on L through h(t), c(t+1) and the gates of step t+1:

    d_c[t]   = grad_h[t] * o(t) * (1 - tanh^2 c(t)) + d_c[t+1] * f(t+1)
               + W_c^T [d_a_i; d_a_f; d_a_o][t+1]                        at t = T with grad_c_T as the rest
    d_a_g[t] = d_c[t] * i(t) * g(t) * (1 - g(t))                         sigma' = sigma (1 - sigma)
    d_a_i[t] = d_c[t] * g(t) * i(t) * (1 - i(t))
    d_a_f[t] = d_c[t] * c(t-1) * f(t) * (1 - f(t))
    d_a_o[t] = grad_h[t] * tanh c(t) * o(t) * (1 - o(t))
    d_W_c    = sum over t of [d_a_i; d_a_f; d_a_o][t] c(t-1)^T           one product over all steps and sequences
    d_x[t]   = W_x^T d_a[t]
    d_W_x    = sum over t of d_a[t] x(t)^T
    d_b      = sum over t of d_a[t]
"""

import torch
from torch import Tensor

from recurrence.autograd import Passes, Tensors, operation
from recurrence.inputs import cast, check_sequence, input_gradients, input_part, types


def peephole_sequence(x: Tensor, c_0: Tensor | None, W_x: Tensor, W_c: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Run the peephole LSTM's equations over a whole sequence, in float32 at least.

    Args:
        x: (T, B, d) inputs, T >= 1.
        c_0: (B, n) cells before the first step; None for zeros.
        W_x: (4n, d).
        W_c: (3n, n).
        b: (4n,).

    Returns:
        (T, B, n) states h(1) ... h(T) and the (B, n) cells c(T), once differentiable in all tensors.

    Raises:
        ValueError: the shapes do not match.
    """
    check_sequence(x, W_x, W_c, c_0=c_0)
    of_states, dtype = types(x)
    dtype = torch.promote_types(dtype, torch.float32)
    c_0 = x.new_zeros(x.shape[1], W_c.shape[1]) if c_0 is None else c_0
    h, c_T = _peephole("bptt", *(cast(tensor, dtype) for tensor in (x, c_0, W_x, W_c, b)))
    return cast(h, of_states), c_T


def peephole_forward(z: Tensor, c_0: Tensor, W_c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run the equations from t = 1 to T.

    Args:
        z: (T, B, 4n) contiguous, of the input alone; overwritten.
        c_0: (B, n).
        W_c: (3n, n).

    Returns:
        (T, B, n) h(1) ... h(T) and c(1) ... c(T), and (T, B, 4n) the gates g, i, f, o in z's memory.
    """
    n, W = W_c.shape[1], W_c.t()
    c = z.new_empty(*z.shape[:2], n)
    g = z[..., :n].sigmoid_()
    for g_t, a_t, c_t in zip(g.unbind(), z[..., n:].unbind(), c.unbind()):
        i, f, _ = a_t.addmm_(c_0, W).sigmoid_().chunk(3, dim=1)
        c_0 = torch.mul(c_0, f, out=c_t).addcmul_(g_t, i)
    return torch.tanh(c).mul_(z[..., 3 * n :]), c, z


def peephole_backward(
    grad_h: Tensor, grad_c_T: Tensor, gates: Tensor, c: Tensor, c_before: Tensor, W_c: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the backward equations from t = T down to 1.

    Args:
        grad_h: (T, B, n).
        grad_c_T: (B, n).
        gates: (T, B, 4n), with c, (T, B, n), as `peephole_forward` has returned them.
        c_before: (T, B, n) c(0) ... c(T-1).
        W_c: (3n, n).

    Returns:
        d_a, (T, B, 4n), and the gradient of c_0, (B, n).
    """
    n = W_c.shape[1]
    g, i, f, o = gates.chunk(4, dim=-1)
    d_a, tanh_c = torch.empty_like(gates), torch.tanh(c)
    d_a_g, d_a_i, d_a_f, d_a_o = d_a.chunk(4, dim=-1)
    torch.mul(grad_h * tanh_c, o * (1 - o), out=d_a_o)
    # The factors that do not depend on the loss, for all steps before the loop, in the memory of d_a
    torch.mul(i, g * (1 - g), out=d_a_g)
    torch.mul(g, i * (1 - i), out=d_a_i)
    torch.mul(c_before, f * (1 - f), out=d_a_f)
    d_a_gif, through_h = d_a[..., : 3 * n].unflatten(-1, (3, n)), grad_h * o * (1 - tanh_c.square())
    d_c = grad_c_T
    for t in range(len(c) - 1, -1, -1):
        d_c = d_c + through_h[t]
        d_a_gif[t].mul_(d_c.unsqueeze(1))
        d_c = torch.addmm(d_c * f[t], d_a[t, :, n:], W_c)
    return d_a, d_c


def _forward(way: str, x: Tensor, c_0: Tensor, W_x: Tensor, W_c: Tensor, b: Tensor) -> Tensors:
    z = input_part(x, W_x, b)
    if way == "shapes":
        h, c, gates = z.new_empty(len(z), *c_0.shape), z.new_empty(len(z), *c_0.shape), z
    else:
        h, c, gates = peephole_forward(z, c_0, W_c)
    return h, c[-1].clone(), gates, c


def _backward(way: str, gradients: Tensors, needs_d_x: bool, inputs: Tensors, results: Tensors) -> Tensors:
    (grad_h, grad_c_T), (x, c_0, W_x, W_c, _), (_, _, gates, c) = gradients, inputs, results
    n, c_before = c.shape[2], torch.cat((c_0.unsqueeze(0), c[:-1]))
    d_a, d_c_0 = peephole_backward(grad_h, grad_c_T, gates, c, c_before, W_c)
    d_x, d_W_x, d_b = input_gradients(d_a, x, W_x, needs_d_x)
    d_W_c = d_a[..., n:].flatten(0, 1).t() @ c_before.flatten(0, 1)
    return d_x, d_c_0, d_W_x, d_W_c, d_b


_INPUTS = "Tensor x, Tensor c_0, Tensor W_x, Tensor W_c, Tensor b"
_peephole = operation(Passes("peephole", _INPUTS, num_outputs=2, forward=_forward, backward=_backward))
