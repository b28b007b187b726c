"""A graph as a sparse matrix: adjacency, its normalisations (equations 19-21), and how far nodes are apart.

A_ij = 1 where an edge leads from node j to node i, so that (A H)_i sums what node i's neighbours hold: one product with A is
one round of messages. A graph of N nodes has few of the N² possible edges; `SparseMatrix` keeps only those, and its product
with a dense matrix, forward and backward, costs one multiplication for each edge and column.

N nodes, E edges, d features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import CommandError


class SparseMatrix:
    """A matrix whose entries other than zero are listed row by row.

    >>> A = SparseMatrix(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([2.0, 3.0]), (2, 2))
    >>> (A @ torch.eye(2)).tolist()
    [[0.0, 2.0], [3.0, 0.0]]

    Args:
        rows, columns: (E,) int64, in any order; entries at the same place are added.
        values: (E,), the entries; a product passes gradients on to `with_values` ones.
        shape: numbers of rows and columns.

    Raises:
        CommandError: an index lies outside the shape.
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]):
        for name, index, size in (("row", rows, shape[0]), ("column", columns, shape[1])):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise CommandError(f"a {name} index lies outside 0 to {size - 1}: {int(index.min())} to {int(index.max())}")
        places, position = (rows * shape[1] + columns).unique(return_inverse=True)  # sorted: row by row
        self.rows, self.columns, self.shape = places // shape[1], places % shape[1], tuple(shape)
        self.values = values.new_zeros(len(places)).index_add(0, position, values)
        self._prepare()

    def _prepare(self) -> None:
        """Find where each row begins, and the same for the transposed matrix, which the backward pass multiplies with."""
        self._begins = row_begins(self.rows, self.shape[0])
        self._transposed_order = self.columns.argsort(stable=True)
        self._transposed_columns = self.rows[self._transposed_order]
        self._transposed_begins = row_begins(self.columns[self._transposed_order], self.shape[1])

    def with_values(self, values: Tensor) -> "SparseMatrix":
        """Return the matrix with other entries at the same places, (E,), which may carry a gradient."""
        other = object.__new__(SparseMatrix)
        other.__dict__ = {**self.__dict__, "values": values}
        return other

    def __matmul__(self, X: Tensor) -> Tensor:
        """Return the (rows, d) product with a dense (columns, d) matrix."""
        return _Product.apply(self, self.values, X)

    def t(self) -> "SparseMatrix":
        """Return the transposed matrix."""
        return SparseMatrix(self.columns, self.rows, self.values, self.shape[::-1])

    def row_sums(self) -> Tensor:
        """Return (rows,) sums of the entries."""
        return self.values.new_zeros(self.shape[0]).index_add(0, self.rows, self.values)

    def to_dense(self) -> Tensor:
        """Return the matrix with its zeros written out."""
        dense = self.values.new_zeros(self.shape)
        dense[self.rows, self.columns] = self.values
        return dense

    def to(self, device_or_dtype: torch.device | torch.dtype) -> "SparseMatrix":
        """Return the matrix on another device, or with values of another type."""
        if isinstance(device_or_dtype, torch.dtype):
            return self.with_values(self.values.to(device_or_dtype))
        other = object.__new__(SparseMatrix)
        other.__dict__ = {
            name: part.to(device_or_dtype) if isinstance(part, Tensor) else part for name, part in self.__dict__.items()
        }
        return other

    def __repr__(self) -> str:
        return f"SparseMatrix({self.shape[0]} x {self.shape[1]}, {len(self.values)} entries)"


class _Product(torch.autograd.Function):
    """Y = A X. An embedding bag is just that: for each row i of A, the sum over its entries of A_ij X_j.

    With G = dL/dY: dL/dX = Aᵀ G, and dL/dA_ij = G_i · X_j at the places where A has an entry.
    """

    @staticmethod
    def forward(ctx, A: SparseMatrix, values: Tensor, X: Tensor) -> Tensor:
        ctx.A = A
        ctx.save_for_backward(values, X)
        return weighted_sums(X, A.columns, A._begins, values)

    @staticmethod
    def backward(ctx, G: Tensor):
        A, (values, X) = ctx.A, ctx.saved_tensors
        d_values = d_X = None
        if ctx.needs_input_grad[1]:
            d_values = (G.index_select(0, A.rows) * X.index_select(0, A.columns)).sum(dim=1)
        if ctx.needs_input_grad[2]:
            d_X = weighted_sums(G, A._transposed_columns, A._transposed_begins, values[A._transposed_order])
        return None, d_values, d_X


def weighted_sums(X: Tensor, index: Tensor, begins: Tensor, weights: Tensor) -> Tensor:
    """Return row i = sum over e from begins[i] to begins[i + 1] of weights[e] X[index[e]]."""
    return F.embedding_bag(index, X, begins, mode="sum", per_sample_weights=weights, include_last_offset=True)


def row_begins(rows: Tensor, num_rows: int) -> Tensor:
    """Return (num_rows + 1,): where each row's entries begin in the sorted (E,) `rows`, and where the last row's end."""
    return torch.searchsorted(rows, torch.arange(num_rows + 1, device=rows.device))


def adjacency(edges: Tensor, num_nodes: int, dtype: torch.dtype = torch.float32) -> SparseMatrix:
    """Return A of the undirected graph with these edges: symmetric, zeros and ones, with an empty diagonal.

    Edges may be given once or in both directions, or several times; loops from a node to itself are dropped, since
    `add_self_loops` gives one to each.

    Args:
        edges: (2, E) int64 node numbers.
    """
    edges = edges[:, edges[0] != edges[1]]
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    A = SparseMatrix(*edges, torch.ones(edges.shape[1], dtype=dtype), (num_nodes, num_nodes))
    return A.with_values(torch.ones_like(A.values))


def identity(num_nodes: int, dtype: torch.dtype = torch.float32) -> SparseMatrix:
    """Return the (N, N) identity: a graph without edges, in which every node hears only itself."""
    diagonal = torch.arange(num_nodes)
    return SparseMatrix(diagonal, diagonal, torch.ones(num_nodes, dtype=dtype), (num_nodes, num_nodes))


def add_self_loops(A: SparseMatrix) -> SparseMatrix:
    """Return A + I_N (equation 20)."""
    diagonal = torch.arange(A.shape[0], device=A.rows.device)
    ones = A.values.new_ones(A.shape[0])
    return SparseMatrix(torch.cat([A.rows, diagonal]), torch.cat([A.columns, diagonal]), torch.cat([A.values, ones]), A.shape)


def normalise(A: SparseMatrix, how: str = "symmetric") -> SparseMatrix:
    """Return A divided by the degrees D_ii = sum_j A_ij (equation 21); a row of zeros stays one.

    Args:
        how: "symmetric", D^-1/2 A D^-1/2 (equation 19), or "random_walk", D^-1 A, whose rows are means over neighbours.
    """
    degree = A.row_sums()
    if how == "symmetric":
        scale = torch.where(degree > 0, degree.rsqrt(), 0)
        return A.with_values(A.values * scale[A.rows] * scale[A.columns])
    if how == "random_walk":
        return A.with_values(A.values * torch.where(degree > 0, 1 / degree, 0)[A.rows])
    raise ValueError(f"normalisation is symmetric or random_walk, not {how}")


def distances(A: SparseMatrix, node: int) -> Tensor:
    """Return (N,) int64: how many hops each node is from `node`, by breadth-first search; -1 where no path leads."""
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
