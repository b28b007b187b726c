"""The networks by name, what each takes of a graph, and where to draw the features that it learns."""

import torch
from torch import Tensor
from torch.nn import functional as F

from part3.gat import GAT
from part3.gcn import GCN
from part3.gcnii import GCNII
from part3.graph import SparseMatrix, add_self_loops, identity, normalise
from part3.graph_cnn import GraphAttention, GraphNetwork, MessageGraphConvolution

# The layers of a `GraphNetwork`
LAYERS: dict[str, type[MessageGraphConvolution | GraphAttention]] = {
    "convolution": MessageGraphConvolution,
    "attention": GraphAttention,
}
Network = GCN | GAT | GCNII | GraphNetwork


def propagation_matrix(A: SparseMatrix, model: str, normalisation: str) -> SparseMatrix:
    """Return what the model takes: Â; A for `GraphNetwork`; the identity for the MLP, which uses no edges."""
    if model == "mlp":
        return identity(A.shape[0])
    return A if model in LAYERS else normalise(add_self_loops(A), normalisation)


def build_model(model: str, sizes: list[int], dropout: float, heads: int, output_heads: int) -> Network:
    if model == "gat":
        return GAT(sizes, heads, output_heads, dropout)
    if model == "gcnii":
        return GCNII(sizes[0], sizes[1], sizes[-1], num_layers=len(sizes) - 1, dropout=dropout)
    return GraphNetwork(LAYERS[model], sizes, dropout) if model in LAYERS else GCN(sizes, dropout)


def principal_components(embedding: Tensor | SparseMatrix) -> Tensor:
    """Return the first two principal components of (N, n) learnt features, (N, 2); of a single feature one, and 0."""
    embedding = embedding.to_dense() if isinstance(embedding, SparseMatrix) else embedding  # of a model with one layer
    U, S, _ = torch.linalg.svd(embedding - embedding.mean(dim=0), full_matrices=False)
    return F.pad(U * S, (0, 1))[:, :2]
