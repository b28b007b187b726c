"""part3/graph_cnn.py against loops over nodes and PyTorch Geometric's SAGEConv and GATConv, in float64."""

import doctest
import re

import pytest
import torch

import part3.graph_cnn
from part3.gat import GATLayer
from part3.graph import SparseMatrix, add_self_loops, adjacency
from part3.graph_cnn import (
    GraphAttention,
    GraphNetwork,
    MatrixGraphConvolution,
    MessageGraphConvolution,
    edge_index_of,
)
from tests.part3.test_gcn import gradients

N, EXACT = 9, {"rtol": 0, "atol": 1e-10}
RANDOM = torch.randint(N - 2, (2, 20), generator=torch.Generator().manual_seed(0))  # nodes 7 and 8 are isolated
GRAPHS = {
    "random, with loops and repeated edges": RANDOM,
    "one edge, in one direction": torch.tensor([[3], [5]]),
    "the same edge three times, and once another": torch.tensor([[3, 3, 3, 1], [5, 5, 5, 5]]),
    "no edges": torch.empty(2, 0, dtype=torch.int64),
}
LAYERS = (MessageGraphConvolution, MatrixGraphConvolution, GraphAttention)


def made(Layer, seed=0):
    return Layer(4, 3, torch.Generator().manual_seed(seed)).double()


def features():
    return torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)


@pytest.fixture(params=GRAPHS)
def edge_index(request):
    return GRAPHS[request.param]


@pytest.mark.parametrize("Layer", [MessageGraphConvolution, MatrixGraphConvolution])
def test_the_convolution_is_its_equation_at_every_node(Layer, edge_index):
    layer, x = made(Layer), features()
    rows = []
    for v in range(N):
        neighbours = [u for u, receiver in edge_index.t().tolist() if receiver == v]
        mean = sum(x[u] for u in neighbours) / len(neighbours) if neighbours else torch.zeros_like(x[v])
        rows.append(layer.W @ mean + layer.B @ x[v])
    expected, found = torch.stack(rows), layer(x, edge_index)
    torch.testing.assert_close(found, expected, **EXACT)
    inputs = (x, layer.W, layer.B)
    for ours, theirs in zip(gradients(found, *inputs), gradients(expected, *inputs)):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("Layer", [MessageGraphConvolution, MatrixGraphConvolution])
def test_the_convolution_is_pytorch_geometrics(Layer, edge_index):
    geometric = pytest.importorskip("torch_geometric.nn")
    layer, x = made(Layer), features()
    theirs = geometric.SAGEConv(4, 3, aggr="mean", root_weight=True, bias=False).double()
    theirs.lin_l.weight.data, theirs.lin_r.weight.data = layer.W.detach().clone(), layer.B.detach().clone()
    found, expected = layer(x, edge_index), theirs(x, edge_index)
    torch.testing.assert_close(found, expected, **EXACT)
    library = gradients(expected, x, theirs.lin_l.weight, theirs.lin_r.weight)
    for a, b in zip(gradients(found, x, layer.W, layer.B), library):
        torch.testing.assert_close(a, b, **EXACT)


def test_attention_is_pytorch_geometrics(edge_index):
    geometric = pytest.importorskip("torch_geometric.nn")
    layer, x = made(GraphAttention), features()
    theirs = geometric.GATConv(4, 3, heads=1, bias=False).double()
    theirs.lin.weight.data = layer.W.detach().clone()
    a_receiver, a_sender = layer.a.detach().clone().chunk(2)
    theirs.att_dst.data, theirs.att_src.data = a_receiver[None, None], a_sender[None, None]
    found, expected = layer(x, edge_index), theirs(x, edge_index)
    torch.testing.assert_close(found, expected, **EXACT)
    library = gradients(expected, x, theirs.lin.weight, theirs.att_dst, theirs.att_src)
    ours = gradients(found, x, layer.W, layer.a)
    for a, b in zip((*ours[:2], *ours[2].chunk(2)), (*library[:2], library[2].flatten(), library[3].flatten())):
        torch.testing.assert_close(a, b, **EXACT)


def test_attention_is_one_head_of_the_papers_layer():
    A, layer, x = adjacency(RANDOM, N, torch.float64), made(GraphAttention), features()
    paper = GATLayer(4, 3).double()
    paper.W.data = layer.W.detach().t().clone()
    paper.a_receiver.data, paper.a_sender.data = layer.a.detach().reshape(2, 1, 3)
    torch.testing.assert_close(layer(x, edge_index_of(A)), paper(add_self_loops(A), x), **EXACT)


def test_what_attention_is_made_of(edge_index):
    layer, x = made(GraphAttention), features()
    out, made_of = layer(x, edge_index, debug=True)
    torch.testing.assert_close(out, layer(x, edge_index), rtol=0, atol=0)
    sender, receiver = made_of["edge_index"]
    between = edge_index[:, edge_index[0] != edge_index[1]]
    assert torch.equal(made_of["edge_index"], torch.cat([between, torch.arange(N).repeat(2, 1)], dim=1))
    Wh = x @ layer.W.t()
    torch.testing.assert_close(made_of["messages"], Wh[sender], **EXACT)
    for k, (u, v) in enumerate(zip(sender.tolist(), receiver.tolist())):
        e = torch.nn.functional.leaky_relu(layer.a @ torch.cat([Wh[v], Wh[u]]), 0.2)
        torch.testing.assert_close(made_of["edge_weights"][k], e.exp(), **EXACT)
    sums = torch.stack([made_of["edge_weights"][receiver == v].sum() for v in range(N)])
    torch.testing.assert_close(made_of["softmax_weights"], sums, **EXACT)
    torch.testing.assert_close(made_of["attention"], made_of["edge_weights"] / sums[receiver], **EXACT)


def test_large_scores_do_not_overflow():
    layer, x = made(GraphAttention), features()
    with torch.no_grad():
        assert layer(1e6 * x, RANDOM).isfinite().all()


def test_the_matrices_are_those_of_the_equation():
    layer, edges = made(MatrixGraphConvolution), torch.tensor([[0, 0, 1, 2], [1, 1, 1, 0]])
    A = layer.make_adjacency_matrix(edges, 4)
    assert A.tolist() == [[0, 0, 1, 0], [2, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # row: where edges lead to
    D_inverse = layer.make_inverted_degree_matrix(edges, 4)
    assert torch.equal(D_inverse, torch.diag(torch.tensor([1, 1 / 3, 1, 1], dtype=torch.float64)))


def test_message_and_update_make_the_convolution():
    layer, x = made(MessageGraphConvolution), features()
    messages = MessageGraphConvolution.message(x, RANDOM)
    assert messages.shape == x.shape and not messages[-2:].any()  # no edge leads to the last two
    torch.testing.assert_close(layer.update(x, messages), layer(x, RANDOM), rtol=0, atol=0)


@pytest.mark.parametrize("Layer", LAYERS)
def test_edges_are_taken_in_every_form(Layer):
    layer, x = made(Layer), features()
    for edges in (RANDOM.int(), RANDOM.numpy(), [tuple(pair) for pair in RANDOM.t().tolist()]):
        torch.testing.assert_close(layer(x, edges), layer(x, RANDOM), rtol=0, atol=0)


@pytest.mark.parametrize("Layer", LAYERS)
@pytest.mark.parametrize(
    ("x", "edge_index", "message"),
    [
        (torch.ones(9, 5), RANDOM, "the features x must be (N, 4) of torch.float64, not (9, 5) of torch.float32"),
        (torch.ones(9, 4), RANDOM, "the features x must be (N, 4) of torch.float64, not (9, 4) of torch.float32"),
        (torch.ones(4).double(), RANDOM, "the features x must be (N, 4) of torch.float64, not (4,)"),
        ([[1.0] * 4], RANDOM, "the features x must be (N, 4) of torch.float64, not a list"),
        (torch.ones(9, 4).double(), RANDOM.t(), "not a (20, 2) tensor of int64: edges.t() is (2, E)"),
        (torch.ones(9, 4).double(), RANDOM.double(), "edges must be integers, not float64"),
        (torch.ones(6, 4).double(), RANDOM, "an edge names node 6, but num_nodes is 6: nodes are numbered from 0"),
        (torch.ones(9, 4).double(), -RANDOM, "an edge names node -6: nodes are numbered from 0"),
    ],
)
def test_features_and_edges_that_do_not_match_are_refused(Layer, x, edge_index, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        made(Layer)(x, edge_index)


@pytest.mark.parametrize("Layer", LAYERS)
def test_the_network_is_its_layers_with_relu_between(Layer):
    A, x = adjacency(RANDOM, N, torch.float64, directed=True), features().detach()
    network = GraphNetwork(Layer, [4, 5, 3]).double().eval()
    first, second = network.layers
    assert str(second) == f"{Layer.__name__}(5, 3)"
    edges = RANDOM[:, RANDOM[0] != RANDOM[1]].unique(dim=1)  # adjacency drops loops and what is repeated
    hidden = torch.relu(first(x, edges))
    torch.testing.assert_close(network.embed(A, x), hidden, **EXACT)
    torch.testing.assert_close(network(A, x), second(hidden, edges), **EXACT)
    sparse = SparseMatrix(*x.nonzero().t(), x.flatten(), (N, 4))
    torch.testing.assert_close(network(A, sparse), network(A, x), **EXACT)
    network.train()
    assert not torch.equal(network(A, x), network(A, x))  # dropout


@pytest.mark.parametrize("Layer", LAYERS)
def test_weights_are_drawn_from_the_generator(Layer):
    network = GraphNetwork(Layer, [4, 5, 3])
    network.reset_parameters(torch.Generator().manual_seed(1))
    new = GraphNetwork(Layer, [4, 5, 3], generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), new.parameters(), strict=True))
    groups = network.parameter_groups(0.3)
    assert [group["weight_decay"] for group in groups] == [0.3, 0]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_the_docstrings_example_runs():
    results = doctest.testmod(part3.graph_cnn)
    assert results.attempted and not results.failed
