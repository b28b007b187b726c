"""part3/gcn.py against the dense formula and PyTorch Geometric's GCNConv, in float64."""

import doctest

import pytest
import torch

import part3.gat
import part3.gcn
import part3.graph
from part3.gat import GAT
from part3.gcn import GCN, GCNLayer, drop
from part3.graph import SparseMatrix, add_self_loops, adjacency, distances, identity, normalise
from tests.part3.test_graph import random_graph


def layer_and_input(num_nodes=15, num_edges=30, d=5, n=4):
    A = random_graph(num_nodes, num_edges)
    layer = GCNLayer(d, n, torch.Generator().manual_seed(1)).double()
    torch.nn.init.normal_(layer.b)
    H = torch.randn(num_nodes, d, dtype=torch.float64, requires_grad=True)
    return A, layer, H


def gradients(output, *inputs):
    weights = torch.arange(output.numel(), dtype=torch.float64).view_as(output).sin()
    return torch.autograd.grad((weights * output).sum(), inputs)


@pytest.mark.parametrize("num_nodes, num_edges", [(15, 30), (4, 0), (1, 0)])
def test_sum_over_neighbours_sparse_product_and_dense_formula_are_equal(num_nodes, num_edges):
    A, layer, H = layer_and_input(num_nodes, num_edges)
    tilde = A.to_dense() + torch.eye(num_nodes)
    scale = torch.diag(tilde.sum(dim=1) ** -0.5)
    A_hat = normalise(add_self_loops(A))
    for found in (layer(A_hat, H), layer.pass_messages(A_hat, H)):
        dense = scale @ tilde @ scale @ H @ layer.W + layer.b
        torch.testing.assert_close(found, dense, rtol=0, atol=1e-12)
        for ours, theirs in zip(gradients(found, H, *layer.parameters()), gradients(dense, H, *layer.parameters())):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_edges", [0, 30])
def test_the_layer_is_pytorch_geometrics(num_edges):
    geometric = pytest.importorskip("torch_geometric.nn")
    A, layer, H = layer_and_input(num_edges=num_edges)
    theirs = geometric.GCNConv(5, 4).double()
    theirs.lin.weight = torch.nn.Parameter(layer.W.detach().t().clone())
    theirs.bias = torch.nn.Parameter(layer.b.detach())
    expected = theirs(H, torch.stack([A.columns, A.rows]))
    found = layer(normalise(add_self_loops(A)), H)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ours = gradients(found, H, layer.W, layer.b)
    library = gradients(expected, H, theirs.lin.weight, theirs.bias)
    for a, b in zip(ours, (library[0], library[1].t(), library[2])):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_sparse_features_give_what_dense_ones_give():
    A, layer, _ = layer_and_input()
    X = SparseMatrix(torch.arange(15), torch.arange(15) % 5, torch.rand(15, dtype=torch.float64), (15, 5))
    A_hat = normalise(add_self_loops(A))
    torch.testing.assert_close(layer(A_hat, X), layer(A_hat, X.to_dense()), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.pass_messages(A_hat, X), layer(A_hat, X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_after_L_layers_a_node_depends_on_nodes_within_L_hops_and_no_others(num_layers):
    """Question 3.1b: the Jacobian of a node's output is zero exactly beyond L hops."""
    A = random_graph(25, 28, seed=3)
    model = GCN([3, *[6] * (num_layers - 1), 2], generator=torch.Generator().manual_seed(0)).double().eval()
    for layer in model.layers:  # positive weights on positive input: no ReLU hides a path
        layer.W.data.abs_()
    features = torch.rand(25, 3, dtype=torch.float64)
    beyond = 0
    for node in range(25):
        jacobian = torch.autograd.functional.jacobian(
            lambda H, i=node: model(normalise(add_self_loops(A)), H)[i], features
        )
        depends = jacobian.abs().sum(dim=(0, 2)) > 0
        hops = distances(A, node)
        assert torch.equal(depends, (hops >= 0) & (hops <= num_layers))
        beyond += int((hops > num_layers).sum())
    assert beyond  # the graph is large enough for the test to mean something


def test_renumbering_the_nodes_renumbers_the_output():
    A, _, H = layer_and_input()
    model = GCN([5, 8, 3]).double().eval()
    order = torch.randperm(15)
    place = order.argsort()  # node i becomes node place[i]
    renumbered = adjacency(torch.stack([place[A.rows], place[A.columns]]), 15, torch.float64)
    expected = model(normalise(add_self_loops(A)), H)[order]
    torch.testing.assert_close(model(normalise(add_self_loops(renumbered)), H[order]), expected, rtol=0, atol=1e-12)


def test_dropout_is_off_in_evaluation_and_keeps_the_mean_in_training():
    A, _, H = layer_and_input()
    A_hat, model = normalise(add_self_loops(A)), GCN([5, 8, 3], dropout=0.5).double()
    assert not torch.equal(model(A_hat, H), model(A_hat, H))
    model.eval()
    assert torch.equal(model(A_hat, H), model(A_hat, H))
    torch.manual_seed(0)
    X = identity(20_000)
    for kept in (drop(X, 0.6, training=True).values, drop(torch.ones(20_000), 0.6, training=True)):
        assert kept.unique().tolist() == [0, pytest.approx(2.5)]
        assert kept.mean() == pytest.approx(1, abs=0.03)


def test_reset_parameters_draws_what_a_new_model_draws():
    for Model in (GCN, GAT):
        model = Model([5, 8, 3])
        torch.nn.init.normal_(model.layers[0].b)
        model.reset_parameters(torch.Generator().manual_seed(1))
        new = Model([5, 8, 3], generator=torch.Generator().manual_seed(1))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), new.parameters(), strict=True))


@pytest.mark.parametrize("module", [part3.graph, part3.gcn, part3.gat])
def test_the_docstrings_examples_run(module):
    results = doctest.testmod(module)
    assert results.attempted and not results.failed


@pytest.mark.parametrize("Model", [GCN, GAT])
def test_graph_and_features_that_do_not_match_are_refused(Model):
    edges, X = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.rand(4, 5)
    A, model = normalise(add_self_loops(adjacency(edges))), Model([5, 8, 3])
    assert model(A, X).shape == (4, 3)
    for features in (torch.rand(3, 5), torch.rand(4, 6), torch.rand(5), X.double(), identity(4)):
        with pytest.raises(ValueError, match=r"the features must be \(4, 5\) of torch\.float32, .*, not \("):
            model(A, features)
    strange = [X.long(), X > 0, X.tolist(), X.numpy(), None, "X", A.with_values(A.values.long())]
    for features in strange:
        with pytest.raises(
            ValueError, match=r"the features must be \(4, 5\) of torch\.float32, .*, not (\(4, \d\)|a \w+)"
        ):
            model(A, features)
    for graph, found in ((edges, r"Tensor \(2, 3\)"), (X, r"Tensor \(4, 5\)"), (A.to_dense(), r"Tensor \(4, 4\)")):
        with pytest.raises(ValueError, match=rf"the graph must be an \(N, N\) SparseMatrix, .* not a {found}"):
            model(graph, X)


def test_a_layer_prints_its_sizes():
    assert "GCNLayer(1433, 16)" in str(GCN([1433, 16, 7]))
