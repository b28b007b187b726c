"""part3/gat.py against PyTorch Geometric's GATConv, in float64."""

import pytest
import torch

from part3.gat import GAT, GATLayer, softmax_within
from part3.graph import add_self_loops, adjacency
from tests.part3.test_gcn import gradients
from tests.part3.test_graph import random_graph


@pytest.mark.parametrize("heads, concatenate", [(1, True), (3, True), (3, False)])
@pytest.mark.parametrize("num_edges", [0, 30])
def test_the_layer_is_pytorch_geometrics(heads, concatenate, num_edges):
    geometric = pytest.importorskip("torch_geometric.nn")
    A, H = random_graph(15, num_edges), torch.randn(15, 5, dtype=torch.float64, requires_grad=True)
    layer = GATLayer(5, 4, heads, concatenate).double()
    torch.nn.init.normal_(layer.b)
    theirs = geometric.GATConv(5, 4, heads, concatenate).double()
    theirs.lin.weight.data = layer.W.detach().t().clone()
    theirs.att_dst.data, theirs.att_src.data = layer.a_receiver.detach()[None], layer.a_sender.detach()[None]
    theirs.bias.data = layer.b.detach()
    found, expected = layer(add_self_loops(A), H), theirs(H, torch.stack([A.columns, A.rows]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ours = gradients(found, H, layer.W, layer.a_receiver, layer.a_sender, layer.b)
    library = gradients(expected, H, theirs.lin.weight, theirs.att_dst, theirs.att_src, theirs.bias)
    for a, b in zip(ours, (library[0], library[1].t(), library[2][0], library[3][0], library[4])):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_attention_sums_to_one_over_the_neighbours_of_each_node():
    A = add_self_loops(random_graph(15, 30))
    layer = GATLayer(5, 4, heads=2).double()
    alpha = layer.attention(A, torch.randn(15, 2, 4, dtype=torch.float64))
    assert (alpha > 0).all()
    for k in range(2):
        torch.testing.assert_close(A.with_values(alpha[:, k]).row_sums(), torch.ones(15, dtype=torch.float64))


def test_the_softmax_survives_large_scores():
    A = adjacency(torch.tensor([[0, 0], [1, 2]]), 3)
    scores = torch.tensor([[1e4], [1e4], [-1e4], [1e4]])  # rows 0, 0, 1, 2
    assert softmax_within(A.rows, scores, A.shape[0]).flatten().tolist() == [0.5, 0.5, 1.0, 1.0]


def test_a_node_that_receives_no_message_gets_the_bias():
    layer = GATLayer(5, 4, heads=2)
    torch.nn.init.normal_(layer.b)
    out = layer(adjacency(torch.tensor([[0], [1]]), 3), torch.randn(3, 5))
    assert torch.equal(out[2], layer.b) and not torch.equal(out[0], layer.b)


def test_gradients_by_finite_differences():
    A = add_self_loops(random_graph(6, 8))
    layer = GATLayer(3, 2, heads=2).double()
    H = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda H, *_: layer(A, H), (H, *layer.parameters()))


def test_the_network_has_the_papers_sizes_and_drops_in_training_only():
    model = GAT([1433, 8, 7], heads=8)
    assert sum(p.numel() for p in model.parameters()) == 1433 * 64 + 2 * 64 + 64 + 64 * 7 + 2 * 7 + 7
    assert "GATLayer(1433, 8, heads=8, concatenate=True)" in str(model)
    A, H = add_self_loops(random_graph(15, 30)).to(torch.float32), torch.rand(15, 5)
    model = GAT([5, 4, 3], heads=2, output_heads=2)
    assert model(A, H).shape == (15, 3) and not torch.equal(model(A, H), model(A, H))
    model.eval()
    assert torch.equal(model(A, H), model(A, H))
