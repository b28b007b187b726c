"""The peephole LSTM of UvA 2020 (question 1.4), for the data sets of that edition and for palindromes.

    f(t) = sigma(W_fx x(t) + W_fh c(t-1) + b_f)           forget gate
    i(t) = sigma(W_ix x(t) + W_ih c(t-1) + b_i)           input gate
    o(t) = sigma(W_ox x(t) + W_oh c(t-1) + b_o)           output gate
    c(t) = sigma(W_cx x(t) + b_c) * i(t) + c(t-1) * f(t)
    h(t) = tanh(c(t)) * o(t)
    p(t) = W_ph h(t) + b_p

This is the handout's cell as printed: the gates look at the cells through full matrices and never at h(t-1), and the
candidate has a sigmoid, so that cells only ever grow by what is written. In Gers et al. (2002) the candidate has tanh,
the peepholes are diagonal, and stand beside the connections from h(t-1).

`PeepholeLSTM.states` runs the equations step by step. Its faster twin, with the backward pass derived by hand, is
`recurrence/peephole.py`; for its sake the weights are stored in two matrices, W_x = [W_cx; W_ix; W_fx; W_ox] and W_c =
[W_ih; W_fh; W_oh], and the biases in b alike.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

if not __package__:  # imported from inside part1/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from part1.classifier import SequenceClassifier
from recurrence.inputs import check_sequence
from recurrence.peephole import peephole_sequence


class PeepholeLSTM(SequenceClassifier):
    """The equations above; the arguments are those of `SequenceClassifier`.

    The cell has 4 (n d + n) + 3 n^2 parameters.
    """

    def add_recurrence(self, d: int, n: int) -> None:
        self.W_x = nn.Parameter(torch.empty(4 * n, d))
        self.W_c = nn.Parameter(torch.empty(3 * n, n))
        self.b = nn.Parameter(torch.empty(4 * n))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits p(T), (B, K), for (B, T) digits or (B, T, d) vectors."""
        h, _ = self.states(x)  # h(1) ... h(T), (T, B, n)
        return self.output(h[-1])

    def states(self, x: Tensor, c_0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return h(1) ... h(T), (T, B, n), and c(T), (B, n), from the initial cells `c_0`, zeros by default.

        Raises:
            ValueError: digits or vectors, or the initial cells, of another shape.
        """
        x = self.vectors(x)  # (T, B, d)
        if self.recurrence != "loop":
            return peephole_sequence(x, c_0, self.W_x, self.W_c, self.b)  # the same function, faster

        W_cx, W_ix, W_fx, W_ox = self.W_x.chunk(4)  # (n, d) each
        W_ih, W_fh, W_oh = self.W_c.chunk(3)  # (n, n) each
        b_c, b_i, b_f, b_o = self.b.chunk(4)  # (n,) each
        c = x.new_zeros(x.shape[1], self.num_hidden) if c_0 is None else c_0  # c(0), (B, n)
        check_sequence(x, self.W_x, self.W_c, c_0=c)
        states = []
        for x_t in x:  # x(t), (B, d): a sequence is a row, so that W x(t) stands here as x_t @ W.T
            f = torch.sigmoid(x_t @ W_fx.T + c @ W_fh.T + b_f)  # (B, n)
            i = torch.sigmoid(x_t @ W_ix.T + c @ W_ih.T + b_i)
            o = torch.sigmoid(x_t @ W_ox.T + c @ W_oh.T + b_o)
            c = torch.sigmoid(x_t @ W_cx.T + b_c) * i + c * f
            h = torch.tanh(c) * o
            states.append(h)
        return torch.stack(states), c


peepLSTM = PeepholeLSTM  # the handout's name
