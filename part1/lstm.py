"""The LSTM of equations 4-10, for the last digit of a palindrome.

    g(t) = tanh (W_gx x(t) + W_gh h(t-1) + b_g)       (4)   input modulation: the candidate
    i(t) = sigma(W_ix x(t) + W_ih h(t-1) + b_i)       (5)   input gate
    f(t) = sigma(W_fx x(t) + W_fh h(t-1) + b_f)       (6)   forget gate
    o(t) = sigma(W_ox x(t) + W_oh h(t-1) + b_o)       (7)   output gate
    c(t) = g(t) * i(t) + c(t-1) * f(t)                (8)
    h(t) = tanh(c(t)) * o(t)                          (9)
    p(t) = W_ph h(t) + b_p                            (10)

`LSTM.states` runs equations 4 to 9 step by step. Its faster twin, with the backward pass derived by hand, is
`recurrence/lstm.py`; for its sake the weights of the four gates are stored in one matrix each, W_x = [W_gx; W_ix; W_fx;
W_ox], W_h and b alike.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

if not __package__:  # imported from inside part1/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from part1.classifier import SequenceClassifier
from part1.vanilla_rnn import random_orthogonal
from recurrence.choice import RECURRENCES
from recurrence.inputs import check_sequence
from recurrence.lstm import from_torch_order, lstm_sequence, to_torch_order


class LSTM(SequenceClassifier):
    """Equations 4-10; the arguments are those of `SequenceClassifier`.

    Question 1.5b: the cell has 4 (n d + n^2 + n) parameters, whatever the length and the batch size; the output layer
    adds K n + K.
    """

    INITS = ("default", "orthogonal", "chrono", "kaiming")
    RECURRENCES: tuple[str, ...] = RECURRENCES

    def add_recurrence(self, d: int, n: int) -> None:
        self.W_x = nn.Parameter(torch.empty(4 * n, d))
        self.W_h = nn.Parameter(torch.empty(4 * n, n))
        self.b = nn.Parameter(torch.empty(4 * n))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits p(T), (B, K), for (B, T) digits or (B, T, d) vectors."""
        h, _ = self.states(x)  # h(1) ... h(T), (T, B, n)
        return self.output(h[-1])  # (10), at the last step

    def states(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return h(1) ... h(T), (T, B, n), and c(T), (B, n), from the initial `state` (h_0, c_0), zeros by default.

        Raises:
            ValueError: digits or vectors, or the initial state, of another shape.
        """
        x = self.vectors(x)  # (T, B, d)
        if self.recurrence != "loop":
            return lstm_sequence(x, state, self.W_x, self.W_h, self.b, self.recurrence)  # the same function, faster

        W_gx, W_ix, W_fx, W_ox = self.W_x.chunk(4)  # (n, d) each
        W_gh, W_ih, W_fh, W_oh = self.W_h.chunk(4)  # (n, n) each
        b_g, b_i, b_f, b_o = self.b.chunk(4)  # (n,) each
        zeros = x.new_zeros(x.shape[1], self.W_h.shape[1])
        h, c = (zeros, zeros) if state is None else state  # h(0) and c(0), (B, n) each
        check_sequence(x, self.W_x, self.W_h, h_0=h, c_0=c)
        states = []
        for x_t in x:  # x(t), (B, d): a sequence is a row, so that W x(t) stands here as x_t @ W.T
            g = torch.tanh(x_t @ W_gx.T + h @ W_gh.T + b_g)  # (4): (B, n)
            i = torch.sigmoid(x_t @ W_ix.T + h @ W_ih.T + b_i)  # (5)
            f = torch.sigmoid(x_t @ W_fx.T + h @ W_fh.T + b_f)  # (6)
            o = torch.sigmoid(x_t @ W_ox.T + h @ W_oh.T + b_o)  # (7)
            c = g * i + c * f  # (8)
            h = torch.tanh(c) * o  # (9)
            states.append(h)
        return torch.stack(states), c

    @torch.no_grad()
    def reset_parameters(
        self, init: str = "default", generator: torch.Generator | None = None, seq_length: int = 1
    ) -> None:
        """Draw all parameters anew.

        * default: uniform in +-1/sqrt(n), then 1 added to b_f, as UvA 2021 prescribes: at first, remember.
        * orthogonal: as default, with each of W_gh, W_ih, W_fh, W_oh a random rotation.
        * chrono: as default, with b_f = log U(1, T-1), b_i = -b_f and the other biases zero, so that the cells'
          forgetting times are spread over the whole sequence (Tallec and Ollivier 2018, section 2).
        * kaiming: see `SequenceClassifier.reset_parameters`.
        """
        super().reset_parameters(init, generator)
        n = self.num_hidden
        b_g, b_i, b_f, b_o = self.b.chunk(4)
        if init != "kaiming":
            b_f += 1
        if init == "orthogonal":
            self.W_h.copy_(torch.cat([random_orthogonal(n, generator) for _ in range(4)]))
        if init == "chrono":
            b_f.copy_(torch.empty(n).uniform_(1, max(seq_length - 1, 1), generator=generator).log())
            b_i.copy_(-b_f)
            b_g.zero_()
            b_o.zero_()

    def to_torch(self) -> tuple[nn.LSTM, nn.Linear]:
        """Return `nn.LSTM` (time-first) and the output layer `nn.Linear` that together compute the same function."""
        n, d = self.W_h.shape[1], self.W_x.shape[1]
        lstm, output = nn.LSTM(d, n).to(self.W_h), nn.Linear(n, self.W_ph.shape[0]).to(self.W_h)
        lstm.load_state_dict(
            {
                "weight_ih_l0": to_torch_order(self.W_x),
                "weight_hh_l0": to_torch_order(self.W_h),
                "bias_ih_l0": to_torch_order(self.b),
                "bias_hh_l0": torch.zeros(4 * n),
            }
        )
        output.load_state_dict({"weight": self.W_ph, "bias": self.b_p})
        return lstm, output

    @classmethod
    def from_torch(cls, lstm: nn.LSTM, output: nn.Linear) -> "LSTM":
        """Return the LSTM that computes what a one-layer `nn.LSTM` and an `nn.Linear` on its last state compute.

        Raises:
            ValueError: the library's model is not of that form.
        """
        if not isinstance(lstm, nn.LSTM) or lstm.num_layers != 1 or lstm.bidirectional or lstm.proj_size:
            raise ValueError("only a one-layer, one-directional nn.LSTM without projection has this form")
        W_x, W_h, *biases = lstm.all_weights[0]
        model = cls(1, lstm.input_size, lstm.hidden_size, output.out_features, 1).to(W_h)
        b = biases[0] + biases[1] if biases else torch.zeros(4 * lstm.hidden_size)
        model.load_state_dict(
            {
                "W_x": from_torch_order(W_x),
                "W_h": from_torch_order(W_h),
                "b": from_torch_order(b),
                "W_ph": output.weight,
                "b_p": output.bias if output.bias is not None else torch.zeros(output.out_features),
            }
        )
        return model
