"""The recurrences among PyTorch's other operations, each held against what torch.nn's do there."""

from contextlib import nullcontext

import pytest
import torch
from torch import library

from common import machine
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from recurrence.lstm import lstm_sequence
from recurrence.rnn import rnn_sequence

T, B, d, n = 7, 3, 2, 5
MODELS = {"RNN": VanillaRNN, "LSTM": LSTM}


def arguments(gates: int, dtype=torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (T, B, d), (gates * n, d), (gates * n, n), (gates * n,)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def states(name: str, x, W_x, W_h, b, way="auto"):
    return rnn_sequence(x, None, W_x, W_h, b, way) if name == "RNN" else lstm_sequence(x, None, W_x, W_h, b, way)[0]


def model_and_input(name, way="auto"):
    torch.manual_seed(0)
    return MODELS[name](T, 1, n, 10, B, recurrence=way), torch.randint(10, (B, T)).float()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("multiplies", [False, True], ids=["a CPU without bfloat16", "a CPU with bfloat16"])
def test_autocast(name, way, multiplies, monkeypatch):
    """The states come in autocast's type, as torch.nn's do; also where the backward pass runs under autocast."""
    monkeypatch.setattr(machine, "MULTIPLIES_BFLOAT16", multiplies)
    tensors = arguments(4 if name == "LSTM" else 1)
    exact = states(name, *tensors, way)
    expected = torch.autograd.grad(exact.sin().sum(), tensors)
    for around_backward in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with torch.autocast("cpu", torch.bfloat16):
            h = states(name, *tensors, way)
        assert h.dtype == torch.bfloat16
        with around_backward:
            found = torch.autograd.grad(h.float().sin().sum(), tensors)
        assert (h.float() - exact).abs().max() < 0.03
        for ours, right in zip(found, expected):
            assert ours.dtype == torch.float32 and (ours - right).norm() < 0.05 * right.norm()


def test_autocast_leaves_float64_alone(way):
    tensors = arguments(4, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        h = states("LSTM", *tensors, way)
    assert torch.equal(h, states("LSTM", *tensors, way))


@pytest.mark.parametrize("name", MODELS)
def test_compile_takes_the_whole_model_as_one_graph(name, way):
    model, x = model_and_input(name, way)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=0)
    found = torch.autograd.grad(compiled(x).square().sum(), list(model.parameters()))
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_export_keeps_the_recurrence_as_one_operator(name, way):
    model, x = model_and_input(name, way)
    program = torch.export.export(model, (x,))
    assert f"recurrence.{name.lower()}.default" in [str(node.target) for node in program.graph.nodes]
    torch.testing.assert_close(program.module()(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_operator_keeps_what_it_promises(name):
    """Shapes without data, no memory shared with its inputs, gradients: PyTorch's own check of operators."""
    x, W_x, W_h, b = arguments(4 if name == "LSTM" else 1)
    states_before = (torch.randn(B, n), torch.randn(B, n)) if name == "LSTM" else (torch.randn(B, n),)
    operator = getattr(torch.ops.recurrence, name.lower())
    # Autograd alone: of the results the first ones can be differentiated, and the check takes all
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    with torch.no_grad():
        detached = [tensor.detach() for tensor in (x, *states_before, W_x, W_h, b)]
        library.opcheck(operator.default, ("bptt", *detached), test_utils=checks)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", [lambda h: h.sum(), lambda h: h.sin().sum()], ids=["linear", "not linear"])
def test_a_second_derivative_raises(name, loss, way):
    """As torch.nn.LSTM's does: a loss that is linear in h is no exception."""
    for which in range(4):
        tensors = arguments(4 if name == "LSTM" else 1)
        (gradient,) = torch.autograd.grad(loss(states(name, *tensors, way)), tensors[which], create_graph=True)
        with pytest.raises(RuntimeError, match=f"this {name.lower()} can be differentiated once only"):
            gradient.sum().backward()


def test_a_second_derivative_raises_with_one_tensor_to_differentiate(way):
    x, W_x, W_h, b = (tensor.detach() for tensor in arguments(4))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(states("LSTM", x, W_x, W_h, b, way).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by forward-mode differentiation itself
@pytest.mark.parametrize("name", MODELS)
def test_functional_transforms(name, way):
    """torch.func's gradient is autograd's; what it cannot do here it says."""
    model, x = model_and_input(name, way)
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    found = torch.func.grad(loss)(parameters)
    expected = torch.autograd.grad(loss(parameters), list(parameters.values()))
    torch.testing.assert_close(tuple(found.values()), expected)
    with pytest.raises(RuntimeError, match="does not have vmap support"):
        torch.vmap(model)(x.unsqueeze(0))
    with pytest.raises(NotImplementedError, match="forward mode AD"):
        torch.func.jvp(loss, (parameters,), (parameters,))


def test_one_output_may_be_left_out_and_gradients_accumulate(way):
    tensors = arguments(4)
    h, c = lstm_sequence(tensors[0], None, *tensors[1:], way)
    both = torch.autograd.grad(h.sum() + c.sum(), tensors, retain_graph=True)
    parts = [torch.autograd.grad(output.sum(), tensors, retain_graph=True) for output in (h, c)]
    torch.testing.assert_close(both, tuple(a + b for a, b in zip(*parts)))


@pytest.mark.parametrize("frozen", range(4))
def test_tensors_that_need_no_gradient(frozen, way):
    tensors = arguments(4)
    everything = torch.autograd.grad(states("LSTM", *tensors, way).sum(), tensors)
    tensors[frozen].requires_grad_(False)
    rest = [k for k in range(4) if k != frozen]
    found = torch.autograd.grad(states("LSTM", *tensors, way).sum(), [tensors[k] for k in rest])
    torch.testing.assert_close(found, tuple(everything[k] for k in rest))
