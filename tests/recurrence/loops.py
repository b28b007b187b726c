"""The recurrences step by step, which autograd differentiates: what the faster ones are held against."""

import torch
from torch import Tensor


def rnn_loop(z: Tensor, h_0: Tensor, W_hh: Tensor) -> Tensor:
    """Equation 1 step by step."""
    h, states = h_0, []
    for z_t in z:
        h = torch.tanh(z_t + h @ W_hh.T)  # (1)
        states.append(h)
    return torch.stack(states)


def lstm_loop(z: Tensor, h_0: Tensor, c_0: Tensor, W_h: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 4 to 9 step by step."""
    h, c, states = h_0, c_0, []
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
