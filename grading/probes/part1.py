"""What must hold of part 1: palindromes and their like, read by a recurrence that is written by hand.

Parameters are told apart by their shapes or not at all, since their names and layout are the submission's own.
"""

import math
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from grading.adapters.part1 import B, Classifier
from grading.adapters.training import run_training
from grading.loading import Code, NotJudged
from grading.probes import about, after
from grading.probes.checks import check_gradients, check_weights_differ

N = 32  # hidden units
UNIT = {"VanillaRNN": 1, "LSTM": 4}  # parameters of a recurrence, in units of n d + n^2 + n


def dataset_items_are_palindromes(code: Code) -> None:
    """Items of PalindromeDataset are T-1 float32 digits and the int digit that completes a palindrome."""
    cls = code.load("PalindromeDataset")
    for length in (2, 3, 10, 11):
        dataset = cls(length)
        assert len(dataset) == sys.maxsize, f"len is {len(dataset)}, not sys.maxsize"
        for index in range(20):
            digits, target = dataset[index]
            assert isinstance(digits, np.ndarray), f"the digits are a {type(digits).__name__}, not an array"
            assert digits.dtype == np.float32, f"the digits are {digits.dtype}, not float32"
            assert digits.shape == (length - 1,), f"the digits of length {length} have shape {digits.shape}"
            assert isinstance(target, int | np.integer), f"the target is a {type(target).__name__}, not an int"
            for whole in ([*digits.tolist(), target], np.asarray(dataset.generate_palindrome()).tolist()):
                assert len(whole) == length, f"a palindrome of {len(whole)} digits, not {length}"
                assert whole == whole[::-1], f"not a palindrome: {whole}"
                assert set(whole) <= set(range(10)), f"not digits: {whole}"


@after(dataset_items_are_palindromes)
def dataset_draws_every_digit(code: Code) -> None:
    """Items differ, and each of the ten digits occurs in every place."""
    for length in (20, 21):
        dataset = code.load("PalindromeDataset")(length)
        items = np.array([[*digits, target] for digits, target in (dataset[index] for index in range(500))])
        assert len(np.unique(items, axis=0)) == 500, f"of 500 items of length {length} some are the same"
        for place in range(length):
            missing = set(range(10)) - set(items[:, place].tolist())
            assert not missing, f"within 500 items, place {place} never holds {sorted(missing)}"


@after(dataset_items_are_palindromes)
def dataset_works_in_a_data_loader(code: Code) -> None:
    """Two loader workers give (B, T-1) float32 and (B,) int64 batches, and never the same palindromes."""
    batches = iter(torch.utils.data.DataLoader(code.load("PalindromeDataset")(20), batch_size=50, num_workers=2))
    four = [next(batches) for _ in range(4)]
    for digits, targets in four:
        assert digits.shape == (50, 19), f"the digits have shape {tuple(digits.shape)}, not (50, 19)"
        assert targets.shape == (50,), f"the targets have shape {tuple(targets.shape)}, not (50,)"
        assert (digits.dtype, targets.dtype) == (torch.float32, torch.int64), f"{digits.dtype} and {targets.dtype}"
    distinct = len(torch.cat([digits for digits, _ in four]).unique(dim=0))
    assert distinct == 200, f"200 palindromes from two workers are only {distinct} different ones"


def runs(code: Code, model: str) -> None:
    """The model can be constructed as the handed-out train.py does, and gives scores (B, K) of a batch."""
    net = Classifier(code, model)
    net(net.draw())


def no_ready_made_layers(code: Code, model: str) -> None:
    """The recurrence is written by hand: no nn.RNN, nn.LSTM, nn.GRU, their cells, or nn.Linear.

    Look at __init__: the handout allows nn.Parameter and the non-linearities.
    """
    banned = (nn.RNNBase, nn.RNNCellBase, *[nn.Linear] * (not code.part.options.get("linear_allowed", False)))
    found = {type(m).__name__ for m in Classifier(code, model).net.modules() if isinstance(m, banned)}
    assert not found, f"it is made of {', '.join(sorted(found))}"


def output_is_logits(code: Code, model: str) -> None:
    """The output is logits, not probabilities: the loss applies the softmax.

    Look at the end of forward: nn.CrossEntropyLoss has the softmax inside, and a second one flattens its gradient.
    """
    net = Classifier(code, model)
    scores = net(net.draw())
    assert not torch.allclose(scores.sum(1), torch.ones(B), atol=1e-4), "every row sums to one: softmax was applied"
    assert not torch.allclose(scores.sum(0), torch.ones(net.classes), atol=1e-4), (
        "every column sums to one: softmax was applied, over the batch"
    )


def output_is_log_probabilities(code: Code, model: str) -> None:
    """The output is log-probabilities of the classes, since the handed-out train.py has NLLLoss.

    Look at the end of forward: log_softmax over the classes, dim=1.
    """
    net = Classifier(code, model)
    scores = net(net.draw())
    if (code.folder / "train.py").is_file() and "CrossEntropyLoss" in code.source("train.py"):
        scores = scores.log_softmax(1)  # it has the softmax in the loss instead
    totals = scores.exp().sum(1)
    assert not torch.allclose(scores.sum(1), torch.ones(B), atol=1e-4), "the outputs are probabilities: no logarithm"
    assert torch.allclose(totals, torch.ones(B), atol=1e-3), (
        f"the probabilities of a row sum to {totals[0]:.3g}, not to 1: no log-softmax over the classes"
    )


def calls_keep_no_state(code: Code, model: str) -> None:
    """The same input gives the same scores, whatever was computed before.

    Look at where h (and c) start: in forward, not in __init__, and not kept on self.
    """
    net = Classifier(code, model)
    digits = net.draw()
    before = net(digits)
    net.again(digits.flip(0))
    assert torch.allclose(net.again(digits), before, atol=1e-5), "the same input gave other scores the second time"


def rows_are_independent_and_remembered(code: Code, model: str) -> None:
    """A digit of one row changes that row's scores, however early it stands, and no other's.

    Look at the loop over time and at shapes: does the loop run over axis 1 of (B, T), from the first to the last step,
    and is the new state computed from the old one?
    """
    net = Classifier(code, model)
    digits = net.draw()
    before = net(digits)
    for place in range(digits.shape[1]):
        own = 0.0
        for shift in range(1, net.symbols):
            changed = digits.clone()
            changed[3, place] = (changed[3, place] + shift) % net.symbols
            difference = (net(changed) - before).abs().amax(1)
            own = max(own, difference[3].item())
            difference[3] = 0
            row = int(difference.argmax())
            assert difference.max() < 1e-5, f"changing a digit of row 3 changes the scores of row {row}: rows mix"
        assert own > 0, f"digit {place + 1} of {digits.shape[1]} has no influence on its own row's scores"


@after(rows_are_independent_and_remembered)
def every_parameter_gets_its_gradient(code: Code, model: str) -> None:
    """The loss gives every parameter the gradient that finite differences give: no path through time is cut.

    Look for .data, .detach(), .item(), torch.no_grad() and torch.tensor(...) in forward, and for parameters that are
    plain tensors.
    """
    net = Classifier(code, model)
    digits, weights = net.draw(), torch.randn(B, net.classes)

    def loss() -> torch.Tensor:
        return (net(digits) * weights).sum()

    check_gradients(net.net, loss, "scores have", step=0.01, tolerance=1e-2)


@after(no_ready_made_layers)
def parameter_count(code: Code, model: str) -> None:
    """The recurrence has n d + n^2 + n trainable numbers, the LSTM's four times as many; the output layer K n + K.

    Look at __init__: is a bias missing or there twice, a gate left out, a tensor no nn.Parameter?
    """
    net = Classifier(code, model)
    table = _embedding(net)
    n, d, k = N, net.input_dim if table is None else table.shape[1], net.classes
    expected = UNIT[model] * (n * d + n * n + n) + k * n + k + (0 if table is None else table.numel())
    found = sum(parameter.numel() for parameter in net.net.parameters() if parameter.requires_grad)
    assert found == expected, f"{found} trainable parameters, not {expected}, for d={d}, n={n}, K={k}"


@after(output_is_logits, output_is_log_probabilities)
def state_starts_at_zero(code: Code, model: str) -> None:
    """With biases and input zero, all scores are equal: the first state is 0, and so is c(0).

    Look at where h and c start: torch.zeros, not torch.ones or torch.rand.
    """
    if code.part.options.get("output"):
        spread = _spread(code, model)
        assert spread < 1e-5, (
            f"zero biases and symbols give scores that differ by {spread:.2g}: the first state is not 0"
        )
        return
    soon, late = (_spread(code, model, length) for length in (3, 40))
    assert soon < 1e-5 or late > 0.3 * soon, (  # what the gates make of zeros does not fade
        f"zero biases and inputs give scores that differ by {soon:.2g} after 3 steps, and by less later: the first "
        "state is not 0"
    )


def _spread(code: Code, model: str, length: int | None = None) -> float:
    """Return by how much scores of one row differ where biases and input are zero."""
    net = Classifier(code, model, length=length)
    table = _embedding(net)
    if table is not None:
        table.data.zero_()
    elif net.log_probs:
        raise NotJudged("there is no embedding to set to zero")
    for parameter in net.net.parameters():
        if parameter.numel() == max(parameter.shape):  # biases, and W_x of input_dim 1, which a zero input hides anyway
            parameter.data.zero_()
    scores = net(net.draw()) if net.log_probs else net.of_zeros()
    return (scores - scores[:, :1]).abs().max().item()


@after(state_starts_at_zero, parameter_count, rows_are_independent_and_remembered)
def equations_hold_for_equal_parameters(code: Code, model: str) -> None:
    """With all parameters set to one number the scores are those of the handout's equations.

    Look at the equations one by one: which gate has tanh and which sigma, what is multiplied by what, tanh(c) in h.
    """
    net = Classifier(code, model)
    digits, a = net.draw(), 0.05
    for parameter in net.net.parameters():
        parameter.data.fill_(a)
    if net.log_probs:
        _check_variant(net, model, digits, a)
        return
    table, sums = _embedding(net), digits.double()  # of the numbers that the recurrence reads at a step
    if table is not None:
        sums = torch.full_like(sums, a * table.shape[1])
    elif net.form(digits).dim() == 3 and net.input_dim > 1:
        sums = torch.ones_like(sums)  # one-hot vectors
    h = c = torch.zeros(B).double()  # all units are equal: one number a row
    for x in sums.unbind(1):
        z = a * (x + N * h + 1)
        c = z.tanh() * z.sigmoid() + c * z.sigmoid()
        h = c.tanh() * z.sigmoid() if model == "LSTM" else z.tanh()
    expected = (a * (N * h + 1)).unsqueeze(1).expand(B, net.classes)
    error = (net(digits) - expected).abs().max().item()
    assert error < 1e-4, f"with all parameters {a}, the logits are off by {error:.2g}"


def _check_variant(net: Classifier, model: str, digits: torch.Tensor, a: float) -> None:
    """Of log-probabilities only the last hidden state can be seen: by an output layer whose rows differ."""
    table = _embedding(net)
    outputs = [p for p in net.net.parameters() if p.dim() == 2 and net.classes in p.shape and p is not table]
    outputs = [p for p in outputs if max(p.shape) in (N, 2 * N)]
    if table is None or len(outputs) != 1:
        raise NotJudged("its embedding and output layer could not be told apart")
    ramp = torch.arange(float(net.classes)) * a
    outputs[0].data.copy_((ramp.unsqueeze(1) if outputs[0].shape[0] == net.classes else ramp).expand(outputs[0].shape))
    x = a * table.shape[1]
    steps, errors = digits.shape[1], []
    for bias in (1.0, 0.0):
        h = c = torch.zeros(()).double()
        for _ in range(steps):
            if model == "GRU":
                z = torch.sigmoid(a * (N * h + x + bias))
                h = (1 - z) * h + z * torch.tanh(a * (N * z * h + x + bias))
            elif model == "peepLSTM":
                gate = torch.sigmoid(a * (x + N * c + bias))
                c = torch.sigmoid(torch.as_tensor(a * (x + bias)).double()) * gate + c * gate
                h = c.tanh() * gate
            else:
                z = a * (x + N * h + bias)
                c = z.tanh() * z.sigmoid() + c * z.sigmoid()
                h = c.tanh() * z.sigmoid()
        units = N * (2 if model == "biLSTM" else 1)
        expected = (ramp.double() * units * h).log_softmax(0)
        errors.append((net(digits).log_softmax(1) - expected).abs().max().item())
    assert min(errors) < 1e-3, (
        f"with all parameters of the recurrence {a}, log-probabilities are off by {min(errors):.2g}"
    )


def weights_start_different(code: Code, model: str) -> None:
    """As initialised, no weight matrix is zero or all one number: the units differ.

    Look at the initialisation: torch.zeros or torch.empty for a weight, with nothing drawn into it.
    """
    check_weights_differ(Classifier(code, model, own_init=True).net)


@after(weights_start_different, output_is_logits, output_is_log_probabilities, state_starts_at_zero)
def initial_loss_is_near_log_k(code: Code, model: str) -> None:
    """As initialised, the model is rather undecided (loss within 5 of log K) and not chaotic.

    Look at the scale of the initial weights: recurrent weights of unit variance multiply the state at every step.
    """
    length = None if code.part.options.get("output") else 30
    net = Classifier(code, model, length=length, num_hidden=128, batch_size=128, own_init=True)
    digits = net.draw(128)
    targets = torch.randint(net.classes, (128,))
    scores = net(digits)
    loss, even = F.cross_entropy(scores, targets).item(), math.log(net.classes)
    assert abs(loss - even) < 5, f"the initial loss is {loss:.2f}, far from log {net.classes} = {even:.2f}"
    if (not net.log_probs and net.form(digits).dim() < 3) or (net.form(digits).shape[-1] == 1 and not net.log_probs):
        nudged = digits.clone()
        nudged[:, 0] += 1e-3
        change = ((net(nudged) - scores).norm() / (scores - scores.mean(0)).norm()).item()
        assert not change > 0.1, f"0.001 added to the first of 30 digits changes the scores by {change:.0%}: chaos"


@after(
    every_parameter_gets_its_gradient,
    weights_start_different,
    output_is_logits,
    output_is_log_probabilities,
    initial_loss_is_near_log_k,
)
def one_batch_can_be_overfitted(code: Code, model: str) -> None:
    """400 steps of Adam suffice to know 32 short sequences by heart.

    Look at whether every step of forward depends on the input and on the parameters as it should.
    """
    short = code.part.options.get("output") is None
    net = Classifier(code, model, length=3 if short else None, num_hidden=64, batch_size=32, own_init=True)
    digits, targets = net.palindromes(32, net.length)
    optimizer = torch.optim.Adam(net.net.parameters(), lr=0.01)
    best = 0.0
    for _ in range(400):
        scores = net(digits)
        best = max(best, (scores.argmax(1) == targets).double().mean().item())
        if best > 0.95:
            return
        optimizer.zero_grad()
        F.cross_entropy(scores, targets).backward()
        nn.utils.clip_grad_norm_(net.net.parameters(), 10.0)
        optimizer.step()
    raise AssertionError(f"after 400 steps it knows only {best:.0%} of one batch of 32")


def any_batch_size(code: Code, model: str) -> None:
    """A row's scores do not depend on the batch's size, nor need that be the constructor's.

    Look at where the first state gets its size: x.shape[0] rather than the constructor's batch_size.
    """
    net = Classifier(code, model)
    digits = net.draw()
    scores = net(digits)
    for size in (5, 1):
        assert torch.allclose(net(digits[:size]), scores[:size], atol=1e-5), f"a batch of {size} gives other scores"


def any_length(code: Code, model: str) -> None:
    """Inputs shorter or longer than the constructor's seq_length are read to their end.

    Look at the loop: over x.shape[1] steps rather than the constructor's seq_length.
    """
    net = Classifier(code, model)
    for steps in (net.length + 3, net.length - 3):
        digits = net.draw(B, steps)
        for place in (0, -1):
            changed = digits.clone()
            changed[:, place] = (changed[:, place] + 1) % net.symbols
            unread = (net(changed) == net(digits)).all()
            assert not unread, (
                f"built for {net.length} digits, given {steps}, it ignores the {'last' if place else 'first'}"
            )


def input_may_be_vectors(code: Code, model: str) -> None:
    """With input_dim 10 the model takes one-hot vectors (B, T, 10), and each of the ten matters.

    Look at how x is shaped in forward: (B, T) and (B, T, d) differ in their last axis only.
    """
    net = Classifier(code, model, input_dim=10) if not code.part.options.get("output") else None
    assert net
    vectors = F.one_hot(net.draw().long(), 10).float()
    for shift in (1, 5):
        same = torch.allclose(net.net(vectors.roll(shift, 2)), net.net(vectors), atol=1e-6)
        assert not same, "other one-hot vectors give the same scores"


@about("train.py")
def training_takes_the_steps_asked_for(code: Code) -> None:
    """train.py zeroes the gradients, clips them to max_norm after backward, and steps with the learning rate.

    Look at the order in the loop: zero_grad, forward, loss, backward, clip_grad_norm_, step.
    """
    run_training(code).check()


def _embedding(net: Classifier) -> torch.Tensor | None:
    """Return the table of embeddings, (symbols, d), if the model has one."""
    for name, parameter in net.net.named_parameters():
        if "emb" in name.lower() and parameter.dim() == 2:
            return parameter
    tables = [module.weight for module in net.net.modules() if isinstance(module, nn.Embedding)]
    return tables[0] if tables else None
