"""Backpropagation through time, derived by hand: both recurrences as autograd functions.

Dimensions: T time steps, B sequences in a batch, n hidden units. Tensors are time-first.

The part of a recurrence that depends on the input alone, z(t) = W_x x(t) + b, is one matrix product over all time steps,
`input_part`. What is left is the part that cannot run in parallel, the loop over time, twice:

* `rnn_loop`, `lstm_loop`: the equations as they stand, differentiated by autograd one operation at a time.
* `rnn_sequence`, `lstm_sequence`: the same functions, which the models call, with the backward pass written out. On a CPU the
  second runs compiled, where `lstm_kernel.py` was.

The tests hold them equal to 1e-10 in float64. In the backward passes d_a[t] stands for dL/da(t) along every path from a(t)
to the loss L, and * for the element-wise product.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from part1 import lstm_kernel


def input_part(x: Tensor, W_x: Tensor, b: Tensor) -> Tensor:
    """Return z(t) = W_x x(t) + b of every step, (T, B, m), for (T, B, d) x, (m, d) W_x and (m,) b.

    W_x^T is copied, so that autograd computes its gradient with the inputs as rows: up to six times as fast where d is small.
    """
    return torch.addmm(b, x.flatten(0, 1), W_x.t().contiguous()).unflatten(0, x.shape[:2])


def rnn_loop(z: Tensor, h_0: Tensor, W_hh: Tensor) -> Tensor:
    """Equation 1 step by step; arguments and result as in `rnn_sequence`."""
    h, states = h_0, []
    for z_t in z:
        h = torch.tanh(z_t + h @ W_hh.t())  # (1)
        states.append(h)
    return torch.stack(states)


def lstm_loop(z: Tensor, h_0: Tensor, c_0: Tensor, W_h: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 4-9 step by step; arguments and result as in `lstm_sequence`."""
    h, c, states = h_0, c_0, []
    for z_t in z:
        a_g, a_i, a_f, a_o = (z_t + h @ W_h.t()).chunk(4, dim=-1)
        g = torch.tanh(a_g)  # (4)
        i = torch.sigmoid(a_i)  # (5)
        f = torch.sigmoid(a_f)  # (6)
        o = torch.sigmoid(a_o)  # (7)
        c = g * i + c * f  # (8)
        h = torch.tanh(c) * o  # (9)
        states.append(h)
    return torch.stack(states), c


def rnn_sequence(z: Tensor, h_0: Tensor, W_hh: Tensor) -> Tensor:
    """Run equation 1, h(t) = tanh(z(t) + W_hh h(t-1)), over a whole sequence.

    Args:
        z: (T, B, n) with T >= 1, the input's part W_hx x(t) + b_h of every step.
        h_0: (B, n) state before the first step.
        W_hh: (n, n) recurrent weights.

    Returns:
        (T, B, n) states h(1) ... h(T), once differentiable in all three arguments.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    _check_shapes(z, W_hh, 1, h_0=h_0)
    return _RNNSequence.apply(z, h_0, W_hh)


def lstm_sequence(
    z: Tensor, h_0: Tensor | None, c_0: Tensor | None, W_h: Tensor, overwrite_z: bool = False
) -> tuple[Tensor, Tensor]:
    """Run equations 4-9 over a whole sequence.

    Args:
        z: (T, B, 4n) with T >= 1, the input's part of the gates g, i, f, o, in this order, of every step.
        h_0: (B, n) hidden state before the first step; None for zeros, which saves a product.
        c_0: (B, n) cell state before the first step; None for zeros.
        W_h: (4n, n) recurrent weights W_gh, W_ih, W_fh, W_oh, stacked.
        overwrite_z: let the gates take z's memory; z must then be the result of an operation that nobody else looks at.

        With z, h_0 and W_h in bfloat16, c_0 may be float32; the cell states, which add up many small terms, then are too.

    Returns:
        (T, B, n) states h(1) ... h(T) and the (B, n) cell state c(T), once differentiable in all four arguments.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    _check_shapes(z, W_h, 4, h_0=h_0, c_0=c_0)
    zero_h_0, zeros = h_0 is None, z.new_zeros(z.shape[1], W_h.shape[1])
    h_0, c_0 = zeros if h_0 is None else h_0, zeros if c_0 is None else c_0
    gates = z if overwrite_z and z.is_contiguous() else z.clone(memory_format=torch.contiguous_format)
    Sequence = lstm_kernel.LSTMSequence if lstm_kernel.fits(z, c_0) else _LSTMSequence
    return Sequence.apply(gates, h_0, c_0, W_h, zero_h_0)


class _RNNSequence(torch.autograd.Function):
    """Saves one hidden-sized tensor a step, h(t)."""

    @staticmethod
    def forward(ctx, z, h_0, W_hh):
        T, B, n = z.shape
        h = z.new_empty(T + 1, B, n)  # h[t] is h(t); h[0] the initial state
        h[0] = h_0
        for z_t, h_before, h_t in zip(z, h[:-1], h[1:]):
            torch.addmm(z_t, h_before, W_hh.t(), out=h_t).tanh_()  # (1)
        ctx.save_for_backward(h, W_hh)
        return h[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h):
        """With the pre-activation a(t) = z(t) + W_hh h(t-1):

        d_h[t] = grad_h[t] + W_hh^T d_a[t+1]
        d_a[t] = d_h[t] * (1 - h(t)^2) = d_z[t]
        d_W_hh = sum over t of d_a[t] h(t-1)^T, which is one product over all steps and sequences
        """
        h, W_hh = ctx.saved_tensors
        n = W_hh.shape[0]
        d_a = 1 - h[1:].square()  # (T, B, n): tanh' first, for all steps at once; the loop multiplies d_h in
        d_h = grad_h[-1]
        for t in range(len(d_a) - 1, -1, -1):
            d_a[t].mul_(d_h)
            d_h = torch.addmm(grad_h[t - 1], d_a[t], W_hh) if t else d_a[0] @ W_hh
        d_W_hh = d_a.view(-1, n).t() @ h[:-1].view(-1, n)
        return d_a, d_h, d_W_hh


class _LSTMSequence(torch.autograd.Function):
    """Saves seven hidden-sized tensors a step: the four gates, c(t), tanh c(t) and h(t). The gates replace z in its memory."""

    @staticmethod
    def forward(ctx, gates, h_0, c_0, W_h, zero_h_0):
        T, B, n = gates.shape[0], *h_0.shape
        g, i, f, o = gates.chunk(4, dim=-1)  # (T, B, n) each
        h, c = h_0.new_empty(T + 1, B, n), c_0.new_empty(T + 1, B, n)  # h[t] is h(t), c[t] is c(t); index 0 the initial states
        tanh_c = gates.new_empty(T, B, n)
        h[0], c[0] = h_0, c_0
        for t, (a_t, g_t, i_t, f_t, o_t, ifo_t, tanh_c_t) in enumerate(zip(gates, g, i, f, o, gates[..., n:], tanh_c)):
            if t >= zero_h_0:
                a_t.addmm_(h[t], W_h.t())
            g_t.tanh_()  # (4)
            ifo_t.sigmoid_()  # (5), (6), (7)
            torch.mul(g_t, i_t, out=c[t + 1]).addcmul_(c[t], f_t)  # (8)
            torch.tanh(c[t + 1], out=tanh_c_t)
            torch.mul(tanh_c_t, o_t, out=h[t + 1])  # (9)
        ctx.save_for_backward(gates, c, tanh_c, h, W_h)
        ctx.zero_h_0 = zero_h_0
        return h[1:], c[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h, grad_c_T):
        """With the pre-activations a(t) = z(t) + W_h h(t-1), so that d_z[t] = d_a[t], and d_c[T] starting from grad_c_T:

        d_h[t]   = grad_h[t] + W_h^T d_a[t+1]
        d_c[t]   = d_c[t+1] * f(t+1) + d_h[t] * o(t) * (1 - tanh^2 c(t))
        d_a_g[t] = d_c[t] * i(t) * (1 - g(t)^2)
        d_a_i[t] = d_c[t] * g(t) * i(t) * (1 - i(t))
        d_a_f[t] = d_c[t] * c(t-1) * f(t) * (1 - f(t))
        d_a_o[t] = d_h[t] * tanh c(t) * o(t) * (1 - o(t))
        d_W_h    = sum over t of d_a[t] h(t-1)^T, which is one product over all steps and sequences

        The factors that do not depend on the loss are computed for all steps before the loop, in the memory of d_a.
        """
        gates, c, tanh_c, h, W_h = ctx.saved_tensors
        n, first = W_h.shape[1], int(ctx.zero_h_0)
        g, i, f, o = gates.chunk(4, dim=-1)
        d_a = torch.empty_like(gates)
        d_a_g, d_a_i, d_a_f, d_a_o = d_a.chunk(4, dim=-1)
        _tanh_backward(i, g, grad_input=d_a_g)
        _sigmoid_backward(g, i, grad_input=d_a_i)
        _sigmoid_backward(c[:-1].to(f.dtype), f, grad_input=d_a_f)
        _sigmoid_backward(tanh_c, o, grad_input=d_a_o)
        dh_to_dc = torch.ops.aten.tanh_backward(o, tanh_c)
        d_a_gif = d_a[..., : 3 * n].unflatten(-1, (3, n))  # (T, B, 3, n): the three gates behind c(t)

        d_h, d_c = grad_h[-1], grad_c_T.clone()
        for t in range(len(d_a) - 1, -1, -1):
            d_c.addcmul_(d_h, dh_to_dc[t])
            d_a_gif[t].mul_(d_c.unsqueeze(1))
            d_a_o[t].mul_(d_h)
            d_c.mul_(f[t])
            if t >= first:
                d_h = torch.addmm(grad_h[t - 1], d_a[t], W_h) if t else d_a[0] @ W_h
        d_W_h = d_a[first:].view(-1, 4 * n).t() @ h[first:-1].view(-1, n)
        return d_a, None if first else d_h, d_c, d_W_h, None


# grad_input = grad * (1 - y^2) and grad * y * (1 - y), each in one pass over memory
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def _check_shapes(z: Tensor, W: Tensor, gates: int, **states: Tensor | None) -> None:
    if z.dim() != 3 or z.shape[0] < 1 or z.shape[2] % gates:
        raise ValueError(f"z must be (T, B, {gates}n) with T >= 1, not {tuple(z.shape)}")
    B, n = z.shape[1], z.shape[2] // gates
    if W.shape != (gates * n, n):
        raise ValueError(f"the recurrent weights must be {(gates * n, n)} for this z, not {tuple(W.shape)}")
    for name, state in states.items():
        if state is not None and state.shape != (B, n):
            raise ValueError(f"{name} must be {(B, n)} for this z, not {tuple(state.shape)}")
