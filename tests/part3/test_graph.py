"""part3/graph.py against dense matrices and networkx, in float64."""

import re

import numpy as np
import pytest
import torch

from part3.graph import SparseMatrix, add_self_loops, adjacency, distances, identity, laplacian, normalise


def random_graph(num_nodes, num_edges, seed=0):
    edges = torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(seed))
    return adjacency(edges, num_nodes, torch.float64)


@pytest.mark.parametrize("num_nodes, num_edges", [(1, 0), (5, 0), (6, 4), (30, 100)])
def test_products_and_their_gradients_equal_the_dense_ones(num_nodes, num_edges):
    A = random_graph(num_nodes, num_edges)
    values = torch.rand(len(A.values), dtype=torch.float64, requires_grad=True)
    X = torch.randn(num_nodes, 3, dtype=torch.float64, requires_grad=True)
    dense = A.with_values(values).to_dense()
    G = torch.randn(num_nodes, 3, dtype=torch.float64)
    ours, theirs = A.with_values(values) @ X, dense @ X
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for found, expected in zip(torch.autograd.grad(ours, [values, X], G), torch.autograd.grad(theirs, [values, X], G)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_matrix_that_is_not_square_and_its_transpose():
    A = SparseMatrix(torch.tensor([1, 0, 1]), torch.tensor([3, 0, 2]), torch.tensor([1.0, 2.0, 3.0]), (2, 4))
    assert A.to_dense().tolist() == [[2, 0, 0, 0], [0, 0, 3, 1]]
    X = torch.randn(4, 2, requires_grad=True)
    torch.testing.assert_close(A @ X, A.to_dense() @ X)
    (A @ X).sum().backward()
    torch.testing.assert_close(X.grad, A.to_dense().t() @ torch.ones(2, 2))
    assert A.t().shape == (4, 2) and torch.equal(A.t().to_dense(), A.to_dense().t())


def test_entries_at_the_same_place_are_added():
    A = SparseMatrix(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1]), torch.tensor([1.0, 2.0, 4.0]), (2, 2))
    assert A.to_dense().tolist() == [[0, 4], [3, 0]] and len(A.values) == 2


@pytest.mark.parametrize("node", [-1, 2])
def test_an_edge_to_a_node_that_does_not_exist_is_refused(node):
    for edges in ([[0], [node]], [[node], [node]]):  # also a loop, which would be dropped
        with pytest.raises(ValueError, match=f"an edge names node {node}.*: nodes are numbered from 0"):
            adjacency(torch.tensor(edges), 2)
    with pytest.raises(ValueError, match=f"indices must lie between 0 and 1, not {node} to {node}"):
        SparseMatrix(torch.tensor([0]), torch.tensor([node]), torch.ones(1), (2, 2))


INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_node_numbers_of_any_integer_type_are_the_same_graph(dtype, kind):
    """In the type itself row * columns + column would overflow."""
    largest = min(np.iinfo(dtype).max, 60_000)
    rows, columns = np.array([0, largest, largest - 1]), np.array([largest, 1, largest])
    shape = (largest + 1, largest + 1)
    expected = SparseMatrix(torch.from_numpy(rows), torch.from_numpy(columns), torch.tensor([1.0, 2.0, 3.0]), shape)
    rows, columns = rows.astype(dtype), columns.astype(dtype)
    edges = np.stack([rows, columns])
    if kind == "tensor":
        rows, columns, edges = torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(edges)
    found = SparseMatrix(rows, columns, torch.tensor([1.0, 2.0, 3.0]), shape)
    assert torch.equal(found.rows, expected.rows) and torch.equal(found.columns, expected.columns)
    assert torch.equal(found.values, expected.values)
    both = adjacency(edges)
    assert both.rows.tolist() == [0, 1, largest - 1, largest, largest, largest]
    assert both.columns.tolist() == [largest, largest, largest, 0, 1, largest - 1]


def test_parts_of_a_scipy_matrix_are_taken():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    random = np.random.default_rng(0)
    entries, rows, columns = random.random(300), random.integers(70_000, size=300), random.integers(50_000, size=300)
    theirs = scipy_sparse.coo_matrix((entries, (rows, columns)), (70_000, 50_000))
    assert theirs.row.dtype == np.int32
    ours = SparseMatrix(theirs.row, theirs.col, theirs.data, theirs.shape)
    X = random.random((50_000, 2))
    np.testing.assert_allclose((ours @ torch.from_numpy(X)).numpy(), theirs @ X)


@pytest.mark.parametrize(
    ("rows", "columns", "shape", "message"),
    [
        (torch.tensor([0.0]), torch.tensor([0]), (1, 1), "rows must be integers, not float32"),
        (torch.tensor([0]), torch.tensor([True]), (1, 1), "columns must be integers, not bool"),
        (torch.tensor([0]), torch.tensor([0j]), (1, 1), "columns must be integers, not complex64"),
        (np.array([0.0]), np.array([0]), (1, 1), "rows must be integers below 2^63, not float64"),
        (np.array([0]), np.array([False]), (1, 1), "columns must be integers below 2^63, not bool"),
        (np.array([2**63], dtype=np.uint64), np.array([0]), (1, 1), "rows must be integers below 2^63, not uint64"),
        (["a"], [0], (1, 1), "rows must be integers below 2^63, not <U1"),
        (None, [0], (1, 1), "rows must be integers below 2^63, not object"),
        ([[0], [0, 1]], [0], (1, 1), "rows must be a tensor or an array of integers, not nested lists"),
        (0, [0], (1, 1), "must be (E,) each, not (), (1,), (1,)"),
        ([[0]], [[0]], (1, 1), "must be (E,) each, not (1, 1), (1, 1), (1,)"),
        ([0], [0], (1,), "the shape must be the numbers of rows and columns, not (1,)"),
        ([0], [0], (1, -1), "the number of columns must be an integer of at least 0, not -1"),
        ([0], [0], (1.0, 1), "the number of rows must be an integer of at least 0, not 1.0"),
        ([0], [0], (0, 1), "row indices must lie between 0 and -1, not 0 to 0"),
        ([0], [1], (1, 1), "column indices must lie between 0 and 0, not 1 to 1"),
    ],
)
def test_parts_of_a_matrix_that_make_none_are_refused(rows, columns, shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SparseMatrix(rows, columns, torch.ones(1), shape)


def test_matrices_without_entries_or_columns():
    empty = SparseMatrix([], [], torch.ones(0), (3, 0))
    assert empty.to_dense().shape == (3, 0) and (empty @ torch.ones(0, 2)).tolist() == [[0, 0]] * 3


def test_directed_edges_lead_from_the_first_node_to_the_second():
    A = adjacency([(0, 1), (1, 2), (1, 2), (2, 2)], directed=True)
    assert A.to_dense().nonzero().tolist() == [[1, 0], [2, 1]]
    both = adjacency([(0, 1), (1, 2)]).to_dense()
    assert torch.equal(A.to_dense() + A.to_dense().t(), both)


def test_edges_are_a_2_by_E_tensor_or_array_or_pairs():
    edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
    expected = adjacency(edges, 4).to_dense()
    pairs = [(0, 1), (1, 2), (2, 3)]
    for given in (edges, edges.int(), edges.numpy(), pairs, [list(pair) for pair in pairs], iter(pairs)):
        assert torch.equal(adjacency(given).to_dense(), expected)
    assert adjacency([], 3).to_dense().tolist() == torch.zeros(3, 3).tolist()
    two = [(0, 1), (2, 3)]  # as a tensor these pairs are another graph: that of the edges 0-2 and 1-3
    assert adjacency(two).to_dense().nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (
            torch.tensor([[0, 1], [1, 2], [2, 3]]),
            r"edge_index, .*, not a \(3, 2\) tensor of int64: edges\.t\(\) is \(2, E\)",
        ),
        (torch.tensor([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]), "edges must be integers, not float32"),
        (np.array([[0.0, 1.0], [1.0, 2.0]]), r"edges must be integers below 2\^63, not float64"),
        (np.array([[0, 1], [1, 2], [2, 3]]), r"not a \(3, 2\) tensor of int64: edges\.t\(\) is \(2, E\)"),
        (np.array([["a", "b"], ["c", "d"]]), r"edges must be integers below 2\^63, not <U1"),
        (np.array([[0, 1], [1, None]]), r"edges must be integers below 2\^63, not object"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), r"not a \(1, 2, 3\) tensor of int64$"),
        (torch.tensor(3), r"not a \(\) tensor of int64$"),
        (torch.tensor([[-1], [0]]), "an edge names node -1: nodes are numbered from 0"),
        (
            adjacency([(0, 1)]),
            r"not a SparseMatrix: of a matrix A, torch\.stack\(\[A\.columns, A\.rows\]\) is \(2, E\)",
        ),
        (None, "or a list of pairs, not None"),
        (5, "or a list of pairs, not 5"),
        ("01", "an edge must be a pair of node numbers, not '0'"),
        (["01"], "an edge must be a pair of node numbers, not '01'"),
        ({0: 1}, "an edge must be a pair of node numbers, not 0"),
        ([0, 1], "an edge must be a pair of node numbers, not 0"),
        ([(0,)], r"an edge must be a pair of node numbers, not \(0,\)"),
        ([(0, None)], r"an edge must be a pair of node numbers, not \(0, None\)"),
        ([(True, False)], r"an edge must be a pair of node numbers, not \(True, False\)"),
        ([[(0, 1)], [(1, 2)]], r"an edge must be a pair of node numbers, not \[\(0, 1\)\]"),
        ([(0, 2**63)], "an edge must be a pair of node numbers, not"),
        ([(0, -1)], "an edge names node -1"),
        (torch.tensor([0, 1]), r"not a \(2,\) tensor of int64$"),
        (torch.ones(2, 3, dtype=torch.bool), "edges must be integers, not bool"),
        ([[0, 1, 2], [1, 2, 3]], r"an edge must be a pair of node numbers, not \[0, 1, 2\]"),
        ([("Ann", "Bob")], r"an edge must be a pair of node numbers, not \('Ann', 'Bob'\)"),
        ([(0, 1.5)], r"an edge must be a pair of node numbers, not \(0, 1\.5\)"),
        ([], "of a graph without edges num_nodes must be given"),
    ],
)
def test_other_edges_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        adjacency(edges)


def test_a_scipy_matrix_is_not_its_edges():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    A = adjacency([(0, 1), (1, 3)])
    theirs = scipy_sparse.csr_matrix(A.to_dense().numpy())
    with pytest.raises(
        ValueError, match=r"not a csr_matrix: of a matrix A, numpy\.array\(A\.nonzero\(\)\) is \(2, E\)"
    ):
        adjacency(theirs)
    assert torch.equal(adjacency(np.array(theirs.nonzero())).to_dense(), A.to_dense())


@pytest.mark.parametrize(
    ("num_nodes", "message"),
    [
        (2, "an edge names node 2, but num_nodes is 2: nodes are numbered from 0"),
        (0, "an edge names node 2, but num_nodes is 0"),
        (-1, "num_nodes must be an integer of at least 0, not -1"),
        (3.0, "num_nodes must be an integer of at least 0, not 3.0"),
        ("3", "num_nodes must be an integer of at least 0, not '3'"),
        (True, "num_nodes must be an integer of at least 0, not True"),
        (torch.float64, "num_nodes must be an integer of at least 0, not torch.float64"),
    ],
)
def test_other_numbers_of_nodes_are_refused(num_nodes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        adjacency([(0, 1), (1, 2)], num_nodes)


def test_a_number_of_nodes_may_be_numpy_s():
    assert adjacency([(0, 1)], np.int32(4)).shape == (4, 4)
    with pytest.raises(ValueError, match="num_nodes must be an integer of at least 0, not -2"):
        identity(-2)


@pytest.mark.parametrize("how", ["symmetric", "random_walk"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_degrees_that_are_none_are_refused(how, value):
    A = adjacency([(0, 1), (1, 2)])
    with pytest.raises(ValueError, match=rf"the degrees .* must be finite and at least 0, not {value}"):
        normalise(A.with_values(torch.tensor([1.0, 1.0, 0.0, value])), how)
    with pytest.raises(ValueError, match=r"the adjacency must be \(N, N\), not \(1, 2\)"):
        normalise(SparseMatrix([0], [1], torch.ones(1), (1, 2)), how)


def test_distances_from_a_node_that_does_not_exist_are_refused():
    for node in (-1, 3, 1.0, "a"):
        with pytest.raises(ValueError, match="the node must lie between 0 and 2"):
            distances(adjacency([(0, 1), (1, 2)]), node)


def test_parts_and_products_that_do_not_match_are_refused():
    A = adjacency([(0, 1), (1, 2)])
    with pytest.raises(ValueError, match=r"must be \(E,\) each, not \(2,\), \(1,\), \(2,\)"):
        SparseMatrix(torch.tensor([0, 1]), torch.tensor([1]), torch.ones(2), (2, 2))
    with pytest.raises(ValueError, match=r"a \(3, 3\) matrix cannot be multiplied by \(4, 2\)"):
        A @ torch.rand(4, 2)
    with pytest.raises(ValueError, match=r"holds torch\.float32, not torch\.float64: take A\.to\(torch\.float64\)"):
        A @ torch.rand(3, 2, dtype=torch.float64)


def test_duplicate_edges_both_directions_and_loops_count_once_or_not():
    A = adjacency(torch.tensor([[0, 1, 0, 2, 3], [1, 0, 1, 2, 2]]), 5)
    expected = torch.zeros(5, 5)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = 1
    assert torch.equal(A.to_dense(), expected)


def test_normalisations_are_equations_19_to_21():
    A = random_graph(12, 20)
    tilde = A.to_dense() + torch.eye(12)  # equation 20
    D = torch.diag(tilde.sum(dim=1))  # equation 21
    torch.testing.assert_close(normalise(add_self_loops(A)).to_dense(), D.inverse().sqrt() @ tilde @ D.inverse().sqrt())
    random_walk = normalise(add_self_loops(A), "random_walk").to_dense()
    torch.testing.assert_close(random_walk, D.inverse() @ tilde)
    torch.testing.assert_close(random_walk.sum(dim=1), torch.ones(12, dtype=torch.float64))
    with pytest.raises(ValueError, match="row"):
        normalise(A, "row")


@pytest.mark.parametrize("how", ["symmetric", "random_walk"])
def test_an_isolated_node_receives_its_own_message_or_none(how):
    A = adjacency(torch.tensor([[0], [1]]), 3)
    assert normalise(add_self_loops(A), how).to_dense()[2].tolist() == [0, 0, 1]
    assert normalise(A, how).to_dense()[2].tolist() == [0, 0, 0]
    assert identity(3).to_dense().tolist() == torch.eye(3).tolist()


def test_the_laplacian_is_networkx_s_and_adds_up_differences_to_neighbours():
    networkx = pytest.importorskip("networkx")
    A, X = random_graph(12, 20), torch.randn(12, 3, dtype=torch.float64)
    L, graph = laplacian(A), networkx.from_numpy_array(A.to_dense().numpy())
    np.testing.assert_array_equal(L.to_dense().numpy(), networkx.laplacian_matrix(graph).toarray())
    differences = torch.stack([(A.to_dense()[i][:, None] * (X[i] - X)).sum(dim=0) for i in range(12)])
    torch.testing.assert_close(L @ X, differences, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"the adjacency must be \(N, N\), not \(1, 2\)"):
        laplacian(SparseMatrix([0], [1], torch.ones(1), (1, 2)))


def test_distances_are_those_of_networkx():
    networkx = pytest.importorskip("networkx")
    A = random_graph(40, 45, seed=1)
    graph = networkx.from_numpy_array(A.to_dense().numpy())
    assert networkx.number_connected_components(graph) > 1
    for node in range(40):
        expected = networkx.single_source_shortest_path_length(graph, node)
        assert distances(A, node).tolist() == [expected.get(other, -1) for other in range(40)]


def test_moving_keeps_the_matrix():
    A = random_graph(6, 8)
    assert torch.equal(A.to(torch.float32).to_dense(), A.to_dense().float())
    assert torch.equal(A.to(torch.device("cpu")).to_dense(), A.to_dense())
