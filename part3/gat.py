"""The graph attention network of Veličković et al. (2018): the answer to question 3.5.

Equation 28 sums over neighbours with equal weights. To attend, give each message a weight that depends on both its ends and let
the weights of a node's neighbours, itself included, sum to one:

    e_ij = LeakyReLU(a_rᵀ Wᵀh_i + a_sᵀ Wᵀh_j)          how much node i cares for what j says
    α_ij = exp(e_ij) / Σ_{k in N(i)} exp(e_ik)         a softmax over the neighbours of i
    h_i' = σ(Σ_{j in N(i)} α_ij Wᵀh_j)

The softmax makes the weights independent of the number of neighbours, so it takes the place of the normalisation in equation
27; a is shared by all edges, so the layer works on any graph and does not depend on the order of its nodes. Several such heads,
each with its own W and a, look for different things.

N nodes, E edges and self-loops, K heads, d and n features before and, for each head, after a layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from part3.gcn import drop, glorot
from part3.graph import SparseMatrix


class GATLayer(nn.Module):
    """K heads of attention over neighbours, side by side or averaged.

    Args:
        d, n: features of a node before and, for each head, after.
        heads: K.
        concatenate: return the heads' outputs side by side, (N, K n); else their mean, (N, n).
        dropout: probability with which, in training, a node sends a feature as 0 and a neighbour is not listened to.
        negative_slope: of the LeakyReLU.
    """

    def __init__(
        self,
        d: int,
        n: int,
        heads: int = 1,
        concatenate: bool = True,
        dropout: float = 0.0,
        negative_slope: float = 0.2,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.heads, self.concatenate, self.dropout, self.negative_slope = heads, concatenate, dropout, negative_slope
        self.W = nn.Parameter(glorot(d, heads * n, generator))
        self.a_receiver = nn.Parameter(glorot(heads, n, generator))
        self.a_sender = nn.Parameter(glorot(heads, n, generator))
        self.b = nn.Parameter(torch.zeros(heads * n if concatenate else n))

    def forward(self, A: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor:
        """Return (N, K n) or (N, n) from (N, d) features; A (N, N) says who hears whom, its values do not matter.

        A node that hears nobody, not even itself, gets the bias alone.
        """
        WH = (H @ self.W).unflatten(1, (self.heads, -1))  # (N, K, n)
        alpha = F.dropout(self.attention(A, WH), self.dropout, self.training)  # (E, K)
        WH = F.dropout(WH, self.dropout, self.training)
        heads = [A.with_values(weights) @ sent for weights, sent in zip(alpha.t().contiguous().unbind(), WH.unbind(dim=1))]
        return (torch.cat(heads, dim=1) if self.concatenate else torch.stack(heads).mean(dim=0)) + self.b

    def attention(self, A: SparseMatrix, WH: Tensor) -> Tensor:
        """Return (E, K) weights in the order of A's entries: what each edge's receiver makes of its sender."""
        from_receiver = (WH * self.a_receiver).sum(dim=2).index_select(0, A.rows)  # (E, K)
        from_sender = (WH * self.a_sender).sum(dim=2).index_select(0, A.columns)
        return softmax_of_rows(A, F.leaky_relu(from_receiver + from_sender, self.negative_slope))

    def extra_repr(self) -> str:
        d, n = self.W.shape[0], self.W.shape[1] // self.heads
        return f"{d}, {n}, heads={self.heads}, concatenate={self.concatenate}"


class GAT(nn.Module):
    """GAT layers with ELU between them; dropout on what enters each, on attention and on messages.

    >>> model = GAT([1433, 8, 7], heads=8)              # the paper's network for Cora: 8 heads of 8 features, then one head
    >>> logits = model(A, features)                     # (N, 7); A with self-loops

    Args:
        sizes: features of a node before the first layer and after each, for each head.
        heads: of every layer but the last, whose `output_heads` are averaged.
    """

    def __init__(
        self,
        sizes: list[int],
        heads: int = 8,
        output_heads: int = 1,
        dropout: float = 0.6,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.dropout = dropout
        *hidden, K = sizes[1:]
        widths = [sizes[0], *(heads * n for n in hidden)]
        layers = [GATLayer(d, n, heads, dropout=dropout, generator=generator) for d, n in zip(widths, hidden)]
        output = GATLayer(widths[-1], K, output_heads, concatenate=False, dropout=dropout, generator=generator)
        self.layers = nn.ModuleList([*layers, output])

    def forward(self, A: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor:
        """Return (N, K) logits from who hears whom, (N, N), and (N, d) features."""
        return self.layers[-1](A, drop(self.embed(A, H), self.dropout, self.training))

    def embed(self, A: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor | SparseMatrix:
        """Return what enters the last layer: each node's learnt features, the heads' side by side."""
        for layer in self.layers[:-1]:
            H = F.elu(layer(A, drop(H, self.dropout, self.training)))
        return H


def softmax_of_rows(A: SparseMatrix, scores: Tensor) -> Tensor:
    """Return the (E, K) softmax of scores over each row's entries; the row's largest is taken off first, against overflow."""
    rows = A.rows[:, None].expand_as(scores)
    largest = scores.new_full((A.shape[0], scores.shape[1]), -torch.inf).scatter_reduce(0, rows, scores.detach(), "amax")
    exponentials = (scores - largest[A.rows]).exp()
    totals = torch.zeros_like(largest).index_add(0, A.rows, exponentials)
    return exponentials / totals[A.rows]
