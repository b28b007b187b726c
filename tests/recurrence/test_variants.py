"""GRU and peephole LSTM: the passes derived by hand, against the handout's equations, finite differences, PyTorch."""

import pytest
import torch
from torch import library

from recurrence.gru import gru_sequence
from recurrence.peephole import peephole_sequence

SIZES = [(1, 1, 1, 1), (1, 4, 2, 3), (7, 1, 3, 5), (12, 4, 1, 3), (60, 2, 4, 16), (3, 33, 10, 40)]
NAMES = ("gru", "peephole")


def gru_loop(x, h, W_x, W_h):
    """The handout's equations, each a matrix on [h, x]."""
    W_z, W_r, W = (torch.cat(pair, dim=1) for pair in zip(W_h.chunk(3), W_x.chunk(3)))
    states = []
    for x_t in x:
        z = torch.sigmoid(torch.cat((h, x_t), dim=1) @ W_z.T)
        r = torch.sigmoid(torch.cat((h, x_t), dim=1) @ W_r.T)
        h = (1 - z) * h + z * torch.tanh(torch.cat((r * h, x_t), dim=1) @ W.T)
        states.append(h)
    return (torch.stack(states),)


def peephole_loop(x, c, W_x, W_c, b):
    states = []
    for x_t in x:
        g, i, f, o = (x_t @ W_x.T + b).chunk(4, dim=1)
        seen = (c @ W_c.T).chunk(3, dim=1)
        i, f, o = (torch.sigmoid(a + view) for a, view in zip((i, f, o), seen))
        c = torch.sigmoid(g) * i + c * f
        states.append(torch.tanh(c) * o)
    return torch.stack(states), c


def gru(*tensors):
    return (gru_sequence(*tensors),)


RUN = {"gru": (gru, gru_loop), "peephole": (peephole_sequence, peephole_loop)}


def arguments(name, T, B, d, n, dtype=torch.float64):
    rows = (3, 3) if name == "gru" else (4, 3)
    shapes = [(T, B, d), (B, n), (rows[0] * n, d), (rows[1] * n, n), *([(4 * n,)] if name == "peephole" else [])]
    generator = torch.Generator().manual_seed(T + n)
    tensors = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    tensors[3] *= n**-0.5
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def random_loss(outputs):
    generator = torch.Generator().manual_seed(7)
    return sum((torch.randn(one.shape, dtype=one.dtype, generator=generator) * one.sin()).sum() for one in outputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_equal_the_equations(name, sizes):
    tensors = arguments(name, *sizes)
    outputs, expected = (function(*tensors) for function in RUN[name])
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), tensors)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), tensors), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    assert torch.autograd.gradcheck(RUN[name][0], arguments(name, 4, 2, 3, 3))


@pytest.mark.parametrize("name", NAMES)
def test_no_initial_state_is_a_state_of_zeros(name):
    tensors = arguments(name, 5, 2, 3, 4)
    zeros = torch.zeros_like(tensors[1])
    for output, expected in zip(
        RUN[name][0](tensors[0], None, *tensors[2:]), RUN[name][0](tensors[0], zeros, *tensors[2:])
    ):
        assert torch.equal(output, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_may_be_read_in_two_parts(name):
    x, state, *weights = arguments(name, 9, 2, 3, 4)
    whole = RUN[name][0](x, state, *weights)
    first = RUN[name][0](x[:4], state, *weights)
    second = RUN[name][0](x[4:], first[-1] if name == "peephole" else first[0][-1], *weights)
    torch.testing.assert_close(torch.cat((first[0], second[0])), whole[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_and_in_bfloat16_all_is_computed_in_float32(name):
    tensors = arguments(name, 7, 3, 2, 5, torch.float32)
    exact = RUN[name][0](*tensors)[0]
    with torch.autocast("cpu", torch.bfloat16):
        h = RUN[name][0](*tensors)[0]
    assert h.dtype == torch.bfloat16 and torch.equal(h, exact.bfloat16())
    gradients = torch.autograd.grad(h.float().sin().sum(), tensors)
    for ours, right in zip(gradients, torch.autograd.grad(exact.sin().sum(), tensors)):
        assert ours.dtype == torch.float32 and (ours - right).norm() < 0.05 * right.norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_derivative_raises(name):
    tensors = arguments(name, 3, 2, 2, 3)
    for which in range(len(tensors)):
        (gradient,) = torch.autograd.grad(RUN[name][0](*tensors)[0].sum(), tensors[which], create_graph=True)
        with pytest.raises(RuntimeError, match=f"this {name} can be differentiated once only"):
            gradient.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_compiled_and_exported_as_one_operator(name):
    tensors = arguments(name, 5, 2, 3, 4, torch.float32)

    def loss(*tensors):
        return RUN[name][0](*tensors)[0].sin().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, expected = (torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss))
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        operator = getattr(torch.ops.recurrence, name).default
        library.opcheck(operator, ("bptt", *(tensor.detach() for tensor in tensors)), test_utils=checks)


@pytest.mark.parametrize("name", NAMES)
def test_other_shapes_are_refused(name):
    x, state, *weights = (tensor.detach() for tensor in arguments(name, 5, 2, 3, 4))
    for other in (x[0], x[:0], x[..., :2], x.long()):
        with pytest.raises(ValueError, match=r"the inputs must be \(T, B, 3\) floats with T >= 1, not"):
            RUN[name][0](other, state, *weights)
    with pytest.raises(ValueError, match=r"_0 must be \(2, 4\) for these inputs, not \(4,\)"):
        RUN[name][0](x, state[0], *weights)
