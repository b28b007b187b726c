"""The recurrences step by step, which autograd differentiates: what the faster ones are held against.

From z(t), the part of a step that needs no state, time-first.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def rnn_loop(z: Tensor, h_0: Tensor | None, W_hh: Tensor) -> Tensor:
    """Return h(1) ... h(T), (T, B, n), from z(1) ... z(T), (T, B, n), and h(0), by default zeros: equation (1)."""
    h, states = z.new_zeros(z.shape[1:]) if h_0 is None else h_0, []
    for z_t in z:
        h = torch.tanh(z_t + h @ W_hh.T)  # (1)
        states.append(h)
    return torch.stack(states)


def lstm_loop(z: Tensor, h_0: Tensor | None, c_0: Tensor | None, W_h: Tensor) -> tuple[Tensor, Tensor]:
    """Return h(1) ... h(T), (T, B, n), and c(T) from z(1) ... z(T), (T, B, 4n), and h(0), c(0), by default zeros.

    Equations (4) to (9); one product gives all four gates of a step.
    """
    zeros = z.new_zeros(z.shape[1], W_h.shape[1])
    h, c, states = zeros if h_0 is None else h_0, zeros if c_0 is None else c_0, []
    for z_t in z:
        a_g, a_i, a_f, a_o = (z_t + h @ W_h.T).chunk(4, dim=-1)
        g = torch.tanh(a_g)  # (4)
        i = torch.sigmoid(a_i)  # (5)
        f = torch.sigmoid(a_f)  # (6)
        o = torch.sigmoid(a_o)  # (7)
        c = g * i + c * f  # (8)
        h = torch.tanh(c) * o  # (9)
        states.append(h)
    return torch.stack(states), c


FROM_ZEROS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "RNN": lambda z, W_hh: rnn_loop(z, None, W_hh),
    "LSTM": lambda z, W_h: lstm_loop(z, None, None, W_h)[0],
}
