"""The bidirectional LSTM of UvA 2020 (question 1.4), for the data sets of that edition and for palindromes.

One cell reads from t = 1 to T, another, with parameters of its own, from T to 1; each of their steps is equations 4-9:

    g(t) = tanh (W_gx x(t) + W_gh h(t-1) + b_g)       (4)
    i(t) = sigma(W_ix x(t) + W_ih h(t-1) + b_i)       (5)
    f(t) = sigma(W_fx x(t) + W_fh h(t-1) + b_f)       (6)
    o(t) = sigma(W_ox x(t) + W_oh h(t-1) + b_o)       (7)
    c(t) = g(t) * i(t) + c(t-1) * f(t)                (8)
    h(t) = tanh(c(t)) * o(t)                          (9)
    p = W_ph [h_forward(T); h_backward(1)] + b_p

Backwards, t+1 takes the place of t-1. `BidirectionalLSTM.states` runs the cells step by step. Their faster twin, with
the backward pass derived by hand, is `recurrence/lstm.py`.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

if not __package__:  # imported from inside part1/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from part1.classifier import SequenceClassifier
from recurrence.choice import RECURRENCES
from recurrence.inputs import check_sequence
from recurrence.lstm import from_torch_order, lstm_sequence, to_torch_order


class BidirectionalLSTM(SequenceClassifier):
    """The equations above; the arguments are those of `SequenceClassifier`.

    The two cells have 8 (n d + n^2 + n) parameters.
    """

    RECURRENCES: tuple[str, ...] = RECURRENCES
    num_directions = 2

    def add_recurrence(self, d: int, n: int) -> None:
        self.forwards, self.backwards = LSTMCell(d, n), LSTMCell(d, n)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits p, (B, K), for (B, T) digits or (B, T, d) vectors."""
        h_forward, h_backward = self.states(x)  # (T, B, n) each
        return self.output(torch.cat((h_forward[-1], h_backward[0]), dim=1))

    def states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return h_forward(1) ... h_forward(T) and h_backward(1) ... h_backward(T), (T, B, n) each.

        Raises:
            ValueError: digits or vectors of another shape.
        """
        x = self.vectors(x)  # (T, B, d)
        return self._read(self.forwards, x), self._read(self.backwards, x.flip(0)).flip(0)

    def _read(self, cell: "LSTMCell", x: Tensor) -> Tensor:
        """Return a cell's states, (T, B, n), in the order in which it reads x."""
        if self.recurrence != "loop":
            return lstm_sequence(x, None, cell.W_x, cell.W_h, cell.b, self.recurrence)[0]  # the same function, faster

        check_sequence(x, cell.W_x, cell.W_h)
        c = h = x.new_zeros(x.shape[1], self.num_hidden)  # (B, n)
        states = []
        for x_t in x:  # (B, d)
            c, h = cell(x_t, c, h)
            states.append(h)
        return torch.stack(states)

    @torch.no_grad()
    def reset_parameters(
        self, init: str = "default", generator: torch.Generator | None = None, seq_length: int = 1
    ) -> None:
        """Draw all parameters anew: as `LSTM` does, default with 1 added to b_f, or kaiming."""
        super().reset_parameters(init, generator)
        if init == "default":
            for cell in (self.forwards, self.backwards):
                cell.b.chunk(4)[2].add_(1)

    def to_torch(self) -> tuple[nn.LSTM, nn.Linear]:
        """Return the time-first, bidirectional `nn.LSTM`, and the `nn.Linear` for the two last states side by side."""
        lstm = nn.LSTM(self.input_dim, self.num_hidden, bidirectional=True).to(self.W_ph)
        output = nn.Linear(*self.W_ph.shape[::-1]).to(self.W_ph)
        weights: dict[str, Tensor] = {}
        for suffix, cell in (("l0", self.forwards), ("l0_reverse", self.backwards)):
            weights |= {
                f"weight_ih_{suffix}": to_torch_order(cell.W_x),
                f"weight_hh_{suffix}": to_torch_order(cell.W_h),
            }
            weights |= {f"bias_ih_{suffix}": to_torch_order(cell.b), f"bias_hh_{suffix}": torch.zeros_like(cell.b)}
        lstm.load_state_dict(weights)
        output.load_state_dict({"weight": self.W_ph, "bias": self.b_p})
        return lstm, output

    @classmethod
    def from_torch(cls, lstm: nn.LSTM, output: nn.Linear) -> "BidirectionalLSTM":
        """Return the model that computes what a one-layer bidirectional `nn.LSTM` and an `nn.Linear` compute.

        Raises:
            ValueError: the library's model is not of that form.
        """
        if not isinstance(lstm, nn.LSTM) or lstm.num_layers != 1 or not lstm.bidirectional or lstm.proj_size:
            raise ValueError("only a one-layer, bidirectional nn.LSTM without projection has this form")
        model = cls(1, lstm.input_size, lstm.hidden_size, output.out_features, 1).to(output.weight)
        b_p = output.bias if output.bias is not None else torch.zeros(output.out_features)
        weights = {"W_ph": output.weight, "b_p": b_p}
        for name, (W_x, W_h, *biases) in zip(("forwards", "backwards"), lstm.all_weights):
            b = biases[0] + biases[1] if biases else torch.zeros(4 * lstm.hidden_size)
            weights |= {f"{name}.W_x": from_torch_order(W_x), f"{name}.W_h": from_torch_order(W_h)}
            weights |= {f"{name}.b": from_torch_order(b)}
        model.load_state_dict(weights)
        return model


class LSTMCell(nn.Module):
    """One direction: the parameters, and a step of equations 4-9. The gates' weights stand below each other.

    The parameters are drawn by the model, not here.
    """

    def __init__(self, input_dim: int, num_hidden: int):
        super().__init__()
        self.W_x = nn.Parameter(torch.empty(4 * num_hidden, input_dim))
        self.W_h = nn.Parameter(torch.empty(4 * num_hidden, num_hidden))
        self.b = nn.Parameter(torch.empty(4 * num_hidden))

    def forward(self, x: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return c(t) and h(t) from x(t), (B, d), and c and h of the step before, (B, n) each."""
        W_gx, W_ix, W_fx, W_ox = self.W_x.chunk(4)  # (n, d) each
        W_gh, W_ih, W_fh, W_oh = self.W_h.chunk(4)  # (n, n) each
        b_g, b_i, b_f, b_o = self.b.chunk(4)  # (n,) each
        g = torch.tanh(x @ W_gx.T + h @ W_gh.T + b_g)  # (4): (B, n)
        i = torch.sigmoid(x @ W_ix.T + h @ W_ih.T + b_i)  # (5)
        f = torch.sigmoid(x @ W_fx.T + h @ W_fh.T + b_f)  # (6)
        o = torch.sigmoid(x @ W_ox.T + h @ W_oh.T + b_o)  # (7)
        c = g * i + c * f  # (8)
        return c, torch.tanh(c) * o  # (9)


biLSTM = BidirectionalLSTM  # the handout's name
