"""A graph convolutional network that may be deep: GCNII (Chen et al. 2020).

Every layer of a GCN multiplies by Â, and Â^L makes all nodes alike as L grows. GCNII lets each layer see the first
features again, and keeps its weights near the identity, so that a deep network begins as one that changes little:

    H⁰ = ReLU(X W_in + b_in)
    Hˡ = ReLU(((1 - α) Â Hˡ⁻¹ + α H⁰) ((1 - β_l) I + β_l Wˡ))        β_l = log(λ/l + 1),  l = 1 ... L
    logits = Hᴸ W_out + b_out

N nodes; d features, n hidden ones, K classes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from part3.gcn import check_input, drop, glorot
from part3.graph import SparseMatrix


class GCNII(nn.Module):
    """The network above; dropout on what enters each product with weights.

    Args:
        d, n, K: features of a node, hidden features, and classes.
        num_layers: L, the number of layers with Â.
        dropout: probability with which an entry is set to 0 in training.
        alpha: share of the first features H⁰ in what enters each layer.
        lam: λ; the weight β_l of Wˡ beside the identity is near λ/l.
        generator: random stream of the weights (Glorot, uniform).
    """

    def __init__(
        self,
        d: int,
        n: int,
        K: int,
        num_layers: int,
        dropout: float = 0.5,
        alpha: float = 0.1,
        lam: float = 0.5,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.dropout, self.alpha, self.lam = dropout, alpha, lam
        self.W_in, self.b_in = nn.Parameter(torch.empty(d, n)), nn.Parameter(torch.empty(n))
        self.W = nn.ParameterList(torch.empty(n, n) for _ in range(num_layers))
        self.W_out, self.b_out = nn.Parameter(torch.empty(n, K)), nn.Parameter(torch.empty(K))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew; the biases are zero again."""
        for W in (self.W_in, *self.W, self.W_out):
            W.copy_(glorot(*W.shape, generator=generator))
        self.b_in.zero_()
        self.b_out.zero_()

    def forward(self, A_hat: SparseMatrix, X: Tensor | SparseMatrix) -> Tensor:
        """Return (N, K) logits from (N, N) Â and (N, d) features.

        Raises:
            ValueError: graph, features and weights do not match.
        """
        return drop(self.embed(A_hat, X), self.dropout, self.training) @ self.W_out + self.b_out

    def embed(self, A_hat: SparseMatrix, X: Tensor | SparseMatrix) -> Tensor:
        """Return Hᴸ, (N, n)."""
        check_input(A_hat, X, self.W_in)
        XW = drop(X, self.dropout, self.training) @ self.W_in  # (N, n)
        H = H_0 = torch.relu(XW + self.b_in)
        for l, W in enumerate(self.W, start=1):  # noqa: E741
            beta = math.log(self.lam / l + 1)
            mixed = (1 - self.alpha) * (A_hat @ F.dropout(H, self.dropout, self.training)) + self.alpha * H_0
            H = torch.relu((1 - beta) * mixed + beta * (mixed @ W))
        return H

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return what an optimizer takes, with weight decay on all weights."""
        return [{"params": list(self.parameters()), "weight_decay": weight_decay}]
