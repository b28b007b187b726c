"""The phased LSTM of UvA spring 2018, part 2: an LSTM whose states change only while a clock's gate is open.

The gate k(t) of each unit opens once in a period tau, from s on, for a share r_on of the period (Neil et al. 2016):

    phi(t) = ((t - s) mod tau) / tau                      phase, from 0 to 1
    k(t) = 2 phi(t) / r_on          phi(t) < r_on / 2     opening
         = 2 - 2 phi(t) / r_on      phi(t) < r_on         closing
         = alpha phi(t)             else                  closed; the handout has alpha = 0

    c~(t) = g(t) * i(t) + c(t-1) * f(t)                   equation (8) of `lstm.py`, with its gates g, i, f, o
    c(t)  = k(t) * c~(t) + (1 - k(t)) * c(t-1)
    h~(t) = tanh(c~(t)) * o(t)
    h(t)  = k(t) * h~(t) + (1 - k(t)) * h(t-1)

The handout prints tanh(c(t)) in h~(t), and its cases leave k = 0 at phi = r_on / 2. We take tanh(c~(t)), as the paper
does, and let k reach its peak there, so that k is continuous and a step with k = 1 is one of the LSTM.
"""

import torch
from torch import Tensor, nn

from recurrence.inputs import check_sequence, input_part


class PhasedLSTM(nn.Module):
    """The equations above, step by step over a whole sequence; all parameters can be learnt, tau, s and r_on too.

    The weights are stored and drawn as those of `lstm.LSTM`: W_x = [W_gx; W_ix; W_fx; W_ox], W_h and b alike, uniform
    in +-1/sqrt(n), with 1 added to b_f.

    Args:
        input_dim: d, size of an input vector.
        num_hidden: n, size of the states.
        tau: period, a number or one for each unit, (n,), in the unit of the time stamps; above 0.
        s: shift, when a gate begins to open; likewise.
        r_on: share of the period in which a gate is open; likewise, above 0 and at most 1.
        alpha: leak of a closed gate.
        generator: CPU generator of the initial weights; PyTorch's global one by default.

    Raises:
        ValueError: tau or r_on out of their ranges, or of another shape.
    """

    def __init__(
        self,
        input_dim: int,
        num_hidden: int,
        tau: float | Tensor,
        s: float | Tensor,
        r_on: float | Tensor,
        alpha: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        d, n = input_dim, num_hidden
        clock = [torch.as_tensor(x, dtype=torch.get_default_dtype()) for x in (tau, s, r_on)]
        if any(x.shape not in ((), (n,)) for x in clock):
            raise ValueError(f"tau, s and r_on must be numbers or one for each of {n} units")
        if not (clock[0] > 0).all() or not ((clock[2] > 0) & (clock[2] <= 1)).all():
            raise ValueError("tau must be above 0, and r_on above 0 and at most 1")
        self.tau, self.s, self.r_on = (nn.Parameter(x.expand(n).clone()) for x in clock)
        self.alpha = alpha
        self.W_x, self.W_h, self.b = (
            nn.Parameter(torch.empty(shape).uniform_(-(n**-0.5), n**-0.5, generator=generator))
            for shape in ((4 * n, d), (4 * n, n), (4 * n,))
        )
        with torch.no_grad():
            self.b[2 * n : 3 * n] += 1

    def forward(
        self, x: Tensor, t: Tensor | None = None, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return h of every step, (T, B, n), and c of the last, (B, n).

        Args:
            x: (B, T, d) inputs.
            t: (B, T) or (T,) time stamps; by default 1 ... T.
            state: h and c before the first step, (B, n) each; zeros by default.

        Raises:
            ValueError: inputs, time stamps or states of another shape.
        """
        (B, T), n = x.shape[:2], self.W_h.shape[1]
        times = torch.arange(1, T + 1).to(x) if t is None else t
        if times.shape not in ((T,), (B, T)):
            raise ValueError(f"the time stamps must be {(B, T)} or {(T,)}, not {tuple(times.shape)}")
        x, times = x.transpose(0, 1), times.expand(B, T).T.unsqueeze(2)  # (T, B, d), (T, B, 1)
        zeros = x.new_zeros(B, n)
        h, c = (zeros, zeros) if state is None else state  # h(0) and c(0), (B, n) each
        check_sequence(x, self.W_x, self.W_h, h_0=h, c_0=c)

        k = time_gate(times, self.tau, self.s, self.r_on, self.alpha)  # (T, B, n)
        states = []
        for z_t, k_t in zip(input_part(x, self.W_x, self.b), k):
            a = torch.addmm(z_t, h, self.W_h.T)  # W_x x(t) + b + W_h h(t-1), (B, 4n)
            g, (i, f, o) = torch.tanh(a[:, :n]), torch.sigmoid(a[:, n:]).chunk(3, dim=1)  # (B, n) each
            new_c = g * i + c * f  # c~(t)
            new_h = torch.tanh(new_c) * o  # h~(t)
            c = torch.lerp(c, new_c, k_t)  # k(t) * c~(t) + (1 - k(t)) * c(t-1)
            h = torch.lerp(h, new_h, k_t)
            states.append(h)
        return torch.stack(states), c


def time_gate(t: Tensor, tau: Tensor | float, s: Tensor | float, r_on: Tensor | float, alpha: float = 0.0) -> Tensor:
    """Return k(t), of the shape to which the arguments broadcast, differentiable in all tensors.

    Args:
        t: times, in any unit.
        tau: period, in the same.
        s: shift, in the same.
        r_on: share of the period in which the gate is open.
        alpha: leak of the closed gate.
    """
    phi = torch.remainder(t - s, tau) / tau
    return torch.where(phi < r_on / 2, 2 * phi / r_on, torch.where(phi < r_on, 2 - 2 * phi / r_on, alpha * phi))
