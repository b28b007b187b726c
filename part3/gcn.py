"""The graph convolutional network of Kipf and Welling (2017), from equation 18.

H' = σ(Â H W): every node's features are transformed by the same W, and each node then adds up those of its neighbours
and its own, weighted by Â. Seen from node i (equation 27) this is message passing: node j sends Wᵀ h_j / √(D_ii D_jj)
along each of its edges, and node i sums the messages that it receives (question 3.1). `GCNLayer` does it in both ways.

N nodes, d and n features before and after a layer.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from part3.graph import SparseMatrix


class GCNLayer(nn.Module):
    """Â H W + b, equation 18 before its nonlinearity; the bias b, which the equation leaves out, starts at zero.

    `GCN` shows how Â is made from a graph's edges.

    Args:
        d, n: features of a node before and after.
        generator: random stream of the weights (Glorot, uniform).
    """

    def __init__(self, d: int, n: int, generator: torch.Generator | None = None):
        super().__init__()
        self.W = nn.Parameter(torch.empty(d, n))
        self.b = nn.Parameter(torch.empty(n))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew; the bias is zero again."""
        self.W.copy_(glorot(*self.W.shape, generator=generator))
        self.b.zero_()

    def forward(self, A_hat: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor:
        """Return (N, n) from the normalised (N, N) adjacency and (N, d) features, dense or sparse.

        Raises:
            ValueError: graph, features and weights do not match.
        """
        check_input(A_hat, H, self.W)
        return A_hat @ (H @ self.W) + self.b  # H W first: with n < d the product over the edges costs less

    def pass_messages(self, A_hat: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor:
        """Return the same as `forward`, computed as equation 27 reads: each node sums the messages that it receives."""
        check_input(A_hat, H, self.W)
        receiver, sender = A_hat.rows, A_hat.columns
        message = A_hat.values[:, None] * (H @ self.W)[sender]  # (E, n)
        received = torch.zeros(A_hat.shape[0], message.shape[1], dtype=message.dtype, device=message.device)
        return received.index_add(0, receiver, message) + self.b

    def extra_repr(self) -> str:
        return f"{self.W.shape[0]}, {self.W.shape[1]}"


class GCN(nn.Module):
    """GCN layers with ReLU between them; dropout on what enters each.

    >>> from part3.graph import add_self_loops, adjacency, normalise
    >>> edges = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 4)]        # or (2, E), as PyTorch Geometric's edge_index
    >>> A_hat = normalise(add_self_loops(adjacency(edges)))      # equations 19 to 21
    >>> model = GCN([8, 16, 3], dropout=0.5)                     # 8 features of a node, 16 hidden ones, 3 classes
    >>> model(A_hat, torch.rand(5, 8)).shape                     # logits
    torch.Size([5, 3])

    Args:
        sizes: features of a node before the first layer and after each; L + 1 numbers for L layers. [1433, 16, 7] is
            the paper's network for Cora.
        dropout: probability with which an entry of a layer's input is set to 0 in training.
        Layer: the kind of layer.
    """

    def __init__(
        self,
        sizes: list[int],
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
        Layer: Callable[..., nn.Module] = GCNLayer,
    ):
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(Layer(d, n, generator) for d, n in pairwise(sizes))

    def forward(self, A_hat: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor:
        """Return (N, K) logits from (N, N) Â and (N, d) features."""
        return self.layers[-1](A_hat, drop(self.embed(A_hat, H), self.dropout, self.training))

    def embed(self, A_hat: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor | SparseMatrix:
        """Return the input of the last layer: each node's learnt features, (N, n)."""
        for layer in self.layers[:-1]:
            H = torch.relu(layer(A_hat, drop(H, self.dropout, self.training)))
        return H

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew."""
        for layer in self.layers:
            layer.reset_parameters(generator)  # type: ignore[operator]  # a ModuleList does not say of which layers

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return what an optimizer takes, with weight decay on the first layer only, as in the paper (section 5.2)."""
        return [
            {"params": list(self.layers[0].parameters()), "weight_decay": weight_decay},
            {"params": list(self.layers[1:].parameters()), "weight_decay": 0.0},
        ]


def check_input(A: SparseMatrix, H: Tensor | SparseMatrix, W: Tensor) -> None:
    """Raise a ValueError unless A is (N, N) and sparse and H (N, d), where a layer's weights W have d rows."""
    if not isinstance(A, SparseMatrix) or A.shape[0] != A.shape[1]:
        raise ValueError(
            "the graph must be an (N, N) SparseMatrix, which adjacency(edges) makes from its edges, "
            f"not a {type(A).__name__} {tuple(getattr(A, 'shape', ()))}"
        )
    expected, values = (A.shape[0], W.shape[0]), H.values if isinstance(H, SparseMatrix) else H
    if not isinstance(values, Tensor) or tuple(H.shape) != expected or values.dtype != W.dtype:
        found = f"{tuple(H.shape)} of {values.dtype}" if isinstance(values, Tensor) else f"a {type(H).__name__}"
        raise ValueError(
            f"the features must be {expected} of {W.dtype}, as many rows as the graph has nodes and as many columns as "
            f"the layer has inputs, not {found}"
        )


def drop(H: Tensor | SparseMatrix, probability: float, training: bool) -> Tensor | SparseMatrix:
    """Return H with dropout; in a sparse H only the entries that are listed need a random number.

    What cannot be features is returned as it is: `check_input` refuses it.
    """
    values = H.values if isinstance(H, SparseMatrix) else H
    if not isinstance(values, Tensor) or not values.is_floating_point():
        return H
    dropped = F.dropout(values, probability, training)
    return H.with_values(dropped) if isinstance(H, SparseMatrix) else dropped


def glorot(d: int, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Return (d, n) weights, uniform with variance 2 / (d + n) (Glorot and Bengio 2010)."""
    bound = (6 / (d + n)) ** 0.5
    return torch.empty(d, n).uniform_(-bound, bound, generator=generator)
