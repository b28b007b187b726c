"""The LSTM over a whole sequence, with backpropagation through time derived by hand.

Dimensions: T time steps, B sequences in a batch, d inputs, n hidden units. Tensors are time-first. W_x, W_h and b hold
the four gates below each other in the order g, i, f, o: W_x = [W_gx; W_ix; W_fx; W_ox].

    z(t) = W_x x(t) + b                          of the input alone: one product over all steps (`inputs.py`)
    a(t) = z(t) + W_h h(t-1)                     the four pre-activations a_g, a_i, a_f, a_o
    g(t) = tanh(a_g(t))                          (4)
    i(t) = sigma(a_i(t))                         (5)
    f(t) = sigma(a_f(t))                         (6)
    o(t) = sigma(a_o(t))                         (7)
    c(t) = g(t) * i(t) + c(t-1) * f(t)           (8)
    h(t) = tanh(c(t)) * o(t)                     (9)

Backward. d_v[t] stands for dL/dv(t), the gradient of the loss L along every path from v(t); grad_h[t] is the part of
d_h[t] that does not pass through h(t+1); * is the element-wise product. h(t) acts on L directly and through a(t+1),
c(t) through h(t) and c(t+1):

    d_h[t]   = grad_h[t] + W_h^T d_a[t+1]                                without the second term at t = T
    d_c[t]   = d_h[t] * o(t) * (1 - tanh^2 c(t)) + d_c[t+1] * f(t+1)     at t = T with grad_c_T as the second term
    d_a_g[t] = d_c[t] * i(t) * (1 - g(t)^2)                              tanh' = 1 - tanh^2
    d_a_i[t] = d_c[t] * g(t) * i(t) * (1 - i(t))                         sigma' = sigma (1 - sigma)
    d_a_f[t] = d_c[t] * c(t-1) * f(t) * (1 - f(t))
    d_a_o[t] = d_h[t] * tanh c(t) * o(t) * (1 - o(t))
    d_z[t]   = d_a[t]
    d_W_h    = sum over t of d_a[t] h(t-1)^T                             one product over all steps and sequences
    d_x[t]   = W_x^T d_z[t]
    d_W_x    = sum over t of d_z[t] x(t)^T
    d_b      = sum over t of d_z[t]

`lstm_forward` and `lstm_backward` compute the loop over time in PyTorch's operations, `kernel.py` compiled for CPUs,
`gpu.py` in Triton; the rest is common to them. The tests hold all equal to the equations, differentiated by autograd
one operation at a time: to 1e-10 in float64.
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


def lstm_sequence(
    x: Tensor,
    state: tuple[Tensor | None, Tensor | None] | None,
    W_x: Tensor,
    W_h: Tensor,
    b: Tensor,
    recurrence: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run equations (4) to (9) over a whole sequence.

    Everything is computed in the type of x or, under autocast, in autocast's; the cell states, which add up many small
    terms, in float32 at least.

    Args:
        x: (T, B, d) inputs, T >= 1.
        state: (h_0, c_0), (B, n) each, before the first step; None for zeros. Either may be None as well.
        W_x: (4n, d).
        W_h: (4n, n).
        b: (4n,).
        recurrence: "bptt", "compiled", "triton", or "auto", the fastest that there is for these tensors.

    Returns:
        (T, B, n) states h(1) ... h(T) and the (B, n) cell state c(T), once differentiable in all tensors.

    Raises:
        ValueError: the shapes do not match, or the recurrence is not available for these tensors.
    """
    h_0, c_0 = (None, None) if state is None else state
    check_sequence(x, W_x, W_h, h_0=h_0, c_0=c_0)
    of_states, dtype = types(x)
    c_0 = _cells(c_0, (x.shape[1], W_h.shape[1]), x, dtype)
    x, h_0, W_x, W_h, b = (cast(tensor, dtype) for tensor in (x, h_0, W_x, W_h, b))
    h, c = _lstm(recurrence, x, h_0, c_0, W_x, W_h, b)
    return cast(h, of_states), c


def lstm_states(
    z: Tensor, h_0: Tensor | None, c_0: Tensor | None, W_h: Tensor, recurrence: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Return h(1) ... h(T) and c(T) from z(1) ... z(T), (T, B, 4n); the gradient of z is d_a. The rest is as above."""
    check_shapes(z, W_h, 4, h_0=h_0, c_0=c_0)
    c_0 = _cells(c_0, (z.shape[1], W_h.shape[1]), z, z.dtype)
    h, c = _lstm(recurrence, z, cast(h_0, z.dtype), c_0, None, cast(W_h, z.dtype), None)
    return h, c


def _cells(c_0: Tensor | None, shape: tuple[int, int], like: Tensor, dtype: torch.dtype) -> Tensor:
    dtype = torch.promote_types(dtype, torch.float32)
    return like.new_zeros(shape, dtype=dtype) if c_0 is None else cast(c_0, dtype)


def _forward(
    way: str, x: Tensor, h_0: Tensor | None, c_0: Tensor, W_x: Tensor | None, W_h: Tensor, b: Tensor | None
) -> Tensors:
    z = input_part(x, W_x, b)
    if way == "shapes":
        h, c, gates = z.new_empty(len(z), *c_0.shape), c_0.new_empty(len(z), *c_0.shape), z
    else:
        h, c, gates = FORWARD[choose_way(way, z)](z, h_0, c_0, W_h)
    return h, c[-1].clone(), gates, c


def _backward(way: str, gradients: Tensors, needs_d_x: bool, inputs: Tensors, results: Tensors) -> Tensors:
    (grad_h, grad_c_T), (x, h_0, c_0, W_x, W_h, _), (h, _, gates, c) = gradients, inputs, results
    back = BACKWARD[choose_way(way, gates)]
    d_a, d_h_0, d_c_0 = back(grad_h, grad_c_T, gates, c, c_0, W_h, h_0 is not None)
    d_x, d_W_x, d_b = input_gradients(d_a, x, W_x, needs_d_x)
    return d_x, d_h_0, d_c_0, d_W_x, weights_gradient(d_a, h, h_0), d_b


_INPUTS = "Tensor x, Tensor? h_0, Tensor c_0, Tensor? W_x, Tensor W_h, Tensor? b"
_lstm = operation(Passes("lstm", _INPUTS, num_outputs=2, forward=_forward, backward=_backward))


def lstm_forward(z: Tensor, h_0: Tensor | None, c_0: Tensor, W_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run equations (4) to (9) from z on.

    One sigmoid computes all four gates, since tanh a = 2 sigma(2a) - 1: the rows of a_g are doubled before.

    Args:
        z: (T, B, 4n), contiguous; overwritten.
        h_0: (B, n); None for zeros.
        c_0: (B, n), in float32 at least.
        W_h: (4n, n).

    Returns:
        h(1) ... h(T), c(1) ... c(T), (T, B, n) each, and the gates g, i, f, o in z's memory.
    """
    T, (B, n) = len(z), c_0.shape
    if T == 1:
        return _one_step(z, h_0, c_0, W_h)
    h, c = z.new_empty(T, B, n), c_0.new_empty(T, B, n)
    z[..., :n] *= 2
    W = W_h.t().clone(memory_format=torch.contiguous_format)
    W[:, :n] *= 2
    s, i, f, o = (gate.unbind() for gate in z.chunk(4, dim=-1))  # s = sigma(2 a_g); views of each step
    for t, (z_t, h_t, c_t) in enumerate(zip(z.unbind(), h.unbind(), c.unbind())):
        if h_0 is not None:
            z_t.addmm_(h_0, W)  # from z to a
        z_t.sigmoid_()  # (5), (6), (7)
        torch.mul(c_0, f[t], out=c_t).addcmul_(s[t], i[t], value=2).sub_(i[t])  # (8), g = 2 s - 1
        torch.mul(torch.tanh(c_t), o[t], out=h_t)  # (9)
        h_0, c_0 = h_t, c_t
    z[..., :n].mul_(2).sub_(1)  # (4)
    return h, c, z


def _one_step(z: Tensor, h_0: Tensor | None, c_0: Tensor, W_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the same of a single step, as a model that writes takes it: without a copy of W_h."""
    n, a = W_h.shape[1], z[0]
    if h_0 is not None:
        a.addmm_(h_0, W_h.t())
    g, (i, f, o) = a[:, :n].tanh_(), a[:, n:].sigmoid_().chunk(3, dim=1)  # (4) to (7)
    c = torch.addcmul(c_0 * f, g, i)  # (8)
    return cast(torch.tanh(c) * o, z.dtype).unsqueeze(0), c.unsqueeze(0), z  # (9)


def lstm_backward(
    grad_h: Tensor, grad_c_T: Tensor, gates: Tensor, c: Tensor, c_0: Tensor, W_h: Tensor, needs_d_h_0: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Run the backward equations from t = T down to 1.

    Args:
        grad_h: (T, B, n).
        grad_c_T: (B, n).
        gates: (T, B, 4n), with c, (T, B, n), as `lstm_forward` has returned them.
        c_0: (B, n).
        W_h: (4n, n).
        needs_d_h_0: whether the gradient of h_0 is computed.

    Returns:
        d_a, (T, B, 4n); the gradients of h_0, or None, and of c_0, (B, n).
    """
    n = W_h.shape[1]
    g, i, f, o = gates.chunk(4, dim=-1)
    d_a, tanh_c = torch.empty_like(gates), (2 * c).sigmoid_().mul_(2).sub_(1).to(o.dtype)  # half of torch.tanh's time
    d_a_g, d_a_i, d_a_f, d_a_o = d_a.chunk(4, dim=-1)
    # The factors that do not depend on the loss, for all steps before the loop, in the memory of d_a
    _tanh_backward(i, g, grad_input=d_a_g)
    _sigmoid_backward(g, i, grad_input=d_a_i)
    _sigmoid_backward(torch.cat((c_0.unsqueeze(0), c[:-1])).to(f.dtype), f, grad_input=d_a_f)
    _sigmoid_backward(tanh_c, o, grad_input=d_a_o)
    d_h_to_d_c = torch.ops.aten.tanh_backward(o, tanh_c)
    d_a_gif = d_a[..., : 3 * n].unflatten(-1, (3, n))  # (T, B, 3, n): the three gates behind c(t)

    steps = (tensor.unbind() for tensor in (grad_h, d_h_to_d_c, d_a_gif, d_a_o, f, d_a))  # views of each step
    d_h, d_c = torch.zeros_like(grad_h[0]), grad_c_T.clone()  # d_h: what comes from step t + 1
    for t, (grad_h_t, d_h_to_d_c_t, d_a_gif_t, d_a_o_t, f_t, d_a_t) in reversed([*enumerate(zip(*steps))]):
        d_h += grad_h_t
        d_c.addcmul_(d_h, d_h_to_d_c_t)
        d_a_gif_t.mul_(d_c.unsqueeze(1))
        d_a_o_t.mul_(d_h)
        d_c.mul_(f_t)
        if t > 0 or needs_d_h_0:
            torch.mm(d_a_t, W_h, out=d_h)
    return d_a, d_h if needs_d_h_0 else None, d_c


# grad_input = grad * (1 - y^2) and grad * y * (1 - y), each in one pass over memory
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input

FORWARD = {"bptt": lstm_forward, "compiled": kernel.lstm_forward, "triton": gpu.lstm_forward}
BACKWARD = {"bptt": lstm_backward, "compiled": kernel.lstm_backward, "triton": gpu.lstm_backward}


def to_torch_order(stacked: Tensor) -> Tensor:
    """Reorder rows from the handout's g, i, f, o to torch.nn's i, f, g, o."""
    g, i, f, o = stacked.chunk(4)
    return torch.cat((i, f, g, o))


def from_torch_order(stacked: Tensor) -> Tensor:
    """Reorder rows from torch.nn's i, f, g, o to the handout's g, i, f, o."""
    i, f, g, o = stacked.chunk(4)
    return torch.cat((g, i, f, o))
