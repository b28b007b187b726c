"""The formulas of the report's section on molecules, on small random molecules.

A few tests need PyTorch Geometric or RDKit.
"""

from types import SimpleNamespace

import pytest
import torch

from part3.qm9.data import EDGE_ATTR_DIM, FLAT_INPUT_DIM, Z_ONE_HOT_DIM, get_mlp_features
from part3.qm9.networks import GNN, MLP
from part3.qm9.sources import ATOM_ENERGIES, read_table

EXACT = {"rtol": 1e-10, "atol": 1e-10}
NUM_HIDDEN = 6


def random_molecule(n, seed=0):
    """Return one-hot elements (n, 5) and bonds A (4, n, n): a tree and two rings, at most four bonds at each atom."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.eye(5, dtype=torch.float64)[torch.randint(5, (n,), generator=generator)]
    A = torch.zeros(4, n, n, dtype=torch.float64)
    pairs = [(i, max(0, i - 1 - int(torch.randint(2, (1,), generator=generator)))) for i in range(1, n)]
    pairs += [pair for pair in ((0, 4), (3, n - 1)) if pair[::-1] not in pairs]
    for i, j in pairs:
        kind = int(torch.randint(4, (1,), generator=generator))
        A[kind, i, j] = A[kind, j, i] = 1
    assert A.sum((0, 1)).max() <= 4
    return x, A


def renumber(x, A, seed=0):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    assert not torch.equal(A[:, order][:, :, order], A)
    return x[order], A[:, order][:, :, order]


def batch_of(x, A):
    """The molecule as the project reads it: a list of atoms and a list of bonds."""
    kind, start, end = A.nonzero().t()
    return SimpleNamespace(
        x=x,
        edge_index=torch.stack([start, end]),
        edge_attr=torch.eye(4, dtype=torch.float64)[kind],
        batch=torch.zeros(len(x), dtype=torch.int64),
        ptr=torch.tensor([0, len(x)]),
    )


def random_weights():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return 0.4 * torch.randn(*shape, dtype=torch.float64, generator=generator)

    n = NUM_HIDDEN
    blocks = [
        {"W": draw(4, n, n), "W_0": draw(n, n), "b": draw(n), "U": draw(5, n, n), "V": draw(5, n, n), "c": draw(5, n)}
        for _ in range(2)
    ]
    return {"E": draw(n, 5), "e": draw(n), "blocks": blocks, "output": [draw(n, n), draw(n), draw(1, n), draw(1)]}


def network(weights, x, A):
    """The course's GNN as printed, atom by atom."""
    n, rho = len(x), torch.relu
    h = [weights["E"] @ x[i] + weights["e"] for i in range(n)]
    for block in weights["blocks"]:
        of_type = [[[j for j in range(n) if A[t, i, j]] for t in range(4)] for i in range(n)]
        z, after = [], []
        for i in range(n):
            heard = [
                sum(block["W"][t] @ rho(h[j]) for j in of_type[i][t]) / len(of_type[i][t])
                for t in range(4)
                if of_type[i][t]
            ]
            z.append(block["W_0"] @ rho(h[i]) + block["b"] + sum(heard))
        for i in range(n):
            neighbours = [j for kind in of_type[i] for j in kind]
            delta = len(neighbours)
            heard = sum(rho(z[j]) for j in neighbours)
            after.append(block["U"][delta] @ rho(z[i]) + block["V"][delta] @ heard + block["c"][delta])
        h = after
    first, first_bias, last, last_bias = weights["output"]
    return last @ rho(first @ sum(h) + first_bias) + last_bias


def project_network(weights):
    """part3/qm9's GNN with the weights of the printed one."""
    pytest.importorskip("torch_geometric", reason='pip install -e ".[molecules]"')
    model = GNN(Z_ONE_HOT_DIM, EDGE_ATTR_DIM, NUM_HIDDEN, 1, 2).double()
    with torch.no_grad():
        model.embedding.weight.copy_(weights["E"])
        model.embedding.bias.copy_(weights["e"])
        for block, by_type, by_valence in zip(weights["blocks"], model.by_bond_type, model.by_valence):
            by_type.weight.copy_(block["W"].transpose(1, 2))
            by_type.root.copy_(block["W_0"].t())
            by_type.bias.copy_(block["b"])
            for delta in range(5):
                by_valence.lins_r[delta].weight.copy_(block["U"][delta])
                by_valence.lins_l[delta].weight.copy_(block["V"][delta])
                by_valence.lins_l[delta].bias.copy_(block["c"][delta])
        for parameter, value in zip(model.output.parameters(), weights["output"]):
            parameter.copy_(value)
    return model


def test_atomisation_energy():
    pytest.importorskip("rdkit", reason='pip install -e ".[molecules]"')
    hydrogen, carbon, oxygen = (ATOM_ENERGIES[element] for element in "HCO")
    table = "smiles,u0\nC,-40.47893\nC=O,-114.483613\n"
    expected = [-40.47893 - (carbon + 4 * hydrogen), -114.483613 - (carbon + 2 * hydrogen + oxygen)]
    energies = read_table(table.encode(), "table")["molecules"]["energies"]
    torch.testing.assert_close(
        energies, 27.211386245988 * torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_flat_input_of_29_atoms():
    assert 29 * 5 + 29**2 * 4 == 3509 == FLAT_INPUT_DIM
    x, A = random_molecule(29)
    flat = get_mlp_features(batch_of(x, A))
    assert flat.shape == (1, 3509)
    atoms, bonds = flat[0].split([29 * 5, 29**2 * 4])
    assert torch.equal(atoms.view(29, 5), x)
    assert torch.equal(bonds.view(29, 29, 4), A.permute(1, 2, 0))
    small = get_mlp_features(batch_of(*random_molecule(8)))
    assert small.shape == (1, 3509)
    assert not small[0, : 29 * 5].view(29, 5)[8:].any()  # padded


def test_30_atoms_have_no_flat_input():
    with pytest.raises(ValueError, match="room for 29 atoms, and this molecule has 30"):
        get_mlp_features(batch_of(*random_molecule(30)))


@pytest.mark.parametrize("seed", range(4))
def test_an_mlp_is_not_invariant(seed):
    torch.manual_seed(0)
    mlp, (x, A) = MLP(FLAT_INPUT_DIM, [32, 16], 1).double(), random_molecule(9, seed)
    before, after = (mlp(get_mlp_features(batch_of(*molecule))) for molecule in ((x, A), renumber(x, A, seed)))
    assert (after - before).abs().item() > 1e-4


@pytest.mark.parametrize("n", [6, 12])
def test_network_as_printed(n):
    weights, (x, A) = random_weights(), random_molecule(n, seed=n)
    molecule = batch_of(x, A)
    y = project_network(weights)(molecule.x, molecule.edge_index, molecule.edge_attr, molecule.batch)
    torch.testing.assert_close(y[0].detach(), network(weights, x, A), **EXACT)


@pytest.mark.parametrize("seed", range(4))
def test_network_is_invariant(seed):
    weights, (x, A) = random_weights(), random_molecule(9, seed)
    y = network(weights, x, A)
    torch.testing.assert_close(network(weights, *renumber(x, A, seed)), y, **EXACT)
    mixed_up = renumber(x, A, seed)[0], A  # other elements on the same bonds: another molecule
    assert (network(weights, *mixed_up) - y).abs().item() > 1e-6


def test_30_atoms_have_a_prediction():
    weights, (x, A) = random_weights(), random_molecule(30)
    molecule = batch_of(x, A)
    y = project_network(weights)(molecule.x, molecule.edge_index, molecule.edge_attr, molecule.batch)
    assert y.shape == (1, 1)
    torch.testing.assert_close(y[0].detach(), network(weights, x, A), **EXACT)
