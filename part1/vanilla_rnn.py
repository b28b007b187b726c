"""The vanilla RNN of equations 1 and 2, for the last digit of a palindrome.

    h(t) = tanh(W_hx x(t) + W_hh h(t-1) + b_h)        (1)
    p(t) = W_ph h(t) + b_p                            (2)

`VanillaRNN.states` runs equation 1 step by step. Its faster twin, with the backward pass derived by hand, is
`recurrence/rnn.py`.
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
from recurrence.rnn import rnn_sequence


class VanillaRNN(SequenceClassifier):
    """Equations 1 and 2; the arguments are those of `SequenceClassifier`."""

    INITS = ("default", "orthogonal", "identity", "bistable", "kaiming")
    RECURRENCES: tuple[str, ...] = RECURRENCES

    def add_recurrence(self, d: int, n: int) -> None:
        self.W_hx = nn.Parameter(torch.empty(n, d))
        self.W_hh = nn.Parameter(torch.empty(n, n))
        self.b_h = nn.Parameter(torch.empty(n))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits p(T), (B, K), for (B, T) digits or (B, T, d) vectors."""
        h = self.states(x)  # h(1) ... h(T), (T, B, n)
        return self.output(h[-1])  # (2), at the last step

    def states(self, x: Tensor, h_0: Tensor | None = None) -> Tensor:
        """Return h(1) ... h(T), (T, B, n), from the initial state `h_0`, (B, n), zeros by default.

        Raises:
            ValueError: digits or vectors, or the initial state, of another shape.
        """
        x = self.vectors(x)  # (T, B, d)
        if self.recurrence != "loop":
            return rnn_sequence(x, h_0, self.W_hx, self.W_hh, self.b_h, self.recurrence)  # the same function, faster

        h = x.new_zeros(x.shape[1], self.W_hh.shape[0]) if h_0 is None else h_0  # h(0), (B, n)
        check_sequence(x, self.W_hx, self.W_hh, h_0=h)
        states = []
        for x_t in x:  # x(t), (B, d): a sequence is a row, so that W x(t) stands here as x_t @ W.T
            h = torch.tanh(x_t @ self.W_hx.T + h @ self.W_hh.T + self.b_h)  # (1): (B, n)
            states.append(h)
        return torch.stack(states)

    @torch.no_grad()
    def reset_parameters(
        self, init: str = "default", generator: torch.Generator | None = None, seq_length: int = 1
    ) -> None:
        """Draw all parameters anew; "default" is UvA 2021's.

        * default, kaiming: see `SequenceClassifier.reset_parameters`.
        * orthogonal: W_hh a random rotation, which keeps a signal's length where tanh is near linear. To stay there the
          state, a sum of T rotated inputs that grows with sqrt(T), gets W_hx / sqrt(T); b_h zero.
        * identity: W_hh = I, a state that copies itself (Le et al. 2015, who pair it with ReLU); b_h zero.
        * bistable: W_hh = 2 I, b_h zero. Each unit h = tanh(2 h + input) has two stable states, +-0.958, and no input
          below 0.53 takes it from one to the other: it keeps the sign that the first inputs gave it (latching, Bengio
          et al. 1994).
        """
        super().reset_parameters(init, generator)
        n = self.num_hidden
        if init == "orthogonal":
            self.W_hh.copy_(random_orthogonal(n, generator))
            self.W_hx.div_(seq_length**0.5)
        if init in ("identity", "bistable"):
            self.W_hh.copy_(torch.eye(n) * (2 if init == "bistable" else 1))
        if init in ("orthogonal", "identity", "bistable"):
            self.b_h.zero_()

    def to_torch(self) -> tuple[nn.RNN, nn.Linear]:
        """Return `nn.RNN` (time-first) and the output layer `nn.Linear` that together compute the same function."""
        n, d = self.W_hx.shape
        rnn, output = nn.RNN(d, n).to(self.W_hx), nn.Linear(n, self.W_ph.shape[0]).to(self.W_hx)
        rnn.load_state_dict(
            {"weight_ih_l0": self.W_hx, "weight_hh_l0": self.W_hh, "bias_ih_l0": self.b_h, "bias_hh_l0": torch.zeros(n)}
        )
        output.load_state_dict({"weight": self.W_ph, "bias": self.b_p})
        return rnn, output

    @classmethod
    def from_torch(cls, rnn: nn.RNN, output: nn.Linear) -> "VanillaRNN":
        """Return the VanillaRNN that computes what a one-layer tanh `nn.RNN` and an `nn.Linear` on its last state
        compute.

        Raises:
            ValueError: the library's model is not of that form.
        """
        if not isinstance(rnn, nn.RNN) or rnn.nonlinearity != "tanh" or rnn.num_layers != 1 or rnn.bidirectional:
            raise ValueError("only a one-layer, one-directional nn.RNN with tanh has this form")
        W_hx, W_hh, *biases = rnn.all_weights[0]
        model = cls(1, rnn.input_size, rnn.hidden_size, output.out_features, 1).to(W_hh)
        b_h = biases[0] + biases[1] if biases else torch.zeros(rnn.hidden_size)
        b_p = output.bias if output.bias is not None else torch.zeros(output.out_features)
        model.load_state_dict({"W_hx": W_hx, "W_hh": W_hh, "b_h": b_h, "W_ph": output.weight, "b_p": b_p})
        return model


def random_orthogonal(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Return an (n, n) orthogonal matrix, uniformly distributed (Mezzadri 2007: QR with the signs of R's diagonal)."""
    Q, R = torch.linalg.qr(torch.randn(n, n, generator=generator))
    return Q * R.diagonal().sign()
