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

`_LSTMStates` computes this in PyTorch's operations, `kernel.LSTMStates` compiled. The tests hold both equal to the
equations, differentiated by autograd one operation at a time, to 1e-10 in float64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recurrence import kernel
from recurrence.inputs import check_sequence, check_shapes, input_part


def lstm_sequence(
    x: Tensor,
    state: tuple[Tensor | None, Tensor] | None,
    W_x: Tensor,
    W_h: Tensor,
    b: Tensor,
    recurrence: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run equations (4) to (9) over a whole sequence.

    With x and the weights in bfloat16, c_0 may be float32; the cell states, which add up many small terms, then are
    too.

    Args:
        x: (T, B, d) inputs, T >= 1.
        state: (h_0, c_0), (B, n) each, before the first step; None for zeros. h_0 alone may be None as well.
        W_x: (4n, d).
        W_h: (4n, n).
        b: (4n,).
        recurrence: "bptt", "compiled", or "auto": compiled where the kernel is there and supports the tensors.

    Returns:
        (T, B, n) states h(1) ... h(T) and the (B, n) cell state c(T), once differentiable in all tensors.

    Raises:
        ValueError: the shapes do not match, or "compiled" is not available for these tensors.
    """
    h_0, c_0 = (None, None) if state is None else state
    check_sequence(x, W_x, W_h, h_0=h_0, c_0=c_0)
    return lstm_states(input_part(x, W_x, b), h_0, c_0, W_h, recurrence, overwrite_z=True)


def lstm_states(
    z: Tensor,
    h_0: Tensor | None,
    c_0: Tensor | None,
    W_h: Tensor,
    recurrence: str = "auto",
    overwrite_z: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return h(1) ... h(T) and c(T) from (T, B, 4n) z(1) ... z(T); the gradient of z is d_a. Other arguments as above.

    Args:
        overwrite_z: let the gates take z's memory; z must then be the result of an operation that nobody else reads.
    """
    check_shapes(z, W_h, 4, h_0=h_0, c_0=c_0)
    zero_h_0, shape = h_0 is None, (z.shape[1], W_h.shape[1])
    # Under autocast z is in a narrower type than the weights: it is that of all but the cells.
    h_0 = z.new_zeros(shape) if h_0 is None else h_0.to(z.dtype)
    c_0 = z.new_zeros(shape, dtype=torch.promote_types(z.dtype, W_h.dtype)) if c_0 is None else c_0
    W_h = W_h.to(z.dtype)
    if recurrence not in ("auto", "bptt", "compiled"):
        raise ValueError(f"the recurrence is auto, bptt or compiled, not {recurrence}")
    compiled = recurrence != "bptt" and kernel.is_available() and kernel.supports(z, c_0)
    if recurrence == "compiled" and not compiled:
        unavailable = f"the compiled recurrence is not available for {z.dtype} on {z.device}"
        raise ValueError(f"{unavailable}: {kernel.HOW_TO_COMPILE}")
    gates = z if overwrite_z and z.is_contiguous() else z.clone(memory_format=torch.contiguous_format)
    return (kernel.LSTMStates if compiled else _LSTMStates).apply(gates, h_0, c_0, W_h, zero_h_0)


class _LSTMStates(torch.autograd.Function):
    """Keeps seven hidden-sized tensors a step: the four gates, c(t), tanh c(t) and h(t). The gates take z's memory."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, h_0: Tensor, c_0: Tensor, W_h: Tensor, zero_h_0: bool
    ) -> tuple[Tensor, Tensor]:
        T, (B, n) = gates.shape[0], h_0.shape
        h, c = h_0.new_empty(T + 1, B, n), c_0.new_empty(T + 1, B, n)  # h[t] is h(t), c[t] is c(t)
        tanh_c = gates.new_empty(T, B, n)  # tanh_c[t] and gates[t] belong to step t + 1
        h[0], c[0] = h_0, c_0
        h_at, c_at, tanh_c_at, a_at = h.unbind(), c.unbind(), tanh_c.unbind(), gates.unbind()  # views of each step
        g, i, f, o = (gate.unbind() for gate in gates.chunk(4, dim=-1))
        ifo = gates[..., n:].unbind()
        for t in range(T):
            if t > 0 or not zero_h_0:
                a_at[t].addmm_(h_at[t], W_h.t())  # from z to a
            g[t].tanh_()  # (4)
            ifo[t].sigmoid_()  # (5), (6), (7)
            torch.mul(g[t], i[t], out=c_at[t + 1]).addcmul_(c_at[t], f[t])  # (8)
            torch.tanh(c_at[t + 1], out=tanh_c_at[t])
            torch.mul(tanh_c_at[t], o[t], out=h_at[t + 1])  # (9)
        ctx.save_for_backward(gates, c, tanh_c, h, W_h)
        ctx.zero_h_0 = zero_h_0
        return h[1:], c[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c_T: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        gates, c, tanh_c, h, W_h = ctx.saved_tensors
        T, n = len(gates), W_h.shape[1]
        first = int(ctx.zero_h_0)  # the first step whose product was computed, counted from 0
        g, i, f, o = gates.chunk(4, dim=-1)
        d_a = torch.empty_like(gates)
        d_a_g, d_a_i, d_a_f, d_a_o = d_a.chunk(4, dim=-1)
        # The factors that do not depend on the loss, for all steps before the loop, in the memory of d_a
        _tanh_backward(i, g, grad_input=d_a_g)
        _sigmoid_backward(g, i, grad_input=d_a_i)
        _sigmoid_backward(c[:-1].to(f.dtype), f, grad_input=d_a_f)
        _sigmoid_backward(tanh_c, o, grad_input=d_a_o)
        d_h_to_d_c = torch.ops.aten.tanh_backward(o, tanh_c)
        d_a_gif = d_a[..., : 3 * n].unflatten(-1, (3, n))  # (T, B, 3, n): the three gates behind c(t)

        d_h, d_c = grad_h[T - 1], grad_c_T.clone()
        for t in range(T - 1, -1, -1):
            d_c.addcmul_(d_h, d_h_to_d_c[t])
            d_a_gif[t].mul_(d_c.unsqueeze(1))
            d_a_o[t].mul_(d_h)
            d_c.mul_(f[t])
            if t >= first:
                d_h = torch.addmm(grad_h[t - 1], d_a[t], W_h) if t > 0 else d_a[0] @ W_h
        d_W_h = d_a[first:].view(-1, 4 * n).t() @ h[first:-1].view(-1, n)
        return d_a, None if first else d_h, d_c, d_W_h, None


# grad_input = grad * (1 - y^2) and grad * y * (1 - y), each in one pass over memory
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def to_torch_order(stacked: Tensor) -> Tensor:
    """Reorder rows from the handout's g, i, f, o to torch.nn's i, f, g, o."""
    g, i, f, o = stacked.chunk(4)
    return torch.cat((i, f, g, o))


def from_torch_order(stacked: Tensor) -> Tensor:
    """Reorder rows from torch.nn's i, f, g, o to the handout's g, i, f, o."""
    i, f, g, o = stacked.chunk(4)
    return torch.cat((g, i, f, o))
