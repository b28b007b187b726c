"""What part 1's models share: their arguments, what they read, and the output of the last step."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from part1.dataset import as_symbols, as_vectors
from recurrence.choice import check_recurrence


class SequenceClassifier(nn.Module):
    """A recurrence whose state after the last step names one of K classes; takes any batch size and any length.

    A model adds the parameters of its recurrence, runs its equations in `states`, and its output in `forward`.

    Args:
        seq_length: T, the sequence's length; used only by initialisations that depend on it.
        batch_size: kept for the handouts' signature, not used.
        input_dim: d, size of an input vector; of palindromes 1 feeds the digit as a number, 10 as a one-hot vector.
        num_hidden: n, size of the state.
        num_classes: K, number of logits.
        device: of the parameters.
        init: one of the model's INITS, which its `reset_parameters` explains.
        generator: CPU generator of the initial weights; PyTorch's global one by default.
        recurrence: "loop", the equations step by step; "bptt", "compiled" or "triton", the faster twin in PyTorch's
            operations, compiled for CPUs or in Triton for GPUs; "auto", the fastest that the model has here.
        vocabulary_size: number of symbols; with it, the model reads integers below it, each of which has an embedding
            of size d, learnt with the rest (UvA 2020).
        log_probs: return log softmax(p) instead of the logits p (UvA 2020).

    Raises:
        ValueError: an unknown `init` or `recurrence`.
    """

    INITS: ClassVar[tuple[str, ...]] = ("default", "kaiming")
    RECURRENCES: tuple[str, ...] = ("loop", "bptt")
    num_directions = 1  # states side by side that the output sees

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
        vocabulary_size: int | None = None,
        log_probs: bool = False,
    ):
        super().__init__()
        check_recurrence(recurrence, self.RECURRENCES)
        self.recurrence, self.log_probs = recurrence, log_probs
        self.input_dim, self.num_hidden = input_dim, num_hidden
        self.add_recurrence(input_dim, num_hidden)
        self.W_ph = nn.Parameter(torch.empty(num_classes, self.num_directions * num_hidden))
        self.b_p = nn.Parameter(torch.empty(num_classes))
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, input_dim)) if vocabulary_size else None
        self.reset_parameters(init, generator, seq_length)
        self.to(device)

    def add_recurrence(self, d: int, n: int) -> None:
        """Make the recurrence's parameters, not yet drawn."""
        raise NotImplementedError

    def vectors(self, x: Tensor) -> Tensor:
        """Return x(1) ... x(T), (T, B, d), of what the model is called on.

        That is (B, T) digits or (B, T, d) vectors or, with a vocabulary, (B, T), (B, 1, T) or (B, T, 1) symbols.

        Raises:
            ValueError: another shape, digits or symbols that there are not.
        """
        if self.embedding is not None:
            return F.embedding(as_symbols(x, len(self.embedding)), self.embedding).transpose(0, 1)
        return as_vectors(x, self.input_dim).to(self.W_ph).transpose(0, 1)

    def output(self, h: Tensor) -> Tensor:
        """Return p = W_ph h + b_p, or its log softmax, (B, K), of the states (B, n)."""
        p = h @ self.W_ph.T + self.b_p
        return p.log_softmax(dim=1) if self.log_probs else p

    @torch.no_grad()
    def reset_parameters(
        self, init: str = "default", generator: torch.Generator | None = None, seq_length: int = 1
    ) -> None:
        """Draw all parameters anew.

        * default: uniform in +-1/sqrt(n).
        * kaiming: weights normal with variance 2 / (number of inputs), biases zero (He et al. 2015; UvA 2020).

        An embedding is standard normal, as that of `torch.nn`.
        """
        if init not in self.INITS:
            raise ValueError(f"{type(self).__name__} has the initialisations {', '.join(self.INITS)}, not {init}")
        for parameter in self.parameters():
            drawn, bound = torch.empty(parameter.shape), self.num_hidden**-0.5
            if parameter is self.embedding:
                drawn.normal_(generator=generator)
            elif init != "kaiming":
                drawn.uniform_(-bound, bound, generator=generator)
            elif parameter.dim() == 2:
                drawn.normal_(std=(2 / drawn.shape[1]) ** 0.5, generator=generator)
            else:
                drawn.zero_()
            parameter.copy_(drawn)
