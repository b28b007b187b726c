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
from part1.dataset import as_vectors
from recurrence.choice import RECURRENCES, check_recurrence
from recurrence.inputs import check_sequence
from recurrence.rnn import rnn_sequence


class VanillaRNN(nn.Module):
    """Equations 1 and 2; takes any batch size and any length.

    Args:
        seq_length: T, the palindrome's length; used only by `init="orthogonal"`.
        batch_size: kept for the handout's signature, not used.
        input_dim: d, size of an input vector; 1 feeds the digit as a number, 10 as a one-hot vector.
        num_hidden: n, size of the state.
        num_classes: K, number of logits.
        device: of the parameters.
        init: see `reset_parameters`.
        generator: CPU generator of the initial weights; PyTorch's global one by default.
        recurrence: "loop", the equations step by step; "bptt", "compiled" or "triton", the faster twin in PyTorch's
            operations, compiled for CPUs or in Triton for GPUs; "auto", the fastest there is.

    Raises:
        ValueError: an unknown `init` or `recurrence`.
    """

    INITS = ("default", "orthogonal", "identity", "bistable")
    RECURRENCES: tuple[str, ...] = RECURRENCES

    def __init__(
        self,
        seq_length: int,
        input_dim: int,
        num_hidden: int,
        num_classes: int,
        batch_size: int,
        device: str | torch.device = "cpu",
        init: str = "default",
        generator: torch.Generator | None = None,
        recurrence: str = "auto",
    ):
        super().__init__()
        check_recurrence(recurrence, self.RECURRENCES)
        self.recurrence = recurrence
        self.W_hx = nn.Parameter(torch.empty(num_hidden, input_dim))
        self.W_hh = nn.Parameter(torch.empty(num_hidden, num_hidden))
        self.b_h = nn.Parameter(torch.empty(num_hidden))
        self.W_ph = nn.Parameter(torch.empty(num_classes, num_hidden))
        self.b_p = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters(init, generator, seq_length)
        self.to(device)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits p(T), (B, K), for (B, T) digits or (B, T, d) vectors."""
        h = self.states(x)  # h(1) ... h(T), (T, B, n)
        return h[-1] @ self.W_ph.T + self.b_p  # (2), at the last step

    def states(self, x: Tensor, h_0: Tensor | None = None) -> Tensor:
        """Return h(1) ... h(T), (T, B, n), from the initial state `h_0`, (B, n), zeros by default.

        Raises:
            ValueError: digits or vectors, or the initial state, of another shape.
        """
        x = as_vectors(x, self.W_hx.shape[1]).to(self.W_hx).transpose(0, 1)  # (T, B, d)
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
        """Draw all parameters anew.

        * default: uniform in +-1/sqrt(n), as UvA 2021 prescribes.
        * orthogonal: W_hh a random rotation, which keeps a signal's length where tanh is near linear. To stay there the
          state, a sum of T rotated inputs that grows with sqrt(T), gets W_hx / sqrt(T); b_h zero.
        * identity: W_hh = I, a state that copies itself (Le et al. 2015, who pair it with ReLU); b_h zero.
        * bistable: W_hh = 2 I, b_h zero. Each unit h = tanh(2 h + input) has two stable states, +-0.958, and no input
          below 0.53 takes it from one to the other: it keeps the sign that the first inputs gave it (latching, Bengio
          et al. 1994).
        """
        if init not in self.INITS:
            raise ValueError(f"VanillaRNN has the initialisations {', '.join(self.INITS)}, not {init}")
        n = self.W_hh.shape[0]
        for parameter in self.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-(n**-0.5), n**-0.5, generator=generator))
        if init == "orthogonal":
            self.W_hh.copy_(random_orthogonal(n, generator))
            self.W_hx.div_(seq_length**0.5)
        if init in ("identity", "bistable"):
            self.W_hh.copy_(torch.eye(n) * (2 if init == "bistable" else 1))
        if init != "default":
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
