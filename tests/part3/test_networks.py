"""The networks by name: what they take, how far they see, and where their features are drawn."""

import pytest
import torch

from part3.graph import add_self_loops, adjacency, normalise
from part3.networks import build_model, principal_components, propagation_matrix

CHAIN = adjacency([(k, k + 1) for k in range(5)])


def test_the_matrix_that_each_model_takes():
    names = ("gcn", "gat", "gcnii", "mlp", "convolution", "attention")
    taken = {name: propagation_matrix(CHAIN, name, "symmetric").to_dense() for name in names}
    assert torch.equal(taken["mlp"], torch.eye(6))  # it uses no edges
    assert all(torch.equal(taken[name], CHAIN.to_dense()) for name in ("convolution", "attention"))
    A_hat = normalise(add_self_loops(CHAIN)).to_dense()
    assert all(torch.equal(taken[name], A_hat) for name in ("gcn", "gat", "gcnii"))


@pytest.mark.parametrize("name", ["gcn", "gat", "gcnii", "convolution", "attention"])
def test_num_layers_is_the_number_of_hops(name):
    """What one node knows after three layers changes nothing four hops away."""
    model = build_model(name, [6, 16, 16, 2], 0.0, 2, 1).eval()
    A, X = propagation_matrix(CHAIN, name, "symmetric"), torch.rand(6, 6)
    changed = (model(A, X) - model(A, torch.cat([X[:1] + 1, X[1:]]))).abs().sum(dim=1)
    assert (changed[:4] > 0).any() and not changed[4:].any()


def test_features_are_drawn_along_the_directions_in_which_they_vary_most():
    line = torch.arange(5.0)[:, None] * torch.tensor([[3.0, 4.0, 0.0]])  # 5 apart
    places = principal_components(line + 7)
    torch.testing.assert_close(places[:, 0].abs(), torch.tensor([10.0, 5.0, 0.0, 5.0, 10.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(places[:, 1], torch.zeros(5), atol=1e-4, rtol=0)
    assert principal_components(line[:, :1]).shape == (5, 2)
