"""A graph as a sparse matrix: adjacency, its normalisations (equations 19-21), and distances between nodes.

A_ij = 1 where an edge leads from node j to node i, so that (A H)_i is the sum of the features of node i's neighbours:
one product with A is one round of messages. Most graphs of N nodes have few of the N² possible edges; `SparseMatrix`
stores only those. Its product with a dense matrix, and the backward pass of it, cost one multiplication for each edge
and column.

N nodes, E edges, d features.
"""

import copy
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class SparseMatrix:
    """A matrix of which only the entries other than zero are kept, sorted by row and column.

    >>> A = SparseMatrix(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([2.0, 3.0]), (2, 2))
    >>> (A @ torch.eye(2)).tolist()
    [[0.0, 2.0], [3.0, 0.0]]

    Args:
        rows, columns: (E,) integers of any type, tensors or arrays, in any order; entries at the same place are added.
        values: (E,), the entries; gradients flow only to those set by `with_values`.
        shape: numbers of rows and columns.

    Raises:
        ValueError: rows, columns and values are not equally many, an index is no integer, or lies outside the shape.
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]):
        rows, columns, values = as_indices(rows, "rows"), as_indices(columns, "columns"), torch.as_tensor(values)
        sizes = [tuple(part.shape) for part in (rows, columns, values)]
        if rows.dim() != 1 or sizes != [sizes[0]] * 3:
            raise ValueError(f"rows, columns and values must be (E,) each, not {', '.join(map(str, sizes))}")
        if len(shape) != 2:
            raise ValueError(f"the shape must be the numbers of rows and columns, not {shape!r}")
        shape = (as_size(shape[0], "the number of rows"), as_size(shape[1], "the number of columns"))
        for name, index, size in (("row", rows, shape[0]), ("column", columns, shape[1])):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
                found = f"{int(index.min())} to {int(index.max())}"
                raise ValueError(f"{name} indices must lie between 0 and {size - 1}, not {found}")
        places, position = (rows * shape[1] + columns).unique(return_inverse=True)  # sorted: row by row
        self.rows, self.columns, self.shape = places // max(shape[1], 1), places % max(shape[1], 1), shape
        self.values = values.new_zeros(len(places)).index_add(0, position, values)
        self._prepare()

    def _prepare(self) -> None:
        """Find where each row begins, also of the transposed matrix, by which the backward pass multiplies."""
        self._begins = row_begins(self.rows, self.shape[0])
        self._transposed_order = self.columns.argsort(stable=True)
        self._transposed_columns = self.rows[self._transposed_order]
        self._transposed_begins = row_begins(self.columns[self._transposed_order], self.shape[1])

    def with_values(self, values: Tensor) -> "SparseMatrix":
        """Return the matrix with other (E,) entries at the same places; they may require a gradient."""
        other = copy.copy(self)
        other.values = values
        return other

    def __matmul__(self, X: Tensor) -> Tensor:
        """Return the (rows, d) product with a dense (columns, d) matrix.

        Raises:
            ValueError: the shapes do not match, or the types of the entries.
        """
        if X.dim() != 2 or len(X) != self.shape[1]:
            raise ValueError(f"a {self.shape} matrix cannot be multiplied by {tuple(X.shape)}")
        if X.dtype != self.values.dtype:
            raise ValueError(f"the sparse matrix A holds {self.values.dtype}, not {X.dtype}: take A.to({X.dtype})")
        return _Product.apply(self, self.values, X)

    def t(self) -> "SparseMatrix":
        """Return the transposed matrix."""
        return SparseMatrix(self.columns, self.rows, self.values, self.shape[::-1])

    def row_sums(self) -> Tensor:
        """Return the (rows,) sums of each row's entries."""
        return self.values.new_zeros(self.shape[0]).index_add(0, self.rows, self.values)

    def to_dense(self) -> Tensor:
        """Return the matrix as a tensor with all its zeros."""
        dense = self.values.new_zeros(self.shape)
        dense[self.rows, self.columns] = self.values
        return dense

    def to(self, device_or_dtype: torch.device | torch.dtype) -> "SparseMatrix":
        """Return the matrix on another device, or with values of another type."""
        if isinstance(device_or_dtype, torch.dtype):
            return self.with_values(self.values.to(device_or_dtype))
        other = copy.copy(self)
        for name, part in vars(self).items():
            if isinstance(part, Tensor):
                setattr(other, name, part.to(device_or_dtype))
        return other

    def __repr__(self) -> str:
        return f"SparseMatrix({self.shape[0]} x {self.shape[1]}, {len(self.values)} entries)"


class _Product(torch.autograd.Function):
    """Y = A X, computed as an embedding bag: for each row i of A, the sum over its entries of A_ij X_j.

    With G = dL/dY, dL/dX = Aᵀ G, and dL/dA_ij = G_i · X_j at the places where A has an entry.
    """

    @staticmethod
    def forward(ctx: Any, A: SparseMatrix, values: Tensor, X: Tensor) -> Tensor:
        ctx.A = A
        ctx.save_for_backward(values, X)
        return weighted_sums(X, A.columns, A._begins, values)

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        A, (values, X) = ctx.A, ctx.saved_tensors
        d_values = d_X = None
        if ctx.needs_input_grad[1]:
            d_values = (G.index_select(0, A.rows) * X.index_select(0, A.columns)).sum(dim=1)
        if ctx.needs_input_grad[2]:
            d_X = weighted_sums(G, A._transposed_columns, A._transposed_begins, values[A._transposed_order])
        return None, d_values, d_X


def weighted_sums(X: Tensor, index: Tensor, begins: Tensor, weights: Tensor) -> Tensor:
    """Return Y with rows Y_i = sum over e from begins[i] to begins[i + 1] - 1 of weights[e] X[index[e]]."""
    return F.embedding_bag(index, X, begins, mode="sum", per_sample_weights=weights, include_last_offset=True)


def row_begins(rows: Tensor, num_rows: int) -> Tensor:
    """Return (num_rows + 1,): where each row's entries begin in the sorted (E,) `rows`, and at the end E."""
    return torch.searchsorted(rows, torch.arange(num_rows + 1, device=rows.device))


def adjacency(
    edges: Tensor | Iterable[tuple[int, int]],
    num_nodes: int | None = None,
    dtype: torch.dtype = torch.float32,
    directed: bool = False,
) -> SparseMatrix:
    """Return A of the undirected graph with these edges: symmetric, zeros and ones, with an empty diagonal.

    >>> adjacency([(0, 1), (1, 2)]).to_dense().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]

    An edge may be given once, in both directions, or several times. Loops from a node to itself are dropped;
    `add_self_loops` gives one to each node.

    Args:
        edges: pairs of node numbers; or a tensor or array of integers, which must be (2, E), as PyTorch Geometric's
            edge_index (of one that is (E, 2), take `edges.t()`).
        num_nodes: N; by default the largest number in an edge, plus 1.
        directed: A_ij = 1 only where an edge leads from node j, its first, to node i, its second.

    Raises:
        ValueError: the edges have another form, or there is no node of that number.
    """
    edges = as_edge_index(edges)
    if num_nodes is None:
        if not edges.numel():
            raise ValueError("of a graph without edges num_nodes must be given")
        num_nodes = int(edges.max()) + 1
    num_nodes = as_size(num_nodes, "num_nodes")
    check_nodes_exist(edges, num_nodes)
    edges = edges[:, edges[0] != edges[1]]
    rows, columns = edges.flip(0) if directed else torch.cat([edges, edges.flip(0)], dim=1)
    A = SparseMatrix(rows, columns, torch.ones(len(rows), dtype=dtype, device=rows.device), (num_nodes, num_nodes))
    return A.with_values(torch.ones_like(A.values))


def as_edge_index(edges: Tensor | Iterable[tuple[int, int]]) -> Tensor:
    """Return the edges, given as `adjacency` takes them, as a (2, E) int64 tensor."""
    expected = "edges must be a (2, E) tensor of int64, as PyTorch Geometric's edge_index, or a list of pairs"
    if hasattr(edges, "tocoo") or isinstance(edges, SparseMatrix):
        hint = "numpy.array(A.nonzero())" if hasattr(edges, "tocoo") else "torch.stack([A.columns, A.rows])"
        raise ValueError(f"{expected}, not a {type(edges).__name__}: of a matrix A, {hint} is (2, E)")
    if not hasattr(edges, "shape"):
        if not isinstance(edges, Iterable):
            raise ValueError(f"{expected}, not {edges!r}")
        pairs = list(edges)
        for pair in pairs:
            if not (isinstance(pair, Sequence) and len(pair) == 2 and all(map(is_node_number, pair))):
                raise ValueError(f"an edge must be a pair of node numbers, not {pair!r}")
        return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()
    shape = tuple(edges.shape)  # type: ignore[union-attr]
    if len(shape) != 2 or shape[0] != 2:
        hint = ": edges.t() is (2, E)" if len(shape) == 2 and shape[1] == 2 else ""
        raise ValueError(f"{expected}, not a {shape} tensor of {type_name(edges)}{hint}")
    return as_indices(edges, "edges")


def check_nodes_exist(edges: Tensor, num_nodes: int) -> None:
    """Raise a ValueError unless all numbers in the (2, E) edges are those of nodes, 0 to num_nodes - 1."""
    smallest, largest = (int(edges.min()), int(edges.max())) if edges.numel() else (0, -1)
    if smallest < 0:
        raise ValueError(f"an edge names node {smallest}: nodes are numbered from 0")
    if largest >= num_nodes:
        raise ValueError(f"an edge names node {largest}, but num_nodes is {num_nodes}: nodes are numbered from 0")


def is_node_number(node: Any) -> bool:
    return isinstance(node, Integral) and not isinstance(node, bool) and abs(int(node)) < 2**63


def as_indices(index: Any, name: str) -> Tensor:
    """Return integers of any type as int64: in narrower types `row * columns + column` would overflow without a word.

    Raises:
        ValueError: they are no integers, or too large for int64.
    """
    if not isinstance(index, Tensor):
        try:
            index = np.asarray(index)
        except ValueError:  # lists of different lengths
            raise ValueError(f"{name} must be a tensor or an array of integers, not nested lists") from None
        index = index.astype(np.int64) if index.size == 0 and index.dtype == np.float64 else index  # of []
        if index.dtype.kind not in "iu" or (index.dtype == np.uint64 and index.size and index.max() >= 2**63):
            raise ValueError(f"{name} must be integers below 2^63, not {index.dtype}")
        return torch.from_numpy(index.astype(np.int64))
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, not {type_name(index)}")
    return index.long()


def as_size(number: Any, name: str) -> int:
    """Return a number of rows, columns or nodes; raise a ValueError unless it is an integer of at least 0."""
    if not is_node_number(number) or number < 0:
        raise ValueError(f"{name} must be an integer of at least 0, not {number!r}")
    return int(number)


def type_name(values: Any) -> str:
    return str(getattr(values, "dtype", type(values).__name__)).removeprefix("torch.")


def identity(num_nodes: int, dtype: torch.dtype = torch.float32) -> SparseMatrix:
    """Return the (N, N) identity: a graph without edges, in which every node receives its own message only."""
    diagonal = torch.arange(as_size(num_nodes, "num_nodes"))
    return SparseMatrix(diagonal, diagonal, torch.ones(num_nodes, dtype=dtype), (num_nodes, num_nodes))


def add_self_loops(A: SparseMatrix) -> SparseMatrix:
    """Return A + I_N (equation 20)."""
    diagonal = torch.arange(A.shape[0], device=A.rows.device)
    rows, columns = torch.cat([A.rows, diagonal]), torch.cat([A.columns, diagonal])
    return SparseMatrix(rows, columns, torch.cat([A.values, A.values.new_ones(A.shape[0])]), A.shape)


def normalise(A: SparseMatrix, how: str = "symmetric") -> SparseMatrix:
    """Return A divided by the degrees D_ii = sum_j A_ij (equation 21); a row of zeros remains a row of zeros.

    Args:
        how: "symmetric", D^-1/2 A D^-1/2 (equation 19), or "random_walk", D^-1 A, which takes means over neighbours.

    Raises:
        ValueError: another `how`, A is not square, or a degree is negative or not finite.
    """
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"the adjacency must be (N, N), not {A.shape}")
    degree = A.row_sums()
    if not bool(((degree >= 0) & (degree < torch.inf)).all()):
        found = degree[~((degree >= 0) & (degree < torch.inf))][0].item()
        raise ValueError(f"the degrees (sums of the rows of A) must be finite and at least 0, not {found}")
    if how == "symmetric":
        scale = torch.where(degree > 0, degree.rsqrt(), 0)
        return A.with_values(A.values * scale[A.rows] * scale[A.columns])
    if how == "random_walk":
        return A.with_values(A.values * torch.where(degree > 0, 1 / degree, 0)[A.rows])
    raise ValueError(f"the normalisation must be symmetric or random_walk, not {how}")


def laplacian(A: SparseMatrix) -> SparseMatrix:
    """Return L = D - A with the degrees D_ii = sum_j A_ij: (L X)_i = sum_j A_ij (X_i - X_j) (UvA 2025 3.1c).

    Raises:
        ValueError: A is not square.
    """
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"the adjacency must be (N, N), not {A.shape}")
    diagonal = torch.arange(A.shape[0], device=A.rows.device)
    rows, columns = torch.cat([A.rows, diagonal]), torch.cat([A.columns, diagonal])
    return SparseMatrix(rows, columns, torch.cat([-A.values, A.row_sums()]), A.shape)


def distances(A: SparseMatrix, node: int) -> Tensor:
    """Return (N,) int64: each node's distance from `node` in hops, by breadth-first search; -1 without a path.

    Raises:
        ValueError: there is no such node.
    """
    if not is_node_number(node) or not 0 <= node < A.shape[0]:
        raise ValueError(f"the node must lie between 0 and {A.shape[0] - 1}, not {node!r}")
    distance = torch.full((A.shape[0],), -1)
    frontier = torch.tensor([node])
    hops = 0
    while len(frontier):
        distance[frontier] = hops
        in_frontier = torch.zeros(A.shape[0], dtype=torch.bool)
        in_frontier[frontier] = True
        reached = A.rows[in_frontier[A.columns]].unique()
        frontier = reached[distance[reached] < 0]
        hops += 1
    return distance
