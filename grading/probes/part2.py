"""What must hold of part 2: a model of text, its data, its training and its samples.

What an item of the dataset is, `text_collate_fn` alone has to know, where there is one. Parameters are told apart by
their shapes or not at all, since their names and layout are the submission's own.
"""

import locale
import math
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grading.adapters.part2 import B, D, K, N, T, TextModel
from grading.adapters.training import LETTERS, run_training
from grading.loading import Code, NotJudged, Unusable
from grading.probes import about, after
from grading.probes.checks import check_gradients, check_weights_differ

TEXT = string.ascii_letters[::-1]  # no character twice, so that a window tells its place


def runs(code: Code, model: str) -> None:
    """The model can be constructed as the handed-out train.py does, and gives an output for every step and row."""
    TextModel(code, model)


def no_ready_made_layers(code: Code, model: str) -> None:
    """The LSTM is written by hand, without nn.LSTM, its kin, or nn.Linear; the model may have the last.

    Look at __init__: the handout allows nn.Parameter and the non-linearities.
    """
    banned = (nn.RNNBase, nn.RNNCellBase, *[nn.Linear] * (model == "LSTM"))
    found = {type(module).__name__ for module in TextModel(code, model).net.modules() if isinstance(module, banned)}
    assert not found, f"it is made of {', '.join(sorted(found))}"


def calls_keep_no_state(code: Code, model: str) -> None:
    """The same input gives the same output, whatever was computed or sampled before.

    Look at where h and c start: in forward, not in __init__, and not kept on self.
    """
    net = TextModel(code, model)
    x = net.draw()
    before = net(x)
    net.again(x.flip(1))
    assert torch.allclose(net.again(x), before, atol=1e-5), "the same input gave another output the second time"
    if not net.is_lstm and code.part.options.get("sample"):
        try:
            net.sample(B, 5)
        except Exception:
            return  # what is wrong with sampling is said elsewhere
        assert torch.allclose(net.again(x), before, atol=1e-5), "the same input gave another output after sampling"


def rows_are_independent_and_causal(code: Code, model: str) -> None:
    """What stands at step t of a row changes that row's outputs from t on, each of them, and nothing else.

    Look at the loop over time: which axis does it run over, and is the new state computed from the old one?
    """
    net = TextModel(code, model)
    x = net.draw()
    before = net(x)
    for t in range(len(x)):
        changed = x.clone()
        changed[t, 3] = changed[t, 3] + 1 if net.is_lstm else (changed[t, 3] + 3) % K
        difference = (net(changed) - before).abs().amax(2)
        own = difference[t:, 3].clone()
        difference[t:, 3] = 0
        step, row = divmod(int(difference.argmax()), difference.shape[1])
        assert difference.max() < 1e-5, (
            f"another input at step {t + 1} of row 3 changes the output at step {step + 1} of row {row}"
        )
        unmoved = [t + 1 + place for place, d in enumerate(own) if d == 0]
        assert not unmoved, f"another input at step {t + 1} leaves its row's outputs at steps {unmoved} as they were"


@after(rows_are_independent_and_causal)
def any_batch_size_and_length(code: Code, model: str) -> None:
    """An output does not depend on how many rows there are, nor on how many steps follow.

    Look at where sizes come from: x.shape, not the constructor's.
    """
    net = TextModel(code, model)
    x = net.draw(40, 9)
    whole = net(x)
    for steps, rows in ((40, 1), (1, 9), (7, 4), (1, 1)):
        same = torch.allclose(net(x[:steps, :rows]), whole[:steps, :rows], atol=1e-5)
        assert same, f"{steps} steps of {rows} rows give another output than as a part of 40 steps of 9 rows"


@after(rows_are_independent_and_causal)
def every_parameter_gets_its_gradient(code: Code, model: str) -> None:
    """A loss at the last step gives every parameter the gradient that finite differences give: no path is cut.

    Look for .data, .detach(), .item(), torch.no_grad() and torch.tensor(...) in forward, and for parameters that are
    plain tensors.
    """
    net = TextModel(code, model)
    x = net.draw()
    weights = torch.randn_like(net(x)[-1])

    def loss() -> Tensor:
        return (net(x)[-1] * weights).sum()

    check_gradients(net.net, loss, "output has", step=0.02, tolerance=2e-3)


@after(no_ready_made_layers)
def parameter_count(code: Code, model: str) -> None:
    """The LSTM has 4 (n d + n^2 + n) trainable numbers; the model K d for the embedding and K n + K for the output.

    Look at __init__: is a bias missing or there twice, a gate left out, a tensor no nn.Parameter?
    """
    expected = 4 * (N * D + N * N + N) + (K * D + K * N + K) * (model != "LSTM")
    found = sum(p.numel() for p in TextModel(code, model).net.parameters() if p.requires_grad)
    assert found == expected, f"{found} trainable parameters, not {expected}, for d={D}, n={N}, K={K}"


def state_starts_at_zero(code: Code, model: str) -> None:
    """With biases and input zero, all outputs of the LSTM are zero: h(0) and c(0) are 0.

    Look at where h and c start: torch.zeros, not torch.ones or torch.rand.
    """
    net = TextModel(code, model, steps=40)
    for parameter in net.net.parameters():
        if parameter.numel() == max(parameter.shape):
            parameter.data.zero_()
    sizes = net(torch.zeros(40, B, D)).abs().amax((1, 2))
    assert sizes[0] < 1e-6 or sizes[-1] > 0.3 * sizes[0], (  # what gates make of zeros does not fade
        f"zero biases and inputs give outputs of up to {sizes[0]:.2g}, and smaller ones later: the first state is not 0"
    )


def output_is_logits(code: Code, model: str) -> None:
    """The output is logits, or log-probabilities, of the next character: not probabilities.

    Look at the end of forward: nn.CrossEntropyLoss has the softmax inside, and a second one flattens its gradient.
    """
    net = TextModel(code, model)
    logits = net(net.draw())
    for dim, over in enumerate(("time", "the batch", "the vocabulary")):
        ones = torch.ones(())
        total = logits.sum(dim)
        if dim == 2 and (code.folder / "train.py").is_file() and "NLLLoss" in code.source("train.py"):
            continue  # probabilities whose logarithm the training takes
        assert not torch.allclose(total, ones, atol=1e-4), f"the outputs sum to one over {over}: softmax was applied"
        if dim < 2:
            assert not torch.allclose(logits.exp().sum(dim), ones, atol=1e-4), f"log-softmax over {over} was applied"


@after(state_starts_at_zero, parameter_count, rows_are_independent_and_causal, output_is_logits)
def equations_hold_for_equal_parameters(code: Code, model: str) -> None:
    """With all parameters set to one number the outputs are those of the handout's equations.

    Look at the equations one by one: which gate has tanh and which sigma, what is multiplied by what, tanh(c) in h.
    """
    net, a = TextModel(code, model), 0.1
    x = net.draw()
    for parameter in net.net.parameters():
        parameter.data.fill_(a)
    sums = x.double().sum(2) if net.is_lstm else torch.full(x.shape, D * a).double()
    h = c = torch.zeros(x.shape[1]).double()  # all units are equal: one number a row
    expected = []
    for x_t in sums:
        z = a * (x_t + N * h + 1)
        c = z.tanh() * z.sigmoid() + c * z.sigmoid()
        h = c.tanh() * z.sigmoid()
        expected.append(h if net.is_lstm else a * (N * h + 1))
    found = net(x)
    if not net.is_lstm and torch.allclose(found.exp().sum(2), torch.ones(()), atol=1e-4):
        raise NotJudged("its outputs are log-probabilities, which tell nothing where all parameters are equal")
    error = (found - torch.stack(expected).unsqueeze(2)).abs().max().item()
    assert error < 1e-4, f"with all parameters {a}, the outputs are off by {error:.2g}"


def weights_start_different(code: Code, model: str) -> None:
    """As initialised, no weight matrix is zero or all one number: the units differ.

    Look at the initialisation: torch.zeros or torch.empty for a weight, with nothing drawn into it.
    """
    check_weights_differ(TextModel(code, model, scale=None).net)


@about("init_parameters")
@after(weights_start_different)
def initial_weights_are_uniform(code: Code, model: str) -> None:
    """The LSTM's parameters start uniform in +-1/sqrt(n), biases too; to n of them, the forget gate's, 1 is added.

    Look at init_parameters: nn.init.uniform_ with the bound 1/sqrt(hidden), for every parameter, and 1 added once.
    """
    n, shifted = 256, 0
    bound = n**-0.5
    for name, parameter in TextModel(code, model, d=32, n=n, scale=None).net.named_parameters():
        above = parameter > bound
        shifted += int(above.sum())
        values = parameter - above.float()
        farthest, spread = values.abs().max().item(), (values.square().mean() * 3).sqrt().item()
        assert spread > 0, f"{name} starts with nothing but zeros"
        assert farthest < 1.001 * bound, (
            f"{name} starts with a number {farthest:.3f} from 0 or 1, beyond 1/sqrt(n) = {bound:.3f}"
        )
        assert abs(spread / bound - 1) < 0.2, f"{name} starts spread as if in +-{spread:.3f}, not +-{bound:.3f}"
    assert shifted == n, f"{shifted} numbers start near 1, not the {n} of the forget gate's bias"


@about("init_parameters")
@after(initial_weights_are_uniform, state_starts_at_zero, equations_hold_for_equal_parameters)
def forget_gate_starts_open(code: Code, model: str) -> None:
    """As initialised, the cells keep sigma(1) = 73 % of what they hold: the 1 was added to the forget gate's bias.

    Look at init_parameters: to which of the four biases is 1 added?
    """
    net = TextModel(code, model, n=256, scale=None)
    h = net(torch.zeros(T, B, D))[:2, 0]
    kept = (h[1] / h[0] - 1).median().item()  # c(2) = c(1) + f c(1), nearly, while the states are small
    assert abs(kept - 0.731) < 0.08, f"as initialised, the cells keep {kept:.0%} of what they hold, not 73 %"


@after(weights_start_different, output_is_logits, any_batch_size_and_length)
def initial_loss_is_near_log_k(code: Code, model: str) -> None:
    """As initialised, the model is undecided: its loss is within 0.5 of log K.

    Look at the scale of the initial weights.
    """
    k = 60
    net = TextModel(code, model, k=k, d=64, n=128, scale=None, steps=30, rows=64)
    x = torch.randint(k, (31, 64))
    loss = F.cross_entropy(net(x[:-1]).flatten(0, 1), x[1:].flatten()).item()
    assert abs(loss - math.log(k)) < 0.5, f"the initial loss is {loss:.2f}, far from log {k} = {math.log(k):.2f}"


@after(
    rows_are_independent_and_causal,
    every_parameter_gets_its_gradient,
    weights_start_different,
    output_is_logits,
    initial_loss_is_near_log_k,
)
def one_batch_can_be_overfitted(code: Code, model: str) -> None:
    """250 steps of Adam suffice to know 8 texts of 12 characters by heart, each by its first one.

    Look at whether every step of forward depends on the input and on the parameters as it should.
    """
    x = torch.randint(10, (12, 8))
    x[0] = torch.arange(8)
    net = TextModel(code, model, k=10, d=16, n=64, scale=None, steps=11, rows=8)
    optimizer = torch.optim.Adam(net.net.parameters(), lr=0.01)
    best = 0.0
    for _ in range(250):
        logits = net(x[:-1])
        best = max(best, (logits.argmax(2) == x[1:]).double().mean().item())
        if best > 0.95:
            return
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), x[1:].flatten()).backward()
        optimizer.step()
    raise AssertionError(f"after 250 steps it knows only {best:.0%} of one batch of 8 texts")


def layers_are_as_many_as_asked(code: Code, model: str) -> None:
    """With two layers the model has more parameters than with one: lstm_num_layers is obeyed.

    Look at the construction of the LSTM in __init__.
    """
    one, two = (sum(p.numel() for p in TextModel(code, model, num_layers=n).net.parameters()) for n in (1, 2))
    assert two > one, f"with one layer and with two it has {one} parameters"


def characters_are_no_numbers(code: Code, model: str) -> None:
    """Characters are one-hot or embedded: they have no order, which one number a character would give them.

    Look at what the model is fed: (B, T, 1) numbers, or vectors.
    """
    net = TextModel(code, model)
    x = net.form(net.draw())
    as_number = x.is_floating_point() and (x.dim() == 2 or x.shape[2] == 1)
    assert not as_number, "a character is fed as one number, as if 'z' were 25 times 'b'"


@about("train.py")
@after(any_batch_size_and_length)
def training_takes_the_steps_asked_for(code: Code) -> None:
    """train.py zeroes the gradients, clips them to the norm asked for after backward, and steps with the learning rate.

    Look at the order in the loop: zero_grad, forward, loss, backward, clip_grad_norm_, step.
    """
    run_training(code).check()


@about("train.py")
@after(training_takes_the_steps_asked_for, rows_are_independent_and_causal)
def training_keeps_rows_apart(code: Code) -> None:
    """In train.py a sequence of the batch changes its own outputs, and no other's.

    Look at how the batch reaches the model, and at batch_first.
    """
    run_training(code).check_rows()


@about("train.py")
@after(training_takes_the_steps_asked_for, initial_loss_is_near_log_k)
def loss_is_an_average(code: Code) -> None:
    """In train.py the loss is the average of the cross-entropies over time, near log K at first.

    Look at the criterion: its mean over all steps and rows, not a sum over time; classes in the axis it expects.
    """
    loss, k = run_training(code).steps.losses[0], len(LETTERS)
    expected = math.log(k)
    assert abs(loss - expected) < 1.2, f"the first loss for {k} characters is {loss:.2f}; log {k} = {expected:.2f}"


@about("sample")
@after(rows_are_independent_and_causal, any_batch_size_and_length)
def samples_have_their_shape(code: Code, model: str) -> None:
    """sample gives as many texts as asked for, each as long, at any temperature; 30 characters by default.

    Look at the loop of sample, at its first character, and at what it returns for length 1 and for one text.
    """
    net = TextModel(code, model)
    net.sample(None, None)
    for rows, length in ((4, 1), (1, 6), (9, 2), (3, 50)):
        net.sample(rows, length)


@about("sample")
@after(samples_have_their_shape)
def samples_start_with_any_character(code: Code, model: str) -> None:
    """Texts of one call start with different characters, and all of the vocabulary occur.

    Look at how the first character is drawn: for each text, from the whole vocabulary.
    """
    first = TextModel(code, model).sample(300, 2)[0]
    missing = sorted(set(range(K)) - set(first.tolist()))
    assert not missing, f"of 300 texts none starts with the characters {missing} of {K}"


@about("sample")
@after(samples_have_their_shape, any_batch_size_and_length)
def samples_follow_the_model(code: Code, model: str) -> None:
    """At temperature 0 each character is the likeliest by the model's outputs for its row so far.

    Look at the state: is it carried from character to character, and each row's own?
    """
    net = TextModel(code, model, scale=2.0)
    _assert_likeliest(net, net.sample(20, 15), 1e-3, "at temperature 0")


@about("sample")
@after(samples_have_their_shape)
def greedy_sampling_is_deterministic(code: Code, model: str) -> None:
    """At temperature 0, texts with the same first character are the same, in one call and in the next.

    Look at where the state starts in sample, and at what is drawn although the temperature is 0.
    """
    net = TextModel(code, model, scale=2.0)
    texts: dict[int, list[int]] = {}
    for _ in range(2):
        for first, *text in net.sample(30, 15).t().tolist():
            assert texts.setdefault(first, text) == text, (
                f"after character {first} came once {texts[first]}, once {text}"
            )


@about("sample")
@after(samples_have_their_shape)
def sampling_leaves_the_model_as_it_was(code: Code, model: str) -> None:
    """Sampling changes no parameter, and leaves no gradients.

    Look for torch.no_grad() around sample.
    """
    net = TextModel(code, model)
    before = [parameter.clone() for parameter in net.net.parameters()]
    enabled: list[bool] = []
    for module in net.net.modules():
        module.register_forward_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    net.sample(3, 10)
    same = all(map(torch.equal, before, net.net.parameters()))
    assert same, "sampling changed the model's parameters"
    assert not any(enabled), "sampling records a graph of gradients: there is no torch.no_grad()"


@about("sample")
@after(samples_have_their_shape)
def sampled_rows_are_drawn_apart(code: Code, model: str) -> None:
    """At temperature 1 the texts of a call are drawn independently, and each call draws anew.

    Look at the draw: torch.multinomial of (B, K), and no seed set in sample.
    """
    net = _constant(code, torch.zeros(K))
    texts = torch.cat([net.sample(20, 31, 1.0)[1:31] for _ in range(2)], dim=1)
    drawn = not bool((texts == texts[0]).all())
    assert drawn, "at temperature 1, with all characters equally likely, each text repeats one: nothing is drawn"
    distinct = len(texts[:, :20].unique(dim=1).t())
    assert distinct == 20, f"of 20 texts drawn at once only {distinct} are different"
    distinct = len(texts.unique(dim=1).t())
    assert distinct == 40, f"of 40 texts drawn in two calls only {distinct} are different"


@about("sample")
@after(samples_have_their_shape, output_is_logits, sampled_rows_are_drawn_apart)
def sampled_frequencies_match_the_softmax(code: Code, model: str) -> None:
    """Where outputs are constant, characters are drawn as softmax(p / temperature) says, at 0.5, 1 and 2.

    Look at the order: divide by the temperature (the handout's formula), then softmax over the vocabulary, then draw;
    no argmax afterwards, and the vocabulary's axis, not time or the batch.
    """
    net = _constant(code, bias := torch.tensor([1.5, -1.0, 0.5, 0.0, -0.5, 1.0, -1.5]))
    factor = code.part.options.get("temperature") == "factor"
    for temperature in (0.5, 1.0, 2.0):
        drawn = net.sample(60, 51, temperature)[1:].flatten()
        frequencies = torch.bincount(drawn, minlength=K) / len(drawn)
        expected = (bias * temperature if factor else bias / temperature).softmax(0)
        worst = int((frequencies - expected).abs().argmax())
        assert abs(frequencies[worst] - expected[worst]) < 0.03, (
            f"at temperature {temperature:g}, a character of probability {expected[worst]:.2f} is drawn with frequency "
            f"{frequencies[worst]:.2f}"
        )


@about("sample")
@after(samples_have_their_shape, samples_follow_the_model, sampled_frequencies_match_the_softmax)
def warm_samples_follow_the_model(code: Code, model: str) -> None:
    """Near temperature 0 each character is nearly the likeliest by the model's outputs for its row so far.

    Look at the state in the branch with a temperature: is it carried there too?
    """
    net = TextModel(code, model, scale=2.0)
    cold = 20.0 if code.part.options.get("temperature") == "factor" else 0.05
    _assert_likeliest(net, net.sample(20, 15, cold), 1.0, f"at temperature {cold:g}")


@about("sample")
@after(samples_have_their_shape, samples_follow_the_model)
def sampling_turns_dropout_off(code: Code, model: str) -> None:
    """A model in training, if it has dropout, samples without it, and has it again afterwards.

    Look for eval() before, and train() after sampling.
    """
    net = TextModel(code, model, scale=2.0, dropout=0.5)
    x = net.draw()
    net.net.train()
    if torch.equal(net(x), net(x)):
        return  # it has no dropout
    samples = net.sample(20, 15)
    net.net.eval()
    _assert_likeliest(net, samples, 1e-3, "sampled in training mode")


def targets_are_the_inputs_one_character_later(code: Code) -> None:
    """Inputs are T consecutive characters of the text, targets the T that begin one later.

    Look at __getitem__ and text_collate_fn.
    """
    for length in (1, 5, 20):
        dataset = _dataset(code, TEXT * 3, length)
        for index in range(min(len(dataset), 20)):
            inputs, targets = _window(code, dataset, index)
            assert len(inputs) == length, f"with seq_length {length} the inputs are {len(inputs)} characters"
            assert inputs in TEXT * 3, f"the inputs {inputs!r} do not occur in the text"
            expected = (TEXT * 4)[(TEXT * 3).index(inputs) + 1 :][:length]
            assert targets == expected, f"the inputs {inputs!r} have the targets {targets!r}, not {expected!r}"


def vocabulary_is_the_texts_characters(code: Code) -> None:
    """The size counts the text's distinct characters; convert_to_string maps each number to another of them."""
    for text in ("abracadabra, abracadabra\n" * 3, TEXT * 2):
        dataset = _dataset(code, text, 5)
        size = dataset.vocabulary_size if hasattr(dataset, "vocabulary_size") else dataset.vocab_size
        assert size == len(set(text)), f"the size is {size} for a text of {len(set(text))} distinct characters"
        found = dataset.convert_to_string(list(range(size)))
        assert isinstance(found, str), f"convert_to_string returned a {type(found).__name__}, not a string"
        assert sorted(found) == sorted(set(text)), f"the numbers 0 to {size - 1} stand for {found!r}"


@after(targets_are_the_inputs_one_character_later)
def batches_are_time_first(code: Code) -> None:
    """text_collate_fn makes (T, B) int64 inputs and targets, a window a column."""
    dataset = _dataset(code, TEXT * 3, 5)
    for size in (3, 1):
        batch = code.load("text_collate_fn")([dataset[index] for index in range(size)])
        for kind, tensor in zip(("inputs", "targets"), batch):
            found = tuple(tensor.shape)
            assert found == (5, size), f"the {kind} of {size} windows of 5 have shape {found}, not (5, {size})"
            assert tensor.dtype == torch.int64, f"the {kind} are {tensor.dtype}, not int64"


@after(vocabulary_is_the_texts_characters)
def vocabulary_is_the_same_in_every_process(code: Code) -> None:
    """A character's number does not change from one start of Python to the next, so that saved models stay readable.

    Look at the vocabulary: a set of strings has another order in every process, sorted() has one.
    """
    dataset = _dataset(code, TEXT, 5)
    here = dataset.convert_to_string(list(range(len(TEXT))))
    there = _vocabulary_elsewhere(code)
    assert here == there, "the vocabulary has another order in another process"


@after(vocabulary_is_the_texts_characters)
def text_is_read_as_utf_8(code: Code) -> None:
    """A text with characters beyond ASCII can be read under any locale.

    Look at open(): encoding="utf-8".
    """
    text = "Zwölf Brüder, 十二兄弟, δώδεκα: naïve façade! 🙂\n" * 3
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        dataset = _dataset(code, text, 5)
    except Unusable as error:
        raise AssertionError(f"under the locale C, {error}") from None
    wrong = sorted(set(text) ^ set(dataset.convert_to_string(list(range(len(set(text)))))))
    assert not wrong, f"under the locale C {len(wrong)} characters are lost or invented, for one {wrong[0]!a}"


@after(targets_are_the_inputs_one_character_later)
def every_window_can_be_drawn(code: Code) -> None:
    """Each window of the text is drawn now and then, the first and the last too."""
    dataset = _dataset(code, TEXT, 5)
    drawn = {TEXT.find(_window(code, dataset, draw % len(dataset))[0]) for draw in range(3000)}
    missing = sorted(set(range(len(TEXT) - 5)) - drawn)
    assert not missing, f"{len(missing)} of {len(TEXT) - 5} windows never come, for example that at place {missing[-1]}"


@after(targets_are_the_inputs_one_character_later)
def windows_in_order_cover_the_text(code: Code) -> None:
    """Without random_select windows are step_size apart; step_size 1 gives all."""
    for step in (1, 4):
        dataset = _dataset(code, TEXT, 5, step_size=step, random_select=False)
        starts = [TEXT.find(_window(code, dataset, index)[0]) for index in range(len(dataset))]
        expected = list(range(0, 3 * step, step))
        assert starts[:3] == expected, f"with step_size {step} the first windows begin at {starts[:3]}, not {expected}"
        missing = sorted(set(range(len(TEXT) - 5)) - set(starts)) if step == 1 else []
        assert not missing, (
            f"with step_size 1, {len(missing)} windows are left out, for one that at place {missing[-1]}"
        )


@after(targets_are_the_inputs_one_character_later)
def loader_workers_draw_different_windows(code: Code) -> None:
    """Two loader workers draw different windows, and in each epoch others."""
    text = "".join(TEXT[number] for number in torch.randint(len(TEXT), (600,)))
    dataset, collate = _dataset(code, text, 20), code.load("text_collate_fn")
    loader = torch.utils.data.DataLoader(dataset, 10, shuffle=True, num_workers=2, collate_fn=collate)
    epochs = [next(batches)[0] for batches in (iter(loader), iter(loader)) for _ in range(2)]
    for first, second, case in ((0, 1, "the two workers draw"), (0, 2, "two epochs begin with")):
        assert not torch.equal(epochs[first], epochs[second]), f"{case} the same windows"


def _dataset(code: Code, text: str, seq_length: int, **options: Any) -> Any:
    """Construct the submission's dataset of a text."""
    Path("text.txt").write_text(text, encoding="utf-8", newline="\n")
    cls = code.load("TextDataset")
    try:
        dataset = cls("text.txt", seq_length, **options)
    except Exception as error:
        raise code.unusable("construct TextDataset", error) from None
    assert len(dataset) > 0, f"a text of {len(text)} characters has no window of {seq_length}, says len()"
    return dataset


def _window(code: Code, dataset: Any, index: int) -> tuple[str, str]:
    """Return an item's inputs and targets as strings."""
    item = dataset[index]
    if not isinstance(item, tuple | list):
        item = code.load("text_collate_fn")([item])
    inputs, targets = (dataset.convert_to_string(torch.as_tensor(numbers).flatten().tolist()) for numbers in item)
    return inputs, targets


def _vocabulary_elsewhere(code: Code) -> str:
    """Return the characters of text.txt, in their numbers' order, as a process finds them whose hashes are others."""
    script = (
        f"import sys; sys.path[:0] = {[str(code.folder), str(code.folder.parent), str(code.root)]!r}\n"
        "from dataset import TextDataset\n"
        "dataset = TextDataset('text.txt', 5)\n"
        "size = dataset.vocabulary_size if hasattr(dataset, 'vocabulary_size') else dataset.vocab_size\n"
        "open('vocabulary.txt', 'w', encoding='utf-8').write(dataset.convert_to_string(list(range(size))))\n"
    )
    command = [sys.executable, "-B", "-c", script]
    run = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True)
    error = run.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
    assert run.returncode == 0, f"in another process, TextDataset crashed: {error}"
    return Path("vocabulary.txt").read_bytes().decode()


def _constant(code: Code, bias: Tensor) -> TextModel:
    """Construct the model with an output that is `bias` alone, whatever was read."""
    net = TextModel(code)
    found = [parameter for parameter in net.net.parameters() if parameter.numel() == K]
    if len(found) != 1:
        raise NotJudged(f"{len(found)} parameters, not one, are of the size of the output's bias")
    for parameter in net.net.parameters():
        parameter.data.zero_()
    found[0].data.copy_(bias.view_as(found[0]))
    return net


def _assert_likeliest(net: TextModel, samples: Tensor, slack: float, case: str) -> None:
    """See that no sampled character's output, given all before it, is more than `slack` below the largest."""
    try:
        logits = net(samples)[:-1]
    except Exception:
        raise NotJudged("the model takes no other batch sizes or lengths than its constructor's") from None
    below = logits.amax(2) - logits.gather(2, samples[1:].unsqueeze(2)).squeeze(2)
    if not (below <= slack).all():
        step = int((below > slack).any(1).nonzero()[0])
        raise AssertionError(
            f"{case}, character {step + 2} of a text is not what the model says after the first {step + 1}"
        )
