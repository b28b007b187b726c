"""What must hold of part 3's molecules: an MLP on numbered atoms, and a GNN that does not see the numbers."""

import importlib
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from grading.adapters import part3 as made
from grading.adapters.part3 import FLAT, Network, labels, molecule, molecules, together
from grading.adapters.training import Steps
from grading.loading import Code, NotJudged, Unusable
from grading.probes import about, after
from grading.probes.checks import check_weights_differ

MAX_NUM_NODES = 29
RATE = 0.00321


def runs(code: Code, model: str) -> None:
    """The network can be constructed as the handed-out train.py does, and gives a prediction for each molecule."""
    Network(code, model).predict(together(molecules(5)))


def weights_start_different(code: Code, model: str) -> None:
    """As initialised, no weight matrix is zero or all one number: the units differ."""
    check_weights_differ(Network(code, model, own_init=True).net)


def mlp_has_the_layers_asked_for(code: Code, model: str) -> None:
    """MLP(n_inputs, n_hidden, n_outputs) has one weight matrix from each size to the next, and is not linear.

    Look at __init__: a layer for each size of n_hidden, an output layer, and a non-linearity between them.
    """
    for sizes in ([12, 7, 5, 1], [12, 9, 2]):
        net = code.construct(model, {"n_inputs": sizes[0], "n_hidden": sizes[1:-1], "n_outputs": sizes[-1]}).eval()
        found = [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
        expected = [(out, size) for size, out in pairwise(sizes)]
        assert found == expected, f"for the sizes {sizes} the weights are {found}, not {expected}"
        x = torch.randn(50, sizes[0])
        assert net(x).shape == (50, sizes[-1]), f"for 50 rows the output has shape {tuple(net(x).shape)}"
        made.draw_parameters(net)
        middle, ends = net(torch.zeros_like(x)), net(x) + net(-x)
        assert not torch.allclose(ends, 2 * middle, atol=1e-4), "the MLP is linear: nothing stands between its layers"


def flat_features_hold_every_atom_and_bond(code: Code) -> None:
    """get_mlp_features gives (B, 3509): 29 x 5 one-hot elements, 29 x 29 x 4 one-hot bonds, and zeros elsewhere."""
    batch = together(molecules(7))
    flat = code.load("get_mlp_features")(batch)
    assert flat.shape == (7, FLAT), f"7 molecules gave shape {tuple(flat.shape)}, not (7, {FLAT})"
    for k in range(7):
        one, split = batch.get_example(k), MAX_NUM_NODES * 5
        elements = torch.zeros(MAX_NUM_NODES, 5)
        elements[: len(one.x)] = one.x[:, :5]
        bonds = torch.zeros(MAX_NUM_NODES, MAX_NUM_NODES, 4)
        bonds[one.edge_index[0], one.edge_index[1]] = one.edge_attr
        assert torch.equal(flat[k, :split].view(-1, 5), elements), f"the first {split} numbers are not the elements"
        assert torch.equal(flat[k, split:].view(bonds.shape), bonds), f"the numbers after {split} are not the bonds"


def permute_indices_keeps_the_molecules(code: Code) -> None:
    """permute_indices numbers the atoms of each molecule anew: elements, bonds and batch still belong together."""
    batch = together(molecules(6))
    before = batch.clone()
    permuted = code.load("permute_indices")(batch)
    same = torch.equal(batch.x, before.x) and torch.equal(batch.edge_index, before.edge_index)
    assert same, "it changed the batch given"
    assert not torch.equal(permuted.x, batch.x), "the atoms have kept their order"
    assert torch.equal(permuted.batch, batch.batch), "an atom has moved to another molecule"
    ends, owners = permuted.edge_index, permuted.batch
    assert torch.equal(owners[ends[0]], owners[ends[1]]), "a bond joins two molecules"
    for end in range(2):
        same = torch.equal(permuted.x[ends[end]], batch.x[batch.edge_index[end]])
        assert same, "a bond joins other elements than before: edge_index was not permuted as x was"


@torch.no_grad()
def gnn_does_not_see_the_numbering(code: Code, model: str) -> None:
    """The GNN's output is the same for atoms numbered anew.

    Look at what depends on the order of atoms: a reshape, a padding, a layer over the axis of atoms.
    """
    net, batch = Network(code, model), together(molecules(6))
    change = (net.predict(batch) - net.predict(made.renumbered(batch))).abs().max().item()
    assert change < 1e-3, f"renumbering the atoms changes the GNN's output by {change:.2g}"


@torch.no_grad()
def gnn_keeps_molecules_apart(code: Code, model: str) -> None:
    """A molecule's output is the same alone as in a batch, for any size of batch.

    Look at the pooling: by batch_idx; and for layers that mix the batch, such as a batch norm in training mode.
    """
    net, batch = Network(code, model), together(molecules(6))
    whole = net.predict(batch)
    for k in range(6):
        change = (net.predict(together([batch.get_example(k)])) - whole[k]).abs().max().item()
        assert change < 1e-3, f"molecule {k} has another output alone than in a batch of 6, by {change:.2g}"


@torch.no_grad()
def gnn_takes_molecules_of_any_size(code: Code, model: str) -> None:
    """The GNN takes 60 atoms, one atom without bonds, and atoms with five bonds."""
    net = Network(code, model)
    star = torch.tensor([[0] * 5 + [*range(1, 6)], [*range(1, 6)] + [0] * 5])
    for name, one in (("60 atoms", molecule(60)), ("one atom", molecule(1)), ("five bonds", molecule(6, star))):
        output = net.predict(together([one, molecule(4)]))
        assert output.isfinite().all(), f"the output for {name} is not finite"


@torch.no_grad()
def gnn_reads_elements_bonds_and_their_types(code: Code, model: str) -> None:
    """Another element, another type of bond, or a bond less changes the GNN's output.

    Look at which of x, edge_index and edge_attr reach a convolution.
    """
    net, one = Network(code, model), molecule(9)
    other_element, other_type, bond_less = one.clone(), one.clone(), one.clone()
    other_element.x = one.x.clone()
    other_element.x[4, :5] = one.x[4, :5].roll(1)
    other_type.edge_attr = one.edge_attr.roll(1, dims=1)
    bond_less.edge_index, bond_less.edge_attr = one.edge_index[:, 2:], one.edge_attr[2:]
    first = net.predict(together([one]))
    for name, changed in (("element", other_element), ("type of bond", other_type), ("number of bonds", bond_less)):
        change = (net.predict(together([changed])) - first).abs().max().item()
        assert change > 1e-5, f"another {name} does not change the GNN's output"


def gnn_has_the_blocks_asked_for(code: Code, model: str) -> None:
    """With L convolution blocks there are L times as many graph convolutions as with one, and all of them are used.

    Look at the loop that makes the blocks, and at the one in forward: range(num_convolution_blocks) in both.
    """
    ones = None
    library = importlib.import_module("torch_geometric.nn")
    for blocks in (1, 2, 4):
        net = Network(code, model, blocks)
        convolutions = [module for module in net.net.modules() if isinstance(module, library.MessagePassing)]
        ones = ones or len(convolutions)
        assert convolutions, f"a GNN with {blocks} blocks has no graph convolution"
        assert len(convolutions) == blocks * ones, (
            f"{blocks} blocks have {len(convolutions)} convolutions, one has {ones}"
        )
        called: set[nn.Module] = set()
        for module in convolutions:
            module.register_forward_hook(lambda module, inputs, output, called=called: called.add(module))
        net.predict(together(molecules(3)))
        assert len(called) == len(convolutions), f"of {len(convolutions)} convolutions only {len(called)} are used"


@torch.no_grad()
def gnn_sums_over_atoms_before_its_last_layers(code: Code, model: str) -> None:
    """Two copies of a molecule as one graph: not the output of one, as a mean would give, nor twice it.

    Look at the pooling: global_add_pool, then the last layers.
    """
    net, one = Network(code, model), molecule(8)
    twice = made.graph(
        x=one.x.repeat(2, 1),
        edge_index=torch.cat([one.edge_index, one.edge_index + 8], dim=1),
        edge_attr=one.edge_attr.repeat(2, 1),
        y=one.y,
    )
    first, both = (net.predict(together([g])).item() for g in (one, twice))
    assert abs(both - first) > 1e-4, "two copies of a molecule give the output of one: atoms are averaged, not summed"
    assert abs(both - 2 * first) > 1e-4, "two copies give twice the output of one: the last layers come before the sum"


@about("compute_loss")
def loss_compares_each_molecule_with_its_label(code: Code, model: str) -> None:
    """compute_loss gives `criterion` of the predictions and the labels, molecule by molecule.

    Look at the shapes that the criterion gets: (B, 1) against (B,) becomes (B, B).
    """
    net, batch = Network(code, model), together(molecules(7))
    spy = made.SpyLoss()
    loss = code.call("call compute_loss", code.load("compute_loss"), net.net, batch, spy)
    assert spy.seen, "compute_loss does not call the criterion that it is given"
    predicted, target = spy.seen[0]
    assert isinstance(loss, Tensor) and loss.requires_grad, "the loss has no gradient"
    shapes = f"{tuple(predicted.shape)} and {tuple(target.shape)}"
    assert predicted.numel() == target.numel() == 7, f"for 7 molecules the criterion gets {shapes}"
    apart = predicted.shape != target.shape
    assert not apart, f"the criterion gets shapes {shapes}: every molecule is compared with every label"
    assert torch.allclose(target.flatten(), labels(batch)), "the criterion's targets are not the molecules' labels"
    with torch.no_grad():
        expected = (predicted.flatten() - labels(batch)).square().mean().item()
    assert abs(loss.item() / expected - 1) < 1e-4, f"the loss of 7 molecules is {loss.item():.4f}, not {expected:.4f}"


@about("evaluate_model")
@after(loss_compares_each_molecule_with_its_label)
def evaluation_counts_every_molecule_once(code: Code, model: str) -> None:
    """evaluate_model gives the mean over molecules, also where the last batch is smaller.

    Look at what is summed and what it is divided by: losses times batch sizes, by the number of molecules.
    """
    net, batches = Network(code, model), [molecules(5), molecules(5), molecules(1, target=9.0)]
    with torch.no_grad():
        errors = torch.cat([(net.predict(together(b)).flatten() - labels(together(b))).square() for b in batches])
    found = _evaluate(code, net, made.loader(batches))
    expected, wrong = errors.mean().item(), sum(part.mean().item() for part in errors.split(5)) / 3
    assert abs(found / wrong - 1) > 1e-4, (
        f"batches of 5, 5 and 1 molecules count alike: {found:.4f}, not {expected:.4f}"
    )
    assert abs(found / expected - 1) < 1e-4, f"the mean loss is {found:.4f}, not {expected:.4f}"


@about("evaluate_model")
@after(gnn_does_not_see_the_numbering)
def evaluation_renumbers_when_asked_to(code: Code, model: str) -> None:
    """evaluate_model with permute changes the loss of the MLP and not that of the GNN.

    Look at the call of permute_indices, and at which of the two batches goes into compute_loss.
    """
    net, batches = Network(code, model), made.loader([molecules(8), molecules(8)])
    as_given, anew = (_evaluate(code, net, batches, permute) for permute in (False, True))
    change = abs(anew / as_given - 1)
    if model == "MLP":
        assert change > 1e-5, "the MLP's loss is the same for atoms numbered anew: nothing was permuted"
    else:
        assert change < 1e-3, f"the GNN's loss is {as_given:.5f}, for atoms numbered anew {anew:.5f}"


@about("evaluate_model")
def evaluation_is_in_evaluation_mode(code: Code, model: str) -> None:
    """evaluate_model calls the model in evaluation mode.

    Look for model.eval() in it, and for where it comes.
    """
    net = Network(code, model)
    modes: list[bool] = []
    net.net.register_forward_hook(lambda module, *_: modes.append(module.training))
    net.net.train()
    _evaluate(code, net, made.loader([molecules(4)]))
    assert not any(modes), "the model is evaluated in training mode"


@about("evaluate_model")
def evaluation_records_no_gradients(code: Code, model: str) -> None:
    """evaluate_model records no graph of gradients.

    Look for torch.no_grad().
    """
    net = Network(code, model)
    enabled: list[bool] = []
    net.net.register_forward_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    _evaluate(code, net, made.loader([molecules(4)]))
    assert not any(enabled), "gradients are recorded while evaluating"


@about("train")
def training_returns_the_best_model(code: Code) -> None:
    """With a validation loss that rises from epoch to epoch, the model tested and returned is that of the first.

    Look at what is kept after an epoch: a deepcopy, and under which condition.
    """
    tested: list[Tensor] = []
    steps: list[Tensor] = []
    true_evaluate = code.load("evaluate_model")

    def evaluate(model: nn.Module, data: Any, criterion: Any, permute: bool = False, *_: Any, **__: Any) -> Any:
        if permute:
            tested.append(_weights(model))
        return true_evaluate(model, data, criterion, permute)

    register_optimizer_step_post_hook(
        lambda optimizer, *_: steps.append(
            torch.cat([p.detach().flatten() for group in optimizer.param_groups for p in group["params"]])
        )
    )
    # What is learned, to say 3, takes the model away from the labels that it is validated on.
    returned = _train(code, learn=3.0, validate=-3.0, evaluate_model=evaluate)
    epoch, rest = divmod(len(steps), 3)
    if not epoch or rest:
        raise NotJudged(f"train made {len(steps)} steps in 3 epochs")
    first = steps[epoch - 1]
    assert not torch.equal(first, steps[-1]), "the weights do not change from epoch to epoch"
    assert isinstance(returned, tuple) and len(returned) == 5, "train does not return its five values"
    losses = [float(loss) for loss in returned[3]]
    assert len(losses) == 3, f"after 3 epochs there are {len(losses)} validation losses"
    if losses[0] > min(losses):
        raise NotJudged("the validation loss does not rise from epoch to epoch")
    if tested:
        assert torch.equal(tested[-1], first), "the model that is tested is not the one with the lowest validation loss"
    assert torch.equal(_weights(returned[0]), first), (
        "the model returned is not the one with the lowest validation loss"
    )


@about("train")
def training_steps_with_the_rate_asked_for(code: Code) -> None:
    """train steps with the learning rate that it is given, and zeroes the gradients before each backward pass.

    Look at the optimizer's construction and at the order in the loop.
    """
    steps = Steps()
    steps.watch()
    _train(code)
    if not steps.rates:
        raise NotJudged("no optimizer of torch made a step")
    steps.check(rate=RATE)


def _evaluate(code: Code, net: Network, batches: Any, permute: bool = False) -> float:
    return float(code.call("call evaluate_model", code.load("evaluate_model"), net.net, batches, nn.MSELoss(), permute))


def _train(code: Code, learn: float | None = None, validate: float | None = None, **replaced: Any) -> Any:
    """Call the submission's train on an MLP and a few molecules, for three epochs; their labels may be given."""
    train, module = code.load("train"), code.module("train")
    if "get_qm9" not in train.__code__.co_names:
        raise NotJudged("train does not read its molecules by get_qm9")
    if any(line.split("#")[0].rstrip().endswith("= ...") for line in code.source("train").splitlines()):
        raise Unusable("stub train", "not implemented: it has the template's gaps", code.place("train"), is_stub=True)
    sets = molecules(12, target=learn), molecules(6, target=validate), molecules(6)
    module |= {"get_qm9": lambda *_, **__: sets, **replaced}
    net = Network(code, "MLP", own_init=True).net
    try:
        return train(net, lr=RATE, batch_size=4, epochs=3, seed=0, data_dir="data")
    except Exception as error:
        raise code.unusable("call train", error) from None


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
