"""The graph attention network of Veličković et al. (2018): the answer to question 3.5.

Equation 28 sums over neighbours with equal weights. To attend, give each message a weight that depends on both its
receiver and its sender, and let the weights that a node gives to its neighbours, itself included, sum to one:

    e_ij = LeakyReLU(a_rᵀ Wᵀh_i + a_sᵀ Wᵀh_j)          how important node j's message is to node i
    α_ij = exp(e_ij) / Σ_{k in N(i)} exp(e_ik)         a softmax over the neighbours of i
    h_i' = σ(Σ_{j in N(i)} α_ij Wᵀh_j)

The weights sum to one however many neighbours there are, so the softmax takes the place of the normalisation in
equation 27. All edges share a_r and a_s, so the layer works on any graph and does not depend on the order of its nodes.
Several such heads, each with its own W, a_r and a_s, can attend to different things.

N nodes; E edges and self-loops; K heads; d features before a layer and n for each head after it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from part3.gcn import check_input, drop, glorot
from part3.graph import SparseMatrix


class GATLayer(nn.Module):
    """K heads of attention over neighbours, concatenated or averaged.

    Args:
        d: features of a node before the layer.
        n: features of a node after it, for each head.
        heads: K.
        concatenate: return the heads' outputs side by side, (N, K n); else their mean, (N, n).
        dropout: probability with which a feature of a message, or an attention weight, is set to 0 in training.
        negative_slope: slope of the LeakyReLU below 0.
        generator: random stream of the weights (Glorot, uniform).
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
        self.W = nn.Parameter(torch.empty(d, heads * n))
        self.a_receiver = nn.Parameter(torch.empty(heads, n))
        self.a_sender = nn.Parameter(torch.empty(heads, n))
        self.b = nn.Parameter(torch.empty(heads * n if concatenate else n))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew; the bias is zero again."""
        for weight in (self.W, self.a_receiver, self.a_sender):
            weight.copy_(glorot(*weight.shape, generator=generator))
        self.b.zero_()

    def forward(self, A: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor:
        """Return (N, K n) or (N, n) from (N, d) features.

        An entry A_ij of the (N, N) adjacency lets node i receive from node j; its value does not matter. A node that
        receives from no node, not even itself, gets the bias alone.

        Raises:
            ValueError: graph, features and weights do not match.
        """
        check_input(A, H, self.W)
        WH = (H @ self.W).unflatten(1, (self.heads, -1))  # (N, K, n)
        alpha = F.dropout(self.attention(A, WH), self.dropout, self.training)  # (E, K)
        WH = F.dropout(WH, self.dropout, self.training)
        weights = alpha.t().contiguous().unbind()  # K times (E,)
        messages = WH.unbind(dim=1)  # K times (N, n)
        heads = [A.with_values(weights[k]) @ messages[k] for k in range(self.heads)]
        combined = torch.cat(heads, dim=1) if self.concatenate else torch.stack(heads).mean(dim=0)
        return combined + self.b

    def attention(self, A: SparseMatrix, WH: Tensor) -> Tensor:
        """Return (E, K) weights α in the order of A's entries, from (N, K, n) transformed features."""
        from_receiver = (WH * self.a_receiver).sum(dim=2).index_select(0, A.rows)  # (E, K)
        from_sender = (WH * self.a_sender).sum(dim=2).index_select(0, A.columns)
        e = F.leaky_relu(from_receiver + from_sender, self.negative_slope)
        return softmax_within(A.rows, e, A.shape[0])

    def extra_repr(self) -> str:
        d, n = self.W.shape[0], self.W.shape[1] // self.heads
        return f"{d}, {n}, heads={self.heads}, concatenate={self.concatenate}"


class GAT(nn.Module):
    """GAT layers with ELU between them; dropout on each layer's input, on attention and on messages.

    >>> from part3.graph import add_self_loops, adjacency
    >>> edges = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 4)]        # or (2, E), as PyTorch Geometric's edge_index
    >>> A = add_self_loops(adjacency(edges))                     # a node also attends to itself
    >>> model = GAT([6, 8, 3], heads=4)                          # 6 features, 4 heads of 8 features, 3 classes
    >>> model(A, torch.rand(5, 6)).shape                         # logits
    torch.Size([5, 3])

    Args:
        sizes: features of a node before the first layer and, for each head, after each layer. [1433, 8, 7] with 8
            heads is the paper's network for Cora.
        heads: number of heads of every layer but the last.
        output_heads: number of heads of the last layer, which are averaged.
        dropout: probability with which an entry is set to 0 in training.
        generator: random stream of the weights.
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
        """Return (N, K) logits for K classes from the (N, N) adjacency with self-loops and (N, d) features."""
        return self.layers[-1](A, drop(self.embed(A, H), self.dropout, self.training))

    def embed(self, A: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor | SparseMatrix:
        """Return the input of the last layer: each node's learnt features, those of the heads side by side."""
        for layer in self.layers[:-1]:
            H = F.elu(layer(A, drop(H, self.dropout, self.training)))
        return H

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew."""
        for layer in self.layers:
            layer.reset_parameters(generator)  # type: ignore[operator]  # a ModuleList does not say of which layers

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return what an optimizer takes, with weight decay on all layers, as in the paper (section 3.3)."""
        return [{"params": list(self.parameters()), "weight_decay": weight_decay}]


def softmax_within(groups: Tensor, scores: Tensor, num_groups: int) -> Tensor:
    """Return the softmax of (E,) or (E, K) scores over all that belong to one group, whose (E,) numbers are given."""
    index = groups.view(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    largest = scores.new_full((num_groups, *scores.shape[1:]), -torch.inf)
    largest = largest.scatter_reduce(0, index, scores.detach(), "amax")  # subtracted so that exp does not overflow
    exponentials = (scores - largest[groups]).exp()
    totals = torch.zeros_like(largest).index_add(0, groups, exponentials)
    return exponentials / totals[groups]
