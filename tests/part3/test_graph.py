"""part3/graph.py against dense matrices and networkx, in float64."""

import pytest
import torch

from part3.graph import SparseMatrix, add_self_loops, adjacency, distances, identity, normalise


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
    with pytest.raises(ValueError, match=f"indices must lie between 0 and 1, not {min(node, 0)} to {max(node, 0)}"):
        adjacency(torch.tensor([[0], [node]]), 2)


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
        (torch.tensor([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]), r"not a \(2, 3\) tensor of float32$"),
        (torch.tensor([0, 1]), r"not a \(2,\) tensor of int64$"),
        (torch.ones(2, 3, dtype=torch.bool), r"not a \(2, 3\) tensor of bool$"),
        ([[0, 1, 2], [1, 2, 3]], r"an edge must be a pair of node numbers, not \[0, 1, 2\]"),
        ([("Ann", "Bob")], r"an edge must be a pair of node numbers, not \('Ann', 'Bob'\)"),
        ([(0, 1.5)], r"an edge must be a pair of node numbers, not \(0, 1\.5\)"),
        ([], "of a graph without edges num_nodes must be given"),
    ],
)
def test_other_edges_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        adjacency(edges)


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
