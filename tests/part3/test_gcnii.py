"""part3/gcnii.py against its equations and PyTorch Geometric's GCN2Conv, in float64."""

import math

import pytest
import torch

from part3.gcnii import GCNII
from part3.graph import SparseMatrix, add_self_loops, normalise
from tests.part3.test_gcn import gradients
from tests.part3.test_graph import random_graph


def network_and_input(num_layers=3):
    A = random_graph(15, 30)
    model = GCNII(5, 4, 3, num_layers, generator=torch.Generator().manual_seed(0)).double().eval()
    for bias in (model.b_in, model.b_out):
        torch.nn.init.normal_(bias)
    return A, normalise(add_self_loops(A)), model, torch.randn(15, 5, dtype=torch.float64, requires_grad=True)


def test_the_network_is_its_equations():
    _, A_hat, model, X = network_and_input()
    H = H_0 = torch.relu(X @ model.W_in + model.b_in)
    for layer in (1, 2, 3):
        beta, one = math.log(0.5 / layer + 1), torch.eye(4, dtype=torch.float64)
        mixed = 0.9 * A_hat.to_dense() @ H + 0.1 * H_0
        H = torch.relu(mixed @ ((1 - beta) * one + beta * model.W[layer - 1]))
    torch.testing.assert_close(model.embed(A_hat, X), H, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(A_hat, X), H @ model.W_out + model.b_out, rtol=0, atol=1e-12)


def test_its_layers_are_pytorch_geometrics():
    geometric = pytest.importorskip("torch_geometric.nn")
    A, A_hat, model, X = network_and_input()
    edge_index = torch.stack([A.columns, A.rows])
    H = H_0 = torch.relu(X @ model.W_in + model.b_in)
    for layer in (1, 2, 3):
        theirs = geometric.GCN2Conv(4, alpha=0.1, theta=0.5, layer=layer).double()
        theirs.weight1 = model.W[layer - 1]
        H = torch.relu(theirs(H, H_0, edge_index))
    found = model.embed(A_hat, X)
    torch.testing.assert_close(found, H, rtol=0, atol=1e-12)
    inputs = (X, model.W_in, *model.W)
    for a, b in zip(gradients(found, *inputs), gradients(H, *inputs)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_weights_are_drawn_anew_and_all_decay():
    _, A_hat, model, _ = network_and_input()
    assert sum(weight.numel() for weight in model.parameters()) == 5 * 4 + 4 + 3 * 4 * 4 + 4 * 3 + 3
    (group,) = model.parameter_groups(0.3)
    assert group["weight_decay"] == 0.3 and len(group["params"]) == 4 + 3
    model.reset_parameters(torch.Generator().manual_seed(1))
    new = GCNII(5, 4, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), new.parameters(), strict=True))
    X = SparseMatrix(torch.arange(15), torch.arange(15) % 5, torch.rand(15, dtype=torch.float64), (15, 5))
    torch.testing.assert_close(model(A_hat, X), model(A_hat, X.to_dense()), rtol=0, atol=1e-12)
    model.train()
    assert not torch.equal(model(A_hat, X), model(A_hat, X))  # dropout


def test_graph_and_features_that_do_not_match_are_refused():
    _, A_hat, model, X = network_and_input()
    with pytest.raises(ValueError, match=r"the features must be \(15, 5\) of torch\.float64"):
        model(A_hat, X[:, :4])
    with pytest.raises(ValueError, match=r"the graph must be an \(N, N\) SparseMatrix"):
        model(A_hat.to_dense(), X)
