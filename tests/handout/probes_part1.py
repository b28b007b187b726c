"""What must hold of any solution of part 1, by the names `PalindromeDataset`, `VanillaRNN` and `LSTM` alone.

Most of these fail some published solution. Parameters are told apart by their shapes or not at all, since their names
and layout are the solution's own. Where its initialisation is not the point, parameters are drawn anew, so that a very
small or very large one hides nothing.
"""

import importlib
import math
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MODELS = {"VanillaRNN": "vanilla_rnn", "LSTM": "lstm"}  # class and module; a probe with an argument runs on each
NUM_HIDDEN, NUM_CLASSES = 32, 10


def dataset_items_are_palindromes():
    """Items are T-1 float32 digits and the int digit that completes a palindrome; generate_palindrome gives all T."""
    from dataset import PalindromeDataset

    for length in (2, 3, 10, 11):
        dataset = PalindromeDataset(length)
        assert len(dataset) == sys.maxsize, f"len is {len(dataset)}, not sys.maxsize"
        for index in range(20):
            digits, target = dataset[index]
            assert isinstance(digits, np.ndarray), f"the digits are a {type(digits).__name__}, not an array"
            assert digits.dtype == np.float32, f"the digits are {digits.dtype}, not float32"
            assert digits.shape == (length - 1,), f"the digits of length {length} have shape {digits.shape}"
            assert isinstance(target, (int, np.integer)), f"the target is a {type(target).__name__}, not an int"
            for whole in ([*digits.tolist(), target], np.asarray(dataset.generate_palindrome()).tolist()):
                assert len(whole) == length, f"a palindrome of {len(whole)} digits, not {length}"
                assert whole == whole[::-1], f"not a palindrome: {whole}"
                assert set(whole) <= set(range(10)), f"not digits: {whole}"


def dataset_draws_every_digit():
    """Items differ, and each of the ten digits occurs in every place."""
    from dataset import PalindromeDataset

    for length in (20, 21):
        dataset = PalindromeDataset(length)
        items = np.array([[*digits, target] for digits, target in (dataset[index] for index in range(500))])
        assert len(np.unique(items, axis=0)) == 500, f"of 500 items of length {length} some are the same"
        for place in range(length):
            missing = set(range(10)) - set(items[:, place].tolist())
            assert not missing, f"within 500 items, place {place} never holds {sorted(missing)}"


def dataset_works_in_a_data_loader():
    """Two loader workers give (B, T-1) float32 and (B,) int64 batches, and never the same palindromes."""
    from dataset import PalindromeDataset

    batches = iter(torch.utils.data.DataLoader(PalindromeDataset(20), batch_size=50, num_workers=2))
    batches = [next(batches) for _ in range(4)]
    for digits, targets in batches:
        assert digits.shape == (50, 19), f"the digits have shape {tuple(digits.shape)}, not (50, 19)"
        assert targets.shape == (50,), f"the targets have shape {tuple(targets.shape)}, not (50,)"
        assert (digits.dtype, targets.dtype) == (torch.float32, torch.int64), f"{digits.dtype} and {targets.dtype}"
    distinct = len(torch.cat([digits for digits, _ in batches]).unique(dim=0))
    assert distinct == 200, f"200 palindromes from two workers are only {distinct} different ones"


def output_is_logits(model):
    """The output is (B, K) logits, neither probabilities nor their logarithms."""
    logits = _call(_build(model), _palindromes(16)[0])
    assert not torch.allclose(logits.sum(1), torch.ones(16), atol=1e-4), "every row sums to one: softmax was applied"
    assert not torch.allclose(logits.logsumexp(1), torch.zeros(16), atol=1e-4), "log-softmax was applied"


def rows_are_independent_and_remembered(model):
    """A digit of one row changes that row's logits, however early it stands, and no other's."""
    net, (digits, _) = _build(model), _palindromes(16)
    before = _call(net, digits)
    for place in range(digits.shape[1]):
        changed = digits.clone()
        changed[3, place] = (changed[3, place] + 5) % 10
        difference = (_call(net, changed) - before).abs().amax(1)
        assert difference[3] > 0, f"digit {place + 1} of {digits.shape[1]} has no influence on its own row's logits"
        difference[3] = 0
        assert difference.max() < 1e-5, f"changing a digit of row 3 changes the logits of row {difference.argmax()}"


def calls_keep_no_state(model):
    """The same input gives the same logits, whatever was computed before."""
    net, (digits, _) = _build(model), _palindromes(16)
    before = _call(net, digits)
    _call(net, digits.flip(0))
    assert torch.allclose(_call(net, digits), before, atol=1e-5), "the same input gave other logits the second time"


def any_batch_size(model):
    """A row's logits do not depend on the batch's size, nor need that be the constructor's."""
    net, (digits, _) = _build(model, batch_size=16), _palindromes(40)
    logits = _call(net, digits)
    for size in (16, 5, 1):
        assert torch.allclose(_call(net, digits[:size]), logits[:size], atol=1e-5), (
            f"a batch of {size} gives other logits"
        )


def any_length(model):
    """Inputs shorter or longer than the constructor's seq_length are read to their end."""
    net = _build(model, seq_length=6)
    for num_digits in (9, 3):
        digits = _palindromes(16, num_digits)[0]
        for place in (0, -1):
            changed = digits.clone()
            changed[:, place] = (changed[:, place] + 5) % 10
            unread = (_call(net, changed) == _call(net, digits)).all(1).any()
            assert not unread, (
                f"built for 6 digits, given {num_digits}, it ignores the {'last' if place else 'first'} one"
            )


def input_may_be_vectors(model):
    """With input_dim 10 the model takes (B, T, 10) one-hot vectors, and each of the ten matters."""
    net, (digits, _) = _build(model, input_dim=10), _palindromes(16)
    vectors = F.one_hot(digits.long(), 10).float()
    for shift in (1, 5):
        same = torch.allclose(_call(net, vectors.roll(shift, 2)), _call(net, vectors), atol=1e-6)
        assert not same, "other one-hot vectors give the same logits"


def initial_loss_is_near_log_10(model):
    """As initialised, the model is undecided (loss within 1 of log 10) and not chaotic."""
    net, (digits, targets) = _build(model, seq_length=30, num_hidden=128, own_init=True), _palindromes(128, 30)
    logits = _call(net, digits)
    loss = F.cross_entropy(logits, targets).item()
    assert abs(loss - math.log(10)) < 1, (
        f"the initial loss is {loss:.2f}, far from log 10 = 2.30: the weights are too large"
    )
    nudged = digits.clone()
    nudged[:, 0] += 1e-3
    change = ((_call(net, nudged) - logits).norm() / (logits - logits.mean(0)).norm()).item()
    assert not change > 0.1, (
        f"0.001 added to the first of 30 digits changes the logits by {change:.0%}: the weights are too large"
    )


def every_parameter_gets_a_gradient(model):
    """The loss of a batch gives every parameter a finite gradient that is not zero."""
    net, (digits, targets) = _build(model), _palindromes(64)
    F.cross_entropy(_call(net, digits), targets).backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.any(), f"the gradient of {name} is zero"


def no_ready_made_layers(model):
    """The model has no nn.RNN, nn.LSTM, their cells, or nn.Linear inside."""
    banned = [
        type(m).__name__ for m in _build(model).modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase, nn.Linear))
    ]
    assert not banned, f"it is made of {', '.join(sorted(set(banned)))}"


def parameter_count(model):
    """The recurrence has n d + n^2 + n trainable numbers, the LSTM's four times as many; the output layer K n + K."""
    n, d, k = 20, 3, 7
    expected = {"VanillaRNN": 1, "LSTM": 4}[model] * (n * d + n * n + n) + k * n + k
    net = _build(model, input_dim=d, num_hidden=n, num_classes=k)
    found = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    assert found == expected, f"{found} trainable parameters, not {expected}, for d={d}, n={n}, K={k}"


@torch.no_grad()
def state_starts_at_zero(model):
    """With all parameters zero, or only the biases and the input zero, all logits are zero."""
    net, (digits, _) = _build(model), _palindromes(16, 3)
    for parameter in net.parameters():
        if parameter.numel() == max(
            parameter.shape
        ):  # the biases, and W_x of input_dim 1, which a zero input hides anyway
            parameter.zero_()
    assert not _call(net, torch.zeros_like(digits)).any(), (
        "zero biases and inputs give non-zero logits: the first state is not 0"
    )
    for parameter in net.parameters():
        parameter.zero_()
    assert not _call(net, digits).any(), "the logits are not zero although all parameters are"


@torch.no_grad()
def equations_hold_for_equal_parameters(model):
    """With all parameters set to one number the logits are the equations', whatever the weights' names and layout."""
    net, (digits, _) = _build(model), _palindromes(16)
    a, h, c = 0.05, torch.zeros(16).double(), torch.zeros(16).double()  # all units are equal: one number a row
    for parameter in net.parameters():
        parameter.fill_(a)
    for x in digits.double().unbind(1):
        z = a * (x + NUM_HIDDEN * h + 1)
        c = z.tanh() * z.sigmoid() + c * z.sigmoid()
        h = c.tanh() * z.sigmoid() if model == "LSTM" else z.tanh()
    expected = (a * (NUM_HIDDEN * h + 1)).unsqueeze(1).expand(16, NUM_CLASSES)
    error = (_call(net, digits) - expected).abs().max().item()
    assert error < 1e-4, f"with all parameters {a}, the logits are off by {error:.2g}"


def one_batch_can_be_overfitted(model):
    """300 steps of Adam suffice to name the last digit of 32 palindromes of length 4."""
    digits, targets = _palindromes(32, 3)
    net = _build(model, seq_length=3, num_hidden=64, batch_size=32, own_init=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    best = 0.0
    for _ in range(300):
        logits = _call(net, digits)
        best = max(best, (logits.argmax(1) == targets).double().mean().item())
        if best > 0.95:
            return
        optimizer.zero_grad()
        F.cross_entropy(logits, targets).backward()
        optimizer.step()
    raise AssertionError(f"after 300 steps it knows only {best:.0%} of one batch of 32")


def _build(
    model, seq_length=6, input_dim=1, num_hidden=NUM_HIDDEN, num_classes=NUM_CLASSES, batch_size=16, own_init=False
):
    """Construct the solution's model, with parameters drawn anew unless its `own_init` is wanted."""
    net = getattr(importlib.import_module(MODELS[model]), model)(
        seq_length, input_dim, num_hidden, num_classes, batch_size, "cpu"
    )
    assert isinstance(net, nn.Module), f"{model} is no nn.Module"
    assert list(net.parameters()), f"{model} has no parameters"
    if not own_init:
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -(num_hidden**-0.5), num_hidden**-0.5)
    return net


def _call(net, x):
    """Return the model's logits, after a look at their form."""
    logits = net(x)
    assert isinstance(logits, torch.Tensor), f"the model returned a {type(logits).__name__}, not a tensor"
    assert logits.shape == (len(x), NUM_CLASSES), f"{len(x)} inputs gave logits of shape {tuple(logits.shape)}"
    assert logits.isfinite().all(), "the logits are not finite"
    return logits


def _palindromes(num, num_digits=6):
    """Draw palindromes: (num, num_digits) floats to read, and (num,) last digits to name, equal to the first ones."""
    left = torch.randint(10, (num, num_digits // 2 + 1)).float()
    return torch.cat((left, left[:, 1 : (num_digits + 1) // 2].flip(1)), dim=1), left[:, 0].long()
