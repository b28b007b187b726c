"""What must hold of any solution of part 2, by the names `TextDataset`, `text_collate_fn`, `LSTM`,
`TextGenerationModel` alone.

Most of these fail some published solution. What an item of the dataset is, `text_collate_fn` alone has to know.
Parameters are told apart by their shapes or not at all, since their names and layout are the solution's own. Where its
initialisation is not the point, parameters are drawn anew, so that a very small or very large one hides nothing.
"""

import importlib
import math
import os
import string
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

MODELS = ("LSTM", "TextGenerationModel")  # a probe with an argument runs on each
VOCABULARY, EMBEDDING, HIDDEN = 7, 12, 16  # K, d, n
TEXT = string.ascii_letters[::-1]  # no character twice, so that a window tells its place
WRITE_VOCABULARY = """
from dataset import TextDataset
dataset = TextDataset("text.txt", 5)
with open("vocabulary.txt", "w", encoding="utf-8") as file:
    file.write(dataset.convert_to_string(list(range(dataset.vocabulary_size))))
"""


def targets_are_the_inputs_one_character_later():
    """Inputs are T consecutive characters of the text, targets the T that begin one later."""
    for length in (1, 5, 20):
        for random_select in (True, False):
            dataset = _dataset(TEXT, length, random_select=random_select)
            for index in range(len(dataset)):
                inputs, targets = _window(dataset, index)
                assert len(inputs) == length, f"with seq_length {length} the inputs are {len(inputs)} characters"
                assert inputs in TEXT, f"the inputs {inputs!r} do not occur in the text {TEXT!r}"
                expected = TEXT[TEXT.index(inputs) + 1 :][:length]
                assert targets == expected, f"in the text {TEXT!r} the inputs {inputs!r} have the targets {targets!r}"


def every_window_can_be_drawn():
    """With random_select, each window of the text is drawn now and then, the first and the last too."""
    dataset = _dataset(TEXT, 5)
    drawn = {TEXT.find(_window(dataset, draw % len(dataset))[0]) for draw in range(3000)}
    missing = sorted(set(range(len(TEXT) - 5)) - drawn)
    assert not missing, (
        f"in 3000 draws, {len(missing)} of {len(TEXT) - 5} windows never come, for example that at place {missing[-1]}"
    )


def windows_in_order_cover_the_text():
    """Without random_select windows are step_size apart, whatever the order of the requests; step_size 1 gives all."""
    for step in (1, 4):
        dataset = _dataset(TEXT, 5, step_size=step, random_select=False)
        _window(dataset, len(dataset) - 1)
        starts = [TEXT.find(_window(dataset, index)[0]) for index in range(len(dataset))]
        expected = list(range(0, 3 * step, step))
        assert starts[:3] == expected, f"with step_size {step} the first windows begin at {starts[:3]}, not {expected}"
        if step == 1:
            missing = sorted(set(range(len(TEXT) - 5)) - set(starts))
            assert not missing, (
                f"with step_size 1, {len(missing)} of {len(TEXT) - 5} windows are left out, "
                f"for example that at place {missing[-1]}"
            )


def vocabulary_is_the_texts_characters():
    """vocabulary_size counts the text's distinct characters; convert_to_string maps each number to another of them."""
    for text in ("abracadabra, abracadabra\n" * 3, TEXT):
        dataset = _dataset(text, 5)
        size = dataset.vocabulary_size
        assert size == len(set(text)), f"vocabulary_size is {size} for a text of {len(set(text))} distinct characters"
        found = dataset.convert_to_string(list(range(size)))
        assert isinstance(found, str), f"convert_to_string returned a {type(found).__name__}, not a string"
        assert sorted(found) == sorted(set(text)), (
            f"the numbers 0 to {size - 1} stand for {found!r}, not {sorted(set(text))}"
        )


def vocabulary_is_the_same_in_every_process():
    """A character's number does not change from one start of Python to the next, so that saved models stay readable."""
    dataset = _dataset(TEXT, 5)
    here = dataset.convert_to_string(list(range(dataset.vocabulary_size)))
    there = _vocabulary_elsewhere(PYTHONHASHSEED="2" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
    assert here == there, f"the vocabulary is {here!r} in one process and {there!r} in another: a set has no order"


def text_is_read_as_utf_8():
    """A text with characters beyond ASCII can be read under any locale."""
    text = "Zwölf Brüder, 十二兄弟, δώδεκα: naïve façade! 🙂\n" * 3
    Path("text.txt").write_bytes(text.encode())
    found = _vocabulary_elsewhere(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="utf-8")
    wrong = sorted(set(text) ^ set(found))
    assert not wrong, f"under the locale C {len(wrong)} characters are lost or invented, for one {wrong[0]!a}"


def batches_are_time_first():
    """text_collate_fn makes (T, B) int64 inputs and targets, a window a column."""
    dataset = _dataset(TEXT, 5, random_select=False)
    for size in (3, 1):
        batch = _collate([dataset[index] for index in range(size)])
        for kind, tensor in zip(("inputs", "targets"), batch):
            assert tensor.shape == (5, size), (
                f"the {kind} of {size} windows of 5 have shape {tuple(tensor.shape)}, not (5, {size})"
            )
            assert tensor.dtype == torch.int64, f"the {kind} are {tensor.dtype}, not int64"
        for index in range(size):
            found = tuple(dataset.convert_to_string(tensor[:, index].tolist()) for tensor in batch)
            assert found == _window(dataset, index), (
                f"column {index} reads {found}, window {index} {_window(dataset, index)}"
            )


def loader_workers_draw_different_windows():
    """Two loader workers draw different windows, and in each epoch others."""
    text = "".join(TEXT[number] for number in torch.randint(len(TEXT), (600,)))
    dataset = _dataset(text, 20)
    collate = importlib.import_module("dataset").text_collate_fn
    loader = torch.utils.data.DataLoader(dataset, 10, shuffle=True, num_workers=2, collate_fn=collate)
    epochs = [next(batches)[0] for batches in (iter(loader), iter(loader)) for _ in range(2)]
    for first, second, case in ((0, 1, "the two workers draw"), (0, 2, "two epochs begin with")):
        assert not torch.equal(epochs[first], epochs[second]), f"{case} the same windows"


def rows_are_independent_and_causal(model):
    """What stands at step t of a row changes that row's outputs from t on, each of them, and nothing else."""
    net, x = _build(model), _input(model)
    before = _call(net, x)
    for t in range(len(x)):
        changed = x.clone()
        changed[t, 3] = changed[t, 3] + 1 if model == "LSTM" else (changed[t, 3] + 3) % VOCABULARY
        difference = (_call(net, changed) - before).abs().amax(2)
        unmoved = [t + 1 + place for place, d in enumerate(difference[t:, 3]) if d == 0]
        assert not unmoved, (
            f"another input at step {t + 1} leaves the same row's outputs at steps {unmoved} as they were"
        )
        difference[t:, 3] = 0
        step, row = divmod(difference.argmax().item(), difference.shape[1])
        assert difference.max() < 1e-5, (
            f"another input at step {t + 1} of row 3 changes the output at step {step + 1} of row {row}"
        )


def calls_keep_no_state(model):
    """The same input gives the same output, whatever was computed or sampled before."""
    net, x = _build(model), _input(model)
    before = _call(net, x)
    _call(net, x.flip(1))
    assert torch.allclose(_call(net, x), before, atol=1e-5), "the same input gave another output the second time"
    if model == "TextGenerationModel":
        _sample(net, x.shape[1], 5)
        assert torch.allclose(_call(net, x), before, atol=1e-5), "the same input gave another output after sampling"


def any_batch_size_and_length(model):
    """An output does not depend on how many rows there are, nor on how many steps follow."""
    net, x = _build(model), _input(model, 40, 9)
    whole = _call(net, x)
    for steps, rows in ((40, 1), (1, 9), (7, 4), (1, 1)):
        same = torch.allclose(_call(net, x[:steps, :rows]), whole[:steps, :rows], atol=1e-5)
        assert same, f"{steps} steps of {rows} rows give another output than as a part of 40 steps of 9 rows"


def every_parameter_gets_its_gradient(model):
    """A loss at the last step gives every parameter the gradient that finite differences give."""
    net, x = _build(model), _input(model)
    weights = torch.randn_like(_call(net, x)[-1])

    def loss():
        return (_call(net, x)[-1] * weights).sum()

    loss().backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.any(), f"the gradient of {name} is zero"
            slope = parameter.grad.norm()
            with torch.no_grad():
                step = 0.02 * parameter.grad / slope
                parameter += step
                rise = loss()
                parameter -= 2 * step
                measured = (rise - loss()) / 0.04
                parameter += step
            assert abs(measured - slope) < 0.01 * slope + 1e-3, (
                f"along the gradient of {name} the loss rises by {measured:.3f} a unit, not by {slope:.3f}: "
                "a path is cut"
            )


def no_ready_made_layers(model):
    """The LSTM has no nn.LSTM, nn.LSTMCell, their kin, or nn.Linear inside; the model may have the last."""
    banned = (nn.RNNBase, nn.RNNCellBase, *[nn.Linear] * (model == "LSTM"))
    found = {type(module).__name__ for module in _build(model).modules() if isinstance(module, banned)}
    assert not found, f"it is made of {', '.join(sorted(found))}"


def parameter_count(model):
    """The LSTM has 4 (n d + n^2 + n) trainable numbers; the model K d for the embedding and K n + K for the output."""
    k, d, n = VOCABULARY, EMBEDDING, HIDDEN
    expected = 4 * (n * d + n * n + n) + (k * d + k * n + k) * (model == "TextGenerationModel")
    found = sum(parameter.numel() for parameter in _build(model).parameters() if parameter.requires_grad)
    assert found == expected, f"{found} trainable parameters, not {expected}, for d={d}, n={n}, K={k}"


@torch.no_grad()
def equations_hold_for_equal_parameters(model):
    """With all parameters set to one number the outputs are the equations', whatever the weights' names and layout."""
    net, x, a = _build(model), _input(model), 0.1
    for parameter in net.parameters():
        parameter.fill_(a)
    sums = x.double().sum(2) if model == "LSTM" else torch.full(x.shape, EMBEDDING * a).double()
    h, c, expected = torch.zeros(x.shape[1]).double(), torch.zeros(x.shape[1]).double(), []  # all units are equal
    for x_t in sums:
        z = a * (x_t + HIDDEN * h + 1)
        c = z.tanh() * z.sigmoid() + c * z.sigmoid()
        h = c.tanh() * z.sigmoid()
        expected.append(h if model == "LSTM" else a * (HIDDEN * h + 1))
    error = (_call(net, x) - torch.stack(expected).unsqueeze(2)).abs().max().item()
    assert error < 1e-4, f"with all parameters {a}, the outputs are off by {error:.2g}"


@torch.no_grad()
def state_starts_at_zero():
    """With all parameters zero, or only the biases and the input zero, all outputs of the LSTM are zero."""
    net, x = _build("LSTM"), _input("LSTM")
    for parameter in net.parameters():
        if parameter.numel() == max(parameter.shape):  # the biases
            parameter.zero_()
    assert not _call(net, torch.zeros_like(x)).any(), (
        "zero biases and inputs give non-zero outputs: the first state is not 0"
    )
    for parameter in net.parameters():
        parameter.zero_()
    assert not _call(net, x).any(), "the outputs are not zero although all parameters are"


def initial_weights_are_uniform():
    """The LSTM's parameters start uniform in +-1/sqrt(n), biases too; to n of them, the forget gate's, 1 is added."""
    n, shifted = 256, 0
    bound = n**-0.5
    for name, parameter in _build("LSTM", d=32, n=n, scale=None).named_parameters():
        above = parameter > bound
        shifted += above.sum().item()
        values = parameter - above.float()
        farthest, spread = values.abs().max().item(), (values.square().mean() * 3).sqrt().item()
        assert farthest < 1.001 * bound, (
            f"{name} starts with a number {farthest:.3f} from 0 or 1, beyond 1/sqrt(n) = {bound:.3f}"
        )
        assert abs(spread / bound - 1) < 0.2, (
            f"{name} starts with numbers spread as if in +-{spread:.3f}, not +-{bound:.3f}"
        )
    assert shifted == n, f"{shifted} numbers start near 1, not the {n} of the forget gate's bias"


def forget_gate_starts_open():
    """As initialised, the cells keep sigma(1) = 73 % of what they hold: the 1 was added to the forget gate's bias."""
    with torch.no_grad():
        h = _call(_build("LSTM", n=256, scale=None), torch.zeros(2, 1, EMBEDDING), size=256)[:, 0]
    kept = (h[1] / h[0] - 1).median().item()  # c(2) = c(1) + f c(1), nearly, while the states are small
    assert abs(kept - 0.731) < 0.08, f"as initialised, the cells keep {kept:.0%} of what they hold, not 73 %"


def output_is_logits():
    """The model's output is logits, neither probabilities nor their logarithms."""
    logits = _call(_build("TextGenerationModel"), _input("TextGenerationModel"))
    for dim, over in enumerate(("time", "the batch", "the vocabulary")):
        ones = torch.ones(())
        assert not torch.allclose(logits.sum(dim), ones, atol=1e-4), (
            f"the outputs sum to one over {over}: softmax was applied"
        )
        assert not torch.allclose(logits.exp().sum(dim), ones, atol=1e-4), f"log-softmax over {over} was applied"


def initial_loss_is_near_log_K():
    """As initialised, the model is undecided: its loss is within 0.5 of log K."""
    k = 60
    net, x = _build("TextGenerationModel", k=k, d=64, n=128, scale=None), torch.randint(k, (31, 64))
    loss = F.cross_entropy(_call(net, x[:-1], size=k).flatten(0, 1), x[1:].flatten()).item()
    assert abs(loss - math.log(k)) < 0.5, f"the initial loss is {loss:.2f}, far from log {k} = {math.log(k):.2f}"


def one_batch_can_be_overfitted():
    """200 steps of Adam suffice to know 8 texts of 12 characters by heart, each by its first one."""
    x = torch.randint(10, (12, 8))
    x[0] = torch.arange(8)
    net = _build("TextGenerationModel", k=10, d=16, n=64, scale=None)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    best = 0.0
    for _ in range(200):
        logits = _call(net, x[:-1], size=10)
        best = max(best, (logits.argmax(2) == x[1:]).double().mean().item())
        if best > 0.95:
            return
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), x[1:].flatten()).backward()
        optimizer.step()
    raise AssertionError(f"after 200 steps it knows only {best:.0%} of one batch of 8 texts")


def samples_have_their_shape():
    """sample returns (sample_length, batch_size) numbers of characters, 30 and 4 by default, at any temperature."""
    net = _build("TextGenerationModel")
    shape = tuple(torch.as_tensor(net.sample()).shape)
    assert shape == (30, 4), f"sample() has shape {shape}, not (30, 4)"
    for batch_size, sample_length in ((4, 1), (1, 1), (1, 6), (9, 2), (3, 100)):
        for temperature in (0.0, 1.0):
            _sample(net, batch_size, sample_length, temperature)


def samples_start_with_any_character():
    """Texts of one sample start with different characters, and all of the vocabulary occur."""
    first = _sample(_build("TextGenerationModel"), 300, 1)[0]
    missing = sorted(set(range(VOCABULARY)) - set(first.tolist()))
    assert not missing, f"of 300 texts none starts with the characters {missing} of {VOCABULARY}"


def samples_follow_the_model():
    """At temperature 0 each character is the likeliest by the model's logits for its row so far; at 0.05 nearly so."""
    net = _build("TextGenerationModel", scale=2.0)
    for temperature, slack in ((0.0, 1e-3), (0.05, 1.0)):
        _assert_likeliest(net, _sample(net, 20, 15, temperature), slack, f"at temperature {temperature:g}")


def greedy_sampling_is_deterministic():
    """At temperature 0, texts with the same first character are the same, in one call and in the next."""
    net, texts = _build("TextGenerationModel", scale=2.0), {}
    for _ in range(2):
        for first, *text in _sample(net, 30, 15).t().tolist():
            assert texts.setdefault(first, text) == text, (
                f"after character {first} came once {texts[first]} and once {text}"
            )


def sampled_frequencies_match_the_softmax():
    """Where logits are constant, characters are drawn as softmax(p / temperature) says, at 0.5, 1 and 2."""
    net = _build_constant(bias := torch.tensor([1.5, -1.0, 0.5, 0.0, -0.5, 1.0, -1.5]))
    for temperature in (0.5, 1.0, 2.0):
        drawn = _sample(net, 200, 51, temperature)[1:].flatten()
        frequencies = torch.bincount(drawn, minlength=VOCABULARY) / len(drawn)
        expected = (bias / temperature).softmax(0)
        worst = (frequencies - expected).abs().argmax()
        assert abs(frequencies[worst] - expected[worst]) < 0.03, (
            f"at temperature {temperature:g}, a character of probability {expected[worst]:.2f} is drawn with frequency "
            f"{frequencies[worst]:.2f}"
        )


def sampled_rows_are_drawn_apart():
    """At temperature 1 the rows of a sample are drawn independently, and each call draws anew."""
    net = _build_constant(torch.zeros(VOCABULARY))
    texts = torch.cat([_sample(net, 20, 31, 1.0)[1:] for _ in range(2)], dim=1)
    distinct = len(texts[:, :20].unique(dim=1).t())
    assert distinct == 20, f"of 20 texts drawn at once only {distinct} are different"
    distinct = len(texts.unique(dim=1).t())
    assert distinct == 40, f"of 40 texts drawn in two calls only {distinct} are different"


def sampling_turns_dropout_off():
    """A model in training, if it has dropout, samples without it, and has it again afterwards."""
    net, x = _build("TextGenerationModel", scale=2.0, dropout=0.5), _input("TextGenerationModel")
    if torch.equal(_call(net, x), _call(net, x)):
        return  # this solution has no dropout
    samples = _sample(net, 20, 15)
    assert not torch.equal(_call(net, x), _call(net, x)), "after sampling, the model trains without dropout"
    _assert_likeliest(net.eval(), samples, 1e-3, "sampled in training mode")


def _dataset(text, seq_length, **options):
    """Construct the solution's dataset of a text."""
    Path("text.txt").write_text(text, encoding="utf-8", newline="\n")
    dataset = importlib.import_module("dataset").TextDataset("text.txt", seq_length, **options)
    assert len(dataset) > 0, f"a text of {len(text)} characters has no window of {seq_length}, says len()"
    return dataset


def _collate(items):
    """Return the pair that `text_collate_fn` makes of items."""
    batch = importlib.import_module("dataset").text_collate_fn(items)
    assert len(batch) == 2, f"text_collate_fn returned {len(batch)} things, not inputs and targets"
    for tensor in batch:
        assert isinstance(tensor, torch.Tensor), f"text_collate_fn made a {type(tensor).__name__}, not a tensor"
    return batch


def _window(dataset, index):
    """Return an item's inputs and targets as strings."""
    return tuple(dataset.convert_to_string(tensor.flatten().tolist()) for tensor in _collate([dataset[index]]))


def _vocabulary_elsewhere(**environment):
    """Return the characters of text.txt, in their numbers' order, as another process finds them."""
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-B", "-c", WRITE_VOCABULARY]
    run = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = run.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
    assert run.returncode == 0, f"with {settings}, TextDataset crashed: {error}"
    return Path("vocabulary.txt").read_bytes().decode()


def _build(model, k=VOCABULARY, d=EMBEDDING, n=HIDDEN, scale=0.5, dropout=0.0):
    """Construct the solution's LSTM or model, with parameters drawn anew in +-scale unless that is None."""
    if model == "LSTM":
        net = importlib.import_module("model").LSTM(n, d)
    else:
        sizes = {"vocabulary_size": k, "embedding_size": d, "lstm_hidden_dim": n, "lstm_num_layers": 1}
        args = Namespace(**sizes, dropout=dropout, dropout_keep_prob=1 - dropout, device="cpu")
        net = importlib.import_module("model").TextGenerationModel(args)
    assert isinstance(net, nn.Module), f"{model} is no nn.Module"
    assert list(net.parameters()), f"{model} has no parameters"
    if scale:
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -scale, scale)
    return net


@torch.no_grad()
def _build_constant(bias):
    """Construct the solution's model with an output that is `bias` alone, whatever was read."""
    net = _build("TextGenerationModel")
    found = [parameter for parameter in net.parameters() if parameter.numel() == VOCABULARY]
    assert len(found) == 1, f"{len(found)} parameters, not one, are of the size of the output's bias"
    for parameter in net.parameters():
        parameter.zero_()
    found[0].copy_(bias.view_as(found[0]))
    return net


def _input(model, steps=6, rows=5):
    """Draw vectors (T, B, d) for the LSTM, characters (T, B) for the model."""
    return torch.randn(steps, rows, EMBEDDING) if model == "LSTM" else torch.randint(VOCABULARY, (steps, rows))


def _call(net, x, size=None):
    """Return the output, `size` numbers (n or K) a step and row, after a look at its form."""
    output = net(x)
    assert isinstance(output, torch.Tensor), f"it returned a {type(output).__name__}, not a tensor"
    expected = (*x.shape[:2], size or (HIDDEN if x.dim() == 3 else VOCABULARY))
    assert output.shape == expected, (
        f"inputs (T, B) = {tuple(x.shape[:2])} gave shape {tuple(output.shape)}, not {expected}"
    )
    assert output.isfinite().all(), "the output is not finite"
    return output


def _sample(net, batch_size, sample_length, temperature=0.0):
    """Return sampled characters (T, B), after a look at their form."""
    samples = net.sample(batch_size=batch_size, sample_length=sample_length, temperature=temperature)
    samples = torch.as_tensor(samples)
    expected = (sample_length, batch_size)
    assert samples.shape == expected, (
        f"{batch_size} samples of length {sample_length} have shape {tuple(samples.shape)}"
    )
    assert not samples.is_floating_point(), f"the sampled characters are {samples.dtype}, not integers"
    assert 0 <= samples.min() and samples.max() < VOCABULARY, (
        f"characters {samples.min()} to {samples.max()} of {VOCABULARY}"
    )
    return samples


def _assert_likeliest(net, samples, slack, case):
    """See that no sampled character's logit, given all characters before it, is more than `slack` below the largest."""
    with torch.no_grad():
        logits = _call(net, samples)[:-1]
    below = logits.amax(2) - logits.gather(2, samples[1:].unsqueeze(2)).squeeze(2)
    if not (below <= slack).all():
        step = (below > slack).any(1).nonzero()[0].item()
        raise AssertionError(
            f"{case}, character {step + 2} of a text is not what the model says after the first {step + 1}"
        )
