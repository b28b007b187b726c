"""Every model computes the same whichever way it takes: values and gradients, in float64."""

from argparse import Namespace

import pytest
import torch

import part2.model
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from part2.model import TextGenerationModel

B, T, d, n, K = 5, 9, 10, 6, 10


def vanilla_rnn(recurrence):
    return VanillaRNN(T, d, n, K, B, generator=torch.Generator().manual_seed(0), recurrence=recurrence)


def lstm(recurrence):
    return LSTM(T, d, n, K, B, generator=torch.Generator().manual_seed(0), recurrence=recurrence)


def text_lstm(recurrence):
    torch.manual_seed(0)
    return part2.model.LSTM(n, d, recurrence)


def text_model(recurrence):
    settings = {"vocabulary_size": K, "embedding_size": d, "lstm_hidden_dim": n, "lstm_num_layers": 2}
    return TextGenerationModel(Namespace(**settings, recurrence=recurrence), torch.Generator().manual_seed(0))


def numbers(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def outputs(model, state):
    """Everything that a model returns, from its own initial state or from another, and what it was computed from."""
    if isinstance(model, VanillaRNN):
        x, h_0 = numbers(B, T, d), numbers(B, n, seed=2)
        return (model.states(x, h_0), model(x)) if state else (model(x),), (x, h_0) if state else (x,)
    if isinstance(model, LSTM):
        x, initial = numbers(B, T, d), (numbers(B, n, seed=2), numbers(B, n, seed=3))
        return (*model.states(x, initial), model(x)) if state else (model(x),), (x, *initial) if state else (x,)
    if isinstance(model, part2.model.LSTM):
        x, initial = numbers(T, B, d), (numbers(B, n, seed=2), numbers(B, n, seed=3))
        h, (h_T, c_T) = model.states(x, initial if state else None)
        return (h, h_T, c_T), (x, *initial) if state else (x,)
    x = torch.randint(K, (T, B), generator=torch.Generator().manual_seed(1))
    initial = [(numbers(B, n, seed=4 * k), numbers(B, n, seed=4 * k + 1)) for k in range(2)]
    logits, last = model.run(x, initial if state else None)
    return (logits, *(tensor for pair in last for tensor in pair)), tuple(sum(initial, ())) if state else ()


@pytest.mark.parametrize("state", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("recurrence", ["bptt", "compiled", "auto"])
@pytest.mark.parametrize("build", [vanilla_rnn, lstm, text_lstm, text_model])
def test_every_way_computes_the_equations(build, recurrence, state, request):
    if recurrence == "compiled":
        request.getfixturevalue("compiled_kernel")
    found = []
    for way in ("loop", recurrence):
        model = build(way).double()
        values, inputs = outputs(model, state)
        generator = torch.Generator().manual_seed(7)
        loss = sum((torch.randn(value.shape, generator=generator) * value.sin()).sum() for value in values)
        found.append((values, torch.autograd.grad(loss, (*inputs, *model.parameters()), allow_unused=True)))
    for ours, expected in zip(*found):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("recurrence", ["loop", "bptt", "compiled"])
def test_bfloat16_with_float32_cells_in_every_way(recurrence, request):
    if recurrence == "compiled":
        request.getfixturevalue("compiled_kernel")
    model = text_lstm(recurrence)
    x = numbers(T, B, d).detach().bfloat16()
    h, (h_T, c_T) = model.states(x)
    assert (h.dtype, h_T.dtype, c_T.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    exact, _ = text_lstm("loop").states(x.float())
    assert (h - exact).abs().max() < 0.02


@pytest.mark.parametrize("recurrence", ["loop", "bptt", "compiled"])
def test_float64_inputs_and_float32_states_in_every_way(recurrence, request):
    """Cells keep the wider type, states that were carried along are brought to that of the inputs."""
    if recurrence == "compiled":
        request.getfixturevalue("compiled_kernel")
    model = text_lstm(recurrence)
    _, (h_T, c_T) = model.states(numbers(T, B, d))
    assert h_T.dtype == c_T.dtype == torch.float64
    zeros = torch.zeros(B, n)
    h, (_, c_T) = model.states(numbers(T, B, d).bfloat16(), (zeros, zeros))
    assert h.dtype == torch.bfloat16 and c_T.dtype == torch.float32


@pytest.mark.parametrize("state", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("recurrence", ["loop", "bptt", "compiled"])
@pytest.mark.parametrize("build", [vanilla_rnn, lstm, text_lstm])
def test_every_way_runs_under_autocast(build, recurrence, state, request):
    if recurrence == "compiled":
        request.getfixturevalue("compiled_kernel")
    model = build(recurrence)
    x, h_0, c_0 = (numbers(*shape).detach().float() for shape in ((B, T, d), (B, n), (B, n)))
    x, initial = x.transpose(0, 1) if build is text_lstm else x, h_0 if build is vanilla_rnn else (h_0, c_0)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values = model.states(x, initial if state else None)
        h = values if build is vanilla_rnn else values[0]
        found.append((h.float(), *torch.autograd.grad(h.float().sin().sum(), list(model.parameters())[:3])))
    for exact, rough in zip(*found):
        assert rough.dtype == torch.float32 and 0 < (rough - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("recurrence", ["loop", "bptt", "compiled"])
@pytest.mark.parametrize(("build", "prefix"), [(vanilla_rnn, (B, T)), (lstm, (B, T)), (text_lstm, (T, B))])
def test_other_shapes_are_refused_in_every_way(build, prefix, recurrence, request):
    if recurrence == "compiled":
        request.getfixturevalue("compiled_kernel")
    model, no_steps = build(recurrence), tuple(0 if size == T else size for size in prefix)
    for shape in (prefix[:1], (*prefix, d + 1), (*no_steps, d)):
        with pytest.raises(ValueError, match=r"the inputs? must be \("):
            model.states(torch.randn(shape))
    for shape in ((1, B, n), (B + 1, n), (B, n + 1)):
        other = torch.zeros(shape)
        with pytest.raises(ValueError, match=r"h_0 must be \(5, 6\) for these inputs, not "):
            model.states(torch.randn(*prefix, d), other if build is vanilla_rnn else (other, torch.zeros(B, n)))


@pytest.mark.parametrize(("build", "other"), [(vanilla_rnn, "fused"), (lstm, "numpy"), (text_lstm, "fast")])
def test_unknown_ways_are_named(build, other):
    with pytest.raises(ValueError, match=f"the recurrence is auto, loop or bptt or compiled or triton, not {other}"):
        build(other)
