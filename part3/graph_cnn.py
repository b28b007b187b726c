"""Convolution and attention along a graph's edges, with the names and signatures of UvA 2025 (questions 3.2 to 3.4).

N(v) are the nodes from which an edge leads to node v. Convolution is given twice, node by node and for all nodes:

    h_v' = σ(W Σ_{u in N(v)} h_u / |N(v)| + B h_v)             `MessageGraphConvolution`
    H' = σ(D⁻¹ A H Wᵀ + H Bᵀ)                                  `MatrixGraphConvolution`

Row v of H is h_vᵀ, A_vu counts the edges from u to v, and D_vv = |N(v)| those to v. Attention replaces the mean by
weights α that depend on both ends of an edge (Veličković et al. 2018); there, v itself belongs to N(v):

    e_vu = LeakyReLU(aᵀ [W h_v ‖ W h_u])        α_vu = exp(e_vu) / Σ_{k in N(v)} exp(e_vk)
    h_v' = σ(Σ_{u in N(v)} α_vu W h_u)                         `GraphAttention`

The layers return what stands inside σ, as `GCNLayer` does; `GraphNetwork` applies σ. A node to which no edge leads is
divided by 1, which leaves B h_v. An edge that is listed twice counts twice, in sums as in |N(v)| and in the softmax.

N nodes, E edges; x (N, in_features) are the nodes' features, edge_index (2, E) the edges, from row 0 to row 1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from part3.gat import softmax_within
from part3.gcn import GCN, drop, glorot
from part3.graph import SparseMatrix, as_edge_index, check_nodes_exist


class GraphConvolution(nn.Module):
    """The weights that both forms of the convolution have: W for the neighbours' mean, B for the node itself.

    Args:
        in_features, out_features: features of a node before and after.
        generator: random stream of the weights, which are (out_features, in_features) each (Glorot, uniform).
    """

    def __init__(self, in_features: int, out_features: int, generator: torch.Generator | None = None):
        super().__init__()
        self.W = nn.Parameter(torch.empty(out_features, in_features))
        self.B = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew."""
        for weight in (self.W, self.B):
            weight.copy_(glorot(*weight.shape, generator=generator))

    def extra_repr(self) -> str:
        return f"{self.W.shape[1]}, {self.W.shape[0]}"


class MessageGraphConvolution(GraphConvolution):
    """W Σ_{u in N(v)} h_u / |N(v)| + B h_v, by the two functions of message passing (Gilmer et al. 2017).

    >>> x, edge_index = torch.rand(4, 5), torch.tensor([[0, 1, 2], [1, 2, 1]])
    >>> MessageGraphConvolution(5, 3)(x, edge_index).shape
    torch.Size([4, 3])
    """

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return (N, out_features).

        Raises:
            ValueError: features, edges and weights do not match.
        """
        edge_index = checked_edges(x, edge_index, self.W)
        return self.update(x, self.message(x, edge_index))

    @staticmethod
    def message(x: Tensor, edge_index: Tensor) -> Tensor:
        """Return (N, in_features): for each node the mean of h_u over the edges that lead to it, 0 without any."""
        sender, receiver = edge_index  # (E,) each
        total = torch.zeros_like(x).index_add(0, receiver, x[sender])
        count = receiver.bincount(minlength=len(x)).clamp(min=1)  # |N(v)|
        return total / count[:, None]

    def update(self, x: Tensor, messages: Tensor) -> Tensor:
        """Return (N, out_features) from each node's own features and its (N, in_features) mean message."""
        return messages @ self.W.t() + x @ self.B.t()


class MatrixGraphConvolution(GraphConvolution):
    """D⁻¹ A H Wᵀ + H Bᵀ with dense matrices, as the equation has it: for graphs of a few thousand nodes."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return (N, out_features).

        Raises:
            ValueError: features, edges and weights do not match.
        """
        edge_index = checked_edges(x, edge_index, self.W)
        A = self.make_adjacency_matrix(edge_index, len(x))
        D_inverse = self.make_inverted_degree_matrix(edge_index, len(x))
        return D_inverse @ (A @ (x @ self.W.t())) + x @ self.B.t()

    def make_adjacency_matrix(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return A, (N, N): A_vu is the number of edges from node u to node v."""
        sender, receiver = edge_index
        A = self.W.new_zeros(num_nodes, num_nodes)
        return A.index_put((receiver, sender), A.new_ones(()), accumulate=True)

    def make_inverted_degree_matrix(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return D⁻¹, (N, N): 1 / |N(v)| on the diagonal, 1 for a node to which no edge leads."""
        degree = edge_index[1].bincount(minlength=num_nodes).clamp(min=1)
        return torch.diag(1 / degree.to(self.W.dtype))


class GraphAttention(nn.Module):
    """Σ_{u in N(v)} α_vu W h_u: one head of attention, without bias or dropout; `part3/gat.py` has the paper's layer.

    Args:
        in_features, out_features: features of a node before and after.
        generator: random stream of the weights W, (out_features, in_features), and a, (2 out_features,): its first
            half reads the receiver v, its second the sender u (Glorot, uniform).
    """

    def __init__(self, in_features: int, out_features: int, generator: torch.Generator | None = None):
        super().__init__()
        self.W = nn.Parameter(torch.empty(out_features, in_features))
        self.a = nn.Parameter(torch.empty(2 * out_features))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew."""
        self.W.copy_(glorot(*self.W.shape, generator=generator))
        self.a.copy_(glorot(len(self.a), 1, generator=generator)[:, 0])

    def forward(self, x: Tensor, edge_index: Tensor, debug: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return (N, out_features); with `debug` also a dictionary of what it is made of.

        Its E' edges are those between different nodes, in their order, and then one from each node to itself:
        "edge_index" (2, E'); "messages" (E', out_features), W h_u; "edge_weights" (E',), exp(e_vu); "softmax_weights"
        (N,), their sums over N(v); "attention" (E',), α_vu.

        Raises:
            ValueError: features, edges and weights do not match.
        """
        edge_index = with_self_loops(checked_edges(x, edge_index, self.W), len(x))
        sender, receiver = edge_index  # (E',) each
        Wh = x @ self.W.t()  # (N, out)
        a_receiver, a_sender = self.a.chunk(2)
        e = F.leaky_relu((Wh @ a_receiver)[receiver] + (Wh @ a_sender)[sender], 0.2)  # (E',)
        alpha = softmax_within(receiver, e, len(x))
        messages = Wh[sender]  # (E', out)
        out = torch.zeros_like(Wh).index_add(0, receiver, alpha[:, None] * messages)
        if not debug:
            return out
        sums = e.new_zeros(len(x)).index_add(0, receiver, e.exp())
        made_of = {"messages": messages, "edge_weights": e.exp(), "softmax_weights": sums, "attention": alpha}
        return out, {"edge_index": edge_index, **made_of}

    def extra_repr(self) -> str:
        return f"{self.W.shape[1]}, {self.W.shape[0]}"


class GraphNetwork(GCN):
    """`GCN` with these layers, which read the edges of its (N, N) adjacency: A_vu is an edge from node u to node v.

    Args:
        Layer: `MessageGraphConvolution`, `MatrixGraphConvolution` or `GraphAttention`.
        sizes, dropout, generator: see `GCN`.
    """

    def __init__(
        self,
        Layer: type[GraphConvolution | GraphAttention],
        sizes: list[int],
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ):
        super().__init__(sizes, dropout, generator, Layer)

    def forward(self, A: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor:
        """Return (N, K) logits from (N, d) features."""
        return self.layers[-1](dense(drop(self.embed(A, H), self.dropout, self.training)), edge_index_of(A))

    def embed(self, A: SparseMatrix, H: Tensor | SparseMatrix) -> Tensor | SparseMatrix:
        """Return the input of the last layer: each node's learnt features, (N, n)."""
        for layer in self.layers[:-1]:
            H = torch.relu(layer(dense(drop(H, self.dropout, self.training)), edge_index_of(A)))
        return H


def dense(H: Tensor | SparseMatrix) -> Tensor:
    return H.to_dense() if isinstance(H, SparseMatrix) else H


def edge_index_of(A: SparseMatrix) -> Tensor:
    """Return the (2, E) edges, from row 0 to row 1, of a matrix with A_vu at each edge from u to v."""
    return torch.stack([A.columns, A.rows])


def with_self_loops(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Return the edges between different nodes, and then one from each node to itself."""
    node = torch.arange(num_nodes, device=edge_index.device)
    return torch.cat([edge_index[:, edge_index[0] != edge_index[1]], node.expand(2, -1)], dim=1)


def checked_edges(x: Tensor, edge_index: Tensor, W: Tensor) -> Tensor:
    """Return the (2, E) edges as int64, if they join nodes that x has and W multiplies x; else raise a ValueError."""
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != W.shape[1] or x.dtype != W.dtype:
        found = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"the features x must be (N, {W.shape[1]}) of {W.dtype}, not {found}")
    edge_index = as_edge_index(edge_index).to(x.device)
    check_nodes_exist(edge_index, len(x))
    return edge_index
