"""The MLP depends on the atoms' numbers, the GNN does not; its blocks are computed again by hand."""

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("torch_geometric", reason='pip install -e ".[molecules]"')
pytest.importorskip("rdkit", reason='pip install -e ".[molecules]"')

import networkx as nx
from torch_geometric.data import Batch, Data
from torch_geometric.nn import MFConv, RGCNConv

from part3.qm9.baselines import baseline_losses, counts, fit_counts
from part3.qm9.data import FLAT_INPUT_DIM, get_labels, get_mlp_features, split_and_scale
from part3.qm9.molecules import Molecules, ScaledMolecules
from part3.qm9.networks import GNN, MLP, ring_walks
from part3.qm9.sources import read_built_in, read_table
from part3.qm9.train import permute_indices

KINDS = [{}, {"residual": True}, {"counts": True}, {"max_ring": 6}, {"residual": True, "counts": True, "max_ring": 6}]
SMILES = ["C", "O=C=O", "c1ccccc1C#N", "C1CC1CO", "[H][H]", "FC1=CN2CC2=C1"]


def batch_of(*smiles):
    lines = "\n".join(["smiles,g4mp2_atom", *(f"{text},{-1 - k / 10}" for k, text in enumerate(smiles)), ""])
    molecules = ScaledMolecules(Molecules(**read_table(lines.encode(), "table")["molecules"]), 0.0, 1.0)
    batch = molecules.batch(torch.arange(len(molecules)))
    batch.x, batch.edge_attr, batch.y = batch.x.double(), batch.edge_attr.double(), batch.y.double()
    return batch


def gnn(num_blocks=3, n_hidden=16, **options):
    """Return a network in float64 with no weight at zero, so that every part contributes."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        network = GNN(5, 4, n_hidden, 1, num_blocks, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("options", KINDS)
def test_the_gnn_does_not_see_how_atoms_are_numbered(options):
    network, batch = gnn(**options), batch_of(*SMILES)
    before = network.predict(batch)
    for seed in range(5):
        permuted = permute_indices(batch, torch.Generator().manual_seed(seed))
        assert not torch.equal(permuted.edge_index, batch.edge_index)
        torch.testing.assert_close(network.predict(permuted), before, rtol=1e-10, atol=1e-10)


def test_the_mlp_does():
    torch.manual_seed(0)
    network, batch = MLP(FLAT_INPUT_DIM, [32, 16], 1).double(), batch_of(*SMILES)
    change = (network.predict(permute_indices(batch, torch.Generator().manual_seed(0))) - network.predict(batch)).abs()
    assert (change[[0, 1, 2, 3, 5]] > 1e-4).all()


@pytest.mark.parametrize("options", KINDS)
def test_a_molecule_alone_is_as_in_a_batch(options):
    network = gnn(**options)
    together = network.predict(batch_of(*SMILES))
    alone = torch.cat([network.predict(batch_of(text)) for text in SMILES])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", KINDS)
def test_graphs_of_any_size(options):
    """Question 3.6a: chains of 30 and 100 atoms, 1 and 7 atoms without bonds; the MLP takes at most 29."""
    network = gnn(**options)
    for n, bonds in ((30, range(29)), (100, range(99)), (1, ()), (7, ())):
        pairs = [pair for k in bonds for pair in ((k, k + 1), (k + 1, k))]
        graph = Data(
            x=torch.eye(5, dtype=torch.float64)[[1] * n],
            edge_index=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t(),
            edge_attr=torch.eye(4, dtype=torch.float64)[[0] * len(pairs)],
            y=torch.zeros(1, 1),
        )
        assert network.predict(Batch.from_data_list([graph, graph])).isfinite().all()
        if n > 29:
            with pytest.raises(ValueError, match=f"this molecule has {n}"):
                get_mlp_features(Batch.from_data_list([graph]))


def test_the_whole_network_by_hand():
    """Embedding, [ReLU, RGCNConv, ReLU, MFConv] twice, sum over atoms, Linear, ReLU, Linear; molecule by molecule."""
    network, smiles = gnn(2), SMILES[:3]
    expected = []
    for text in smiles:
        batch = batch_of(text)
        n, kinds = len(batch.x), batch.edge_attr.argmax(1)
        A = torch.zeros(4, n, n, dtype=torch.float64)
        A[kinds, batch.edge_index[1], batch.edge_index[0]] = 1
        h = batch.x @ network.embedding.weight.t() + network.embedding.bias
        for relational, by_valence in zip(network.by_bond_type, network.by_valence):
            h = F.relu(h)
            z = h @ relational.root + relational.bias
            for kind in range(4):
                z = z + A[kind] / A[kind].sum(1, keepdim=True).clamp(min=1) @ h @ relational.weight[kind]
            h = F.relu(z)
            neighbours, degree = A.sum(0) @ h, A.sum((0, 2)).long()
            rows = []
            for atom in range(n):
                left, right = by_valence.lins_l[degree[atom]], by_valence.lins_r[degree[atom]]
                rows.append(left.weight @ neighbours[atom] + left.bias + right.weight @ h[atom])
            h = torch.stack(rows)
        first, _, last = network.output
        expected.append(last.weight @ F.relu(first.weight @ h.sum(0) + first.bias) + last.bias)
    torch.testing.assert_close(network.predict(batch_of(*smiles)), torch.stack(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_blocks", [1, 2, 5])
def test_there_are_as_many_blocks_as_asked_for(num_blocks):
    network = gnn(num_blocks)
    assert sum(isinstance(module, RGCNConv) for module in network.modules()) == num_blocks
    assert sum(isinstance(module, MFConv) for module in network.modules()) == num_blocks


def test_pooling_comes_before_the_output_layers():
    """The last layers see one row a molecule: the sum over its atoms."""
    network, batch, seen = gnn(), batch_of(*SMILES), {}
    network.output.register_forward_hook(lambda module, inputs, output: seen.update(pooled=inputs[0]))
    network.by_valence[-1].register_forward_hook(lambda module, inputs, output: seen.update(atoms=output))
    network.predict(batch)
    assert seen["pooled"].shape == (len(SMILES), 16)
    sums = torch.stack([atoms.sum(0) for atoms in seen["atoms"].split(batch.ptr.diff().tolist())])
    torch.testing.assert_close(seen["pooled"], sums)


def test_the_mlp_has_the_layers_asked_for():
    shapes = [tuple(p.shape) for p in MLP(10, [7, 3], 2).parameters()]
    assert shapes == [(7, 10), (7,), (3, 7), (3,), (2, 3), (2,)]
    assert [tuple(p.shape) for p in MLP(10, [], 2).parameters()] == [(2, 10), (2,)]
    assert MLP(10, [7], 2)(torch.zeros(4, 10)).shape == (4, 2)


def test_ring_walks_count_rings():
    """Two for each ring of k atoms through an atom where rings do not meet, and none in a tree."""
    batch = batch_of("C1CC1", "C1CCC1", "c1ccccc1", "CCCC", "C")
    walks = ring_walks(batch.edge_index, batch.batch, 6)
    for number, k in enumerate((3, 4, 6)):
        atoms = walks[batch.ptr[number] : batch.ptr[number] + k]
        expected = torch.zeros(k, 4)
        expected[:, k - 3] = 2
        if k == 3:
            expected[:, 3] = 2  # twice around
        assert torch.equal(atoms, expected)
    assert not walks[batch.ptr[3] :].any()


def test_ring_walks_are_counted_by_going_all_ways():
    """Every closed walk that never turns back, one bond after the other."""
    batch = batch_of("C12CC1C2C3CC3")
    graph = nx.Graph(list(zip(*batch.edge_index.tolist())))

    def walks(atom, before, left, goal):
        if not left:
            return int(atom == goal)
        return sum(walks(other, atom, left - 1, goal) for other in graph[atom] if other != before)

    expected = [[walks(atom, None, k, atom) for k in range(3, 8)] for atom in range(len(batch.x))]
    assert ring_walks(batch.edge_index, batch.batch, 7).tolist() == expected


def test_counts_by_hand():
    batch = batch_of("C", "O=C=O", "c1ccccc1")
    lines = b"smiles,u0\nC,-1\nO=C=O,-2\nc1ccccc1,-3\n"
    found = counts(Molecules(**read_table(lines, "table")["molecules"]))
    assert found.tolist() == [
        [4, 1, 0, 0, 0, 4, 0, 0, 0, 1],
        [0, 1, 0, 2, 0, 0, 2, 0, 0, 1],
        [6, 6, 0, 0, 0, 6, 0, 0, 6, 1],
    ]
    assert len(batch.y) == 3


def test_baselines_equal_numpys_least_squares():
    import numpy as np

    train, _, test = split_and_scale(read_built_in())
    weights = np.linalg.lstsq(counts(train.molecules).numpy(), train.labels.double().numpy(), rcond=None)[0]
    predicted = counts(test.molecules).numpy() @ weights
    truth = (test.molecules.energies.numpy() - train.mean) / train.std
    losses = baseline_losses(train, test)
    assert losses["counts"] == pytest.approx(
        (np.square(predicted - truth).mean(), np.abs(predicted - truth).mean()), rel=1e-3
    )
    assert losses["mean"] == pytest.approx((np.square(truth).mean(), np.abs(truth).mean()))


def test_the_gnn_can_start_from_the_counts():
    train, _, test = split_and_scale(read_built_in())
    torch.manual_seed(0)
    network = GNN(5, 4, 16, 1, 2, residual=True, counts=True, max_ring=5)
    network.start_from_counts(fit_counts(train))
    batch = test.batch(torch.arange(len(test)))
    error = (network.predict(batch).squeeze(1) - get_labels(batch)).abs().mean().item()
    assert error == pytest.approx(baseline_losses(train, test)["counts"][1], rel=1e-4)


def test_every_part_learns():
    """Two steps on: the first leaves at zero what stands before the last layer."""
    train = split_and_scale(read_built_in())[0]
    network = GNN(5, 4, 8, 1, 2, residual=True, counts=True, max_ring=5)
    network.start_from_counts(fit_counts(train))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        F.mse_loss(network.predict(train.batch(torch.arange(60))), torch.zeros(60, 1)).backward()
        optimizer.step()
    silent = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name.split(".")[0] for name in silent} <= {"by_valence"}  # no atom has 0 bonds
