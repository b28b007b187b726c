"""The GRU of UvA 2020 (question 1.4), for the data sets of that edition and for palindromes.

    z(t)  = sigma(W_z [h(t-1), x(t)])                     update gate
    r(t)  = sigma(W_r [h(t-1), x(t)])                     reset gate
    h~(t) = tanh(W [r(t) * h(t-1), x(t)])                 candidate
    h(t)  = (1 - z(t)) * h(t-1) + z(t) * h~(t)
    p(t)  = W_ph h(t) + b_p

[a, b] is a above b. There are no biases, and the reset gate acts before the product with W: `torch.nn.GRU` resets after
it, has biases, and its z is 1 - z here, so that it cannot compute this function.

`GRU.states` runs the equations step by step. Its faster twin, with the backward pass derived by hand, is
`recurrence/gru.py`; for its sake the weights of z, r and the candidate are stored in two matrices, those of x and those
of h.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

if not __package__:  # imported from inside part1/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from part1.classifier import SequenceClassifier
from recurrence.gru import gru_sequence
from recurrence.inputs import check_sequence


class GRU(SequenceClassifier):
    """The equations above; the arguments are those of `SequenceClassifier`.

    The cell has 3 (n d + n^2) parameters.
    """

    def add_recurrence(self, d: int, n: int) -> None:
        self.W_x = nn.Parameter(torch.empty(3 * n, d))
        self.W_h = nn.Parameter(torch.empty(3 * n, n))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits p(T), (B, K), for (B, T) digits or (B, T, d) vectors."""
        h = self.states(x)  # h(1) ... h(T), (T, B, n)
        return self.output(h[-1])

    def states(self, x: Tensor, h_0: Tensor | None = None) -> Tensor:
        """Return h(1) ... h(T), (T, B, n), from the initial state `h_0`, (B, n), zeros by default.

        Raises:
            ValueError: digits or vectors, or the initial state, of another shape.
        """
        x = self.vectors(x)  # (T, B, d)
        if self.recurrence != "loop":
            return gru_sequence(x, h_0, self.W_x, self.W_h)  # the same function, faster

        W_zx, W_rx, W_cx = self.W_x.chunk(3)  # (n, d) each
        W_zh, W_rh, W_ch = self.W_h.chunk(3)  # (n, n) each
        W_z, W_r, W = (torch.cat(pair, dim=1) for pair in ((W_zh, W_zx), (W_rh, W_rx), (W_ch, W_cx)))  # (n, n + d)
        h = x.new_zeros(x.shape[1], self.num_hidden) if h_0 is None else h_0  # h(0), (B, n)
        check_sequence(x, self.W_x, self.W_h, h_0=h)
        states = []
        for x_t in x:  # x(t), (B, d): a sequence is a row, so that W [h, x] stands here as [h, x] @ W.T
            z = torch.sigmoid(torch.cat((h, x_t), dim=1) @ W_z.T)  # (B, n)
            r = torch.sigmoid(torch.cat((h, x_t), dim=1) @ W_r.T)
            candidate = torch.tanh(torch.cat((r * h, x_t), dim=1) @ W.T)
            h = (1 - z) * h + z * candidate
            states.append(h)
        return torch.stack(states)
