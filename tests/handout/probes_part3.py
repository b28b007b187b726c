"""What must hold of any solution of part 3's molecules, by the names of the course's data.py, networks.py and train.py
alone.

Those stand in the solution's folder or in its `qm9/`. Molecules are made here as PyTorch Geometric's `Batch`: random
graphs with 11 columns of atom features, one-hot bonds, and 19 equal targets, whichever of them the solution reads.
Networks have their parameters drawn anew, so that a zero hides nothing. PyTorch Geometric is imported in the probes
only, since who collects them reads this file too.
"""

import importlib
import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

MODELS = ("MLP", "GNN")  # a probe with an argument runs on each
MAX_NUM_NODES, FLAT = 29, 3509


def mlp_has_the_layers_asked_for():
    """MLP(n_inputs, n_hidden, n_outputs) has one weight matrix from each size to the next, and is not linear."""
    for sizes in ([12, 7, 5, 1], [12, 9, 2]):
        net = _module("networks").MLP(sizes[0], sizes[1:-1], sizes[-1])
        found = [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
        expected = [(out, size) for size, out in pairwise(sizes)]
        assert found == expected, f"for the sizes {sizes} the weights are {found}, not {expected}"
        x = torch.randn(50, sizes[0])
        assert net(x).shape == (50, sizes[-1]), f"for 50 rows the output has shape {tuple(net(x).shape)}"
        _draw_parameters(net)
        middle, ends = net(torch.zeros_like(x)), net(x) + net(-x)
        assert not torch.allclose(ends, 2 * middle, atol=1e-4), "the MLP is linear: nothing stands between its layers"


def flat_features_hold_every_atom_and_bond():
    """get_mlp_features gives (B, 3509): 29 x 5 one-hot elements, 29 x 29 x 4 one-hot bonds, and zeros elsewhere."""
    batch = _batch(7)
    flat = _module("data").get_mlp_features(batch)
    assert flat.shape == (7, FLAT), f"7 molecules gave shape {tuple(flat.shape)}, not (7, {FLAT})"
    for k in range(7):
        graph = batch.get_example(k)
        elements = torch.zeros(MAX_NUM_NODES, 5)
        elements[: len(graph.x)] = graph.x[:, :5]
        bonds = torch.zeros(MAX_NUM_NODES, MAX_NUM_NODES, 4)
        bonds[graph.edge_index[0], graph.edge_index[1]] = graph.edge_attr
        split = MAX_NUM_NODES * 5
        assert torch.equal(flat[k, :split].view(-1, 5), elements), (
            f"the first {split} numbers are not the one-hot elements"
        )
        assert torch.equal(flat[k, split:].view(bonds.shape), bonds), (
            f"the numbers after {split} are not the one-hot bonds"
        )


def permute_indices_keeps_the_molecules():
    """permute_indices numbers the atoms of each molecule anew: elements, bonds and batch still belong together."""
    batch = _batch(6)
    before = batch.clone()
    permuted = _module("train").permute_indices(batch)
    assert torch.equal(batch.x, before.x) and torch.equal(batch.edge_index, before.edge_index), (
        "it changed the batch given"
    )
    assert not torch.equal(permuted.x, batch.x), "the atoms have kept their order"
    assert torch.equal(permuted.batch, batch.batch), "an atom has moved to another molecule"
    ends, owners = permuted.edge_index, permuted.batch
    assert torch.equal(owners[ends[0]], owners[ends[1]]), "a bond joins two molecules"
    for end in range(2):
        same = torch.equal(permuted.x[ends[end]], batch.x[batch.edge_index[end]])
        assert same, "a bond joins other elements than before: edge_index was not permuted as x was"
    for k in range(6):
        found, expected = (sorted(_rows(graph, k)) for graph in (permuted, batch))
        assert found == expected, "a molecule's atoms, with their numbers of bonds, are not the same as before"


@torch.no_grad()
def gnn_does_not_see_the_numbering():
    """The GNN's output is the same for atoms numbered anew."""
    net, batch = _build("GNN"), _batch(6)
    change = (_predict("GNN", net, batch) - _predict("GNN", net, _renumber(batch))).abs().max().item()
    assert change < 1e-3, f"renumbering the atoms changes the GNN's output by {change:.2g}"


@torch.no_grad()
def gnn_keeps_molecules_apart():
    """A molecule's output is the same alone as in a batch, for any size of batch."""
    net, batch = _build("GNN"), _batch(6)
    together = _predict("GNN", net, batch)
    for k in range(6):
        alone = _predict("GNN", net, _together([batch.get_example(k)]))
        change = (alone - together[k]).abs().max().item()
        assert change < 1e-3, f"molecule {k} has another output alone than in a batch of 6, by {change:.2g}"


@torch.no_grad()
def gnn_takes_molecules_of_any_size():
    """The GNN takes 60 atoms, one atom without bonds, and atoms with five bonds."""
    net = _build("GNN")
    star = torch.tensor([[0] * 5 + [*range(1, 6)], [*range(1, 6)] + [0] * 5])
    for name, graph in (
        ("60 atoms", _molecule(60)),
        ("one atom", _molecule(1)),
        ("five bonds", _molecule(6, star)),
    ):
        output = _predict("GNN", net, _together([graph, _molecule(4)]))
        assert output.shape == (2, 1), f"two molecules, one with {name}, gave shape {tuple(output.shape)}, not (2, 1)"
        assert output.isfinite().all(), f"the output for {name} is not finite"


@torch.no_grad()
def gnn_reads_elements_bonds_and_their_types():
    """Another element, another type of bond, or a bond less changes the GNN's output."""
    net, graph = _build("GNN"), _molecule(9)
    other_element, other_type, bond_less = graph.clone(), graph.clone(), graph.clone()
    other_element.x = graph.x.clone()
    other_element.x[4, :5] = graph.x[4, :5].roll(1)
    other_type.edge_attr = graph.edge_attr.roll(1, dims=1)
    bond_less.edge_index, bond_less.edge_attr = graph.edge_index[:, 2:], graph.edge_attr[2:]
    first = _predict("GNN", net, _together([graph]))
    for name, changed in (("element", other_element), ("type of bond", other_type), ("number of bonds", bond_less)):
        change = (_predict("GNN", net, _together([changed])) - first).abs().max().item()
        assert change > 1e-5, f"another {name} does not change the GNN's output"


def gnn_has_the_blocks_asked_for():
    """With L convolution blocks there are L times as many graph convolutions as with one, and all of them are used."""
    ones = None
    for blocks in (1, 2, 4):
        net = _build("GNN", blocks)
        library = importlib.import_module("torch_geometric.nn")
        convolutions = [module for module in net.modules() if isinstance(module, library.MessagePassing)]
        ones = ones or len(convolutions)
        assert convolutions, f"a GNN with {blocks} blocks has no graph convolution"
        assert len(convolutions) == blocks * ones, (
            f"{blocks} blocks have {len(convolutions)} convolutions, one block {ones}"
        )
        called = set()
        for module in convolutions:
            module.register_forward_hook(lambda module, inputs, output, called=called: called.add(module))
        _predict("GNN", net, _batch(3))
        assert len(called) == len(convolutions), f"of {len(convolutions)} convolutions only {len(called)} are used"


@torch.no_grad()
def gnn_sums_over_atoms_before_its_last_layers():
    """Two copies of a molecule as one graph: not the output of one, as a mean would give, nor twice it."""
    net, graph = _build("GNN"), _molecule(8)
    twice = _graph(
        x=graph.x.repeat(2, 1),
        edge_index=torch.cat([graph.edge_index, graph.edge_index + 8], dim=1),
        edge_attr=graph.edge_attr.repeat(2, 1),
        y=graph.y,
    )
    one, two = (_predict("GNN", net, _together([g])).item() for g in (graph, twice))
    assert abs(two - one) > 1e-4, "two copies of a molecule give the output of one: atoms are averaged, not summed"
    assert abs(two - 2 * one) > 1e-4, "two copies give twice the output of one: the last layers come before the sum"


def loss_compares_each_molecule_with_its_label(model):
    """compute_loss gives `criterion` of the predictions and the labels, molecule by molecule."""
    net, batch = _build(model), _batch(7)
    with torch.no_grad():
        expected = (_predict(model, net, batch).flatten() - batch.y[:, 0]).square().mean().item()
    loss = _module("train").compute_loss(net, batch, nn.MSELoss())
    assert loss.requires_grad, "the loss has no gradient"
    assert abs(loss.item() / expected - 1) < 1e-4, f"the loss of 7 molecules is {loss.item():.4f}, not {expected:.4f}"


def evaluation_counts_every_molecule_once(model):
    """evaluate_model gives the mean over molecules, also where the last batch is smaller."""
    net, batches = _build(model), [_batch(5), _batch(5), _batch(1, target=9.0)]
    with torch.no_grad():
        errors = torch.cat([(_predict(model, net, batch).flatten() - batch.y[:, 0]).square() for batch in batches])
    found = float(_module("train").evaluate_model(net, batches, nn.MSELoss(), permute=False))
    expected, wrong = errors.mean().item(), sum(part.mean().item() for part in errors.split(5)) / 3
    assert abs(found - wrong) > 1e-4, f"batches of 5, 5 and 1 molecules count alike: {found:.4f}, not {expected:.4f}"
    assert abs(found / expected - 1) < 1e-4, f"the mean loss is {found:.4f}, not {expected:.4f}"


def evaluation_renumbers_when_asked_to(model):
    """evaluate_model with permute changes the loss of the MLP and not that of the GNN."""
    net, batches = _build(model), [_batch(8), _batch(8)]
    as_given, anew = (
        float(_module("train").evaluate_model(net, batches, nn.MSELoss(), permute=permute)) for permute in (False, True)
    )
    if model == "MLP":
        assert abs(anew / as_given - 1) > 1e-5, (
            "the MLP's loss is the same for atoms numbered anew: nothing was permuted"
        )
    else:
        assert abs(anew / as_given - 1) < 1e-3, f"the GNN's loss is {as_given:.5f}, for atoms numbered anew {anew:.5f}"


def _module(name):
    """Import a file of the solution, whose folder is first on the path."""
    molecules = Path(sys.path[0]) / "qm9"
    if molecules.is_dir():
        sys.path.insert(0, str(molecules))
    return importlib.import_module(name)


def _graph(**tensors):
    return importlib.import_module("torch_geometric.data").Data(**tensors)


def _together(graphs):
    return importlib.import_module("torch_geometric.data").Batch.from_data_list(graphs)


def _molecule(num_atoms, edge_index=None, target=None):
    """A random tree with one ring more where it is large enough, random elements and bond types."""
    if edge_index is None:
        pairs = [(k, int(torch.randint(max(0, k - 3), k, ()))) for k in range(1, num_atoms)]
        pairs += [(0, num_atoms - 1)] if num_atoms > 8 else []
        edge_index = torch.tensor([pair for i, j in pairs for pair in ((i, j), (j, i))]).long().reshape(-1, 2).t()
    kinds = torch.randint(4, (edge_index.shape[1] // 2,))
    x = torch.cat([torch.eye(5)[torch.randint(5, (num_atoms,))], torch.rand(num_atoms, 6)], dim=1)
    edge_attr = torch.eye(4)[kinds.repeat_interleave(2) if edge_index.shape[1] != 10 else kinds.repeat(2)]
    y = torch.randn(1, 1).expand(1, 19) if target is None else torch.full((1, 19), target)
    return _graph(x=x, edge_index=edge_index.contiguous(), edge_attr=edge_attr, y=y.clone(), z=x[:, 0].long())


def _batch(size, target=None):
    return _together([_molecule(int(torch.randint(6, 20, ())), target=target) for _ in range(size)])


def _renumber(batch):
    """The same molecules with the atoms of each in reverse order."""
    graphs = []
    for graph in batch.to_data_list():
        last, reverse = len(graph.x) - 1, graph.clone()
        reverse.x, reverse.edge_index = graph.x.flip(0), last - graph.edge_index
        graphs.append(reverse)
    return _together(graphs)


def _rows(batch, k):
    """Each atom of molecule k as its features and its number of bonds."""
    degrees = batch.edge_index[0].bincount(minlength=len(batch.x))
    return [(*x.tolist(), d.item()) for x, d in zip(batch.x[batch.batch == k], degrees[batch.batch == k])]


def _build(model, blocks=2):
    """Construct the solution's network, its parameters drawn anew, ready to predict."""
    networks = _module("networks")
    net = networks.MLP(FLAT, [32, 16], 1) if model == "MLP" else networks.GNN(5, 4, 16, 1, blocks)
    assert isinstance(net, nn.Module), f"{model} is no nn.Module"
    _draw_parameters(net)
    return net.eval()


def _draw_parameters(net):
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.3, 0.3)


def _predict(model, net, batch):
    """Return the network's output (B, 1), after a look at its form."""
    if model == "MLP":
        output = net(_module("data").get_mlp_features(batch))
    else:
        output = net(batch.x[:, :5], batch.edge_index, batch.edge_attr, batch.batch)
    assert output.numel() == batch.num_graphs, f"{batch.num_graphs} molecules gave shape {tuple(output.shape)}"
    return output.reshape(-1, 1)
