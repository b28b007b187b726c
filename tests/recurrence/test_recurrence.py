"""The sequences derived by hand, against the equations differentiated by autograd, finite differences and torch.nn.

All of them twice: in PyTorch's operations ("bptt") and compiled; in Triton see test_gpu.py.
"""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks.loops import lstm_loop, rnn_loop
from recurrence import lstm, rnn
from recurrence.inputs import input_part
from recurrence.lstm import from_torch_order, lstm_sequence, to_torch_order
from recurrence.rnn import rnn_sequence


@pytest.fixture
def lstm_states(way):
    return partial(lstm.lstm_states, recurrence=way)


@pytest.fixture
def rnn_states(way):
    return partial(rnn.rnn_states, recurrence=way)


@pytest.fixture(autouse=True, scope="module")
def two_threads():
    """From 32 sequences on the compiled way divides them among its threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def rnn_arguments(T: int, B: int, n: int) -> list[torch.Tensor]:
    return _random_tensors((T, B, n), (B, n), (n, n))


def lstm_arguments(T: int, B: int, n: int) -> list[torch.Tensor]:
    return _random_tensors((T, B, 4 * n), (B, n), (B, n), (4 * n, n))


def _random_tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Standard normal float64; the last, the weights, scaled by 1/sqrt(n): gradients neither explode nor vanish."""
    generator = torch.Generator().manual_seed(sum(shapes[0]))
    tensors = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    tensors[-1] *= shapes[-1][-1] ** -0.5
    return [tensor.requires_grad_() for tensor in tensors]


def random_loss(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A loss that looks at every output with a different weight, and is not linear."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(output.shape, dtype=output.dtype, generator=generator) for output in outputs]
    return sum((weight * output.sin()).sum() for weight, output in zip(weights, outputs))


# The kernel takes some rows and columns at a time: sizes with and without a rest, for one thread and for two that share
# the sequences (from 32 on) or the units
SIZES = [(1, 1, 1), (1, 4, 3), (7, 1, 5), (12, 4, 3), (60, 2, 16), (4, 33, 17), (3, 41, 40), (3, 100, 9), (3, 5, 300)]


@pytest.mark.parametrize(("T", "B", "n"), SIZES)
def test_rnn_states_equal_the_loop(rnn_states, T, B, n):
    arguments = rnn_arguments(T, B, n)
    outputs, expected = (rnn_states(*arguments),), (rnn_loop(*arguments),)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), arguments), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("T", "B", "n"), SIZES)
def test_lstm_states_equal_the_loop(lstm_states, T, B, n):
    arguments = lstm_arguments(T, B, n)
    outputs, expected = lstm_states(*arguments), lstm_loop(*arguments)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), arguments), rtol=0, atol=1e-10)


@pytest.mark.parametrize("threads", [1, 3, 4, 5])
@pytest.mark.parametrize(("T", "B", "n"), [(3, 41, 40), (3, 5, 300), (2, 100, 9)])
def test_any_number_of_threads_computes_the_same(threads, T, B, n, compiled_kernel, two_threads):
    """Also one that neither the sequences nor the units can be divided by."""
    arguments = lstm_arguments(T, B, n)
    torch.set_num_threads(threads)
    try:
        outputs = lstm.lstm_states(*arguments, "compiled")
        gradients = torch.autograd.grad(random_loss(outputs), arguments)
    finally:
        torch.set_num_threads(2)
    expected = lstm_loop(*arguments)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), arguments), rtol=0, atol=1e-10)


def test_gradcheck(rnn_states, lstm_states):
    assert torch.autograd.gradcheck(rnn_states, rnn_arguments(4, 2, 3))
    assert torch.autograd.gradcheck(lstm_states, lstm_arguments(4, 2, 3))


@pytest.mark.parametrize("used", [0, 1])
def test_lstm_gradient_when_the_loss_sees_one_output_only(lstm_states, used):
    """Autograd hands zeros, not None, for the output that the loss does not use."""
    arguments = lstm_arguments(5, 2, 3)
    gradients = torch.autograd.grad(lstm_states(*arguments)[used].sum(), arguments)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(lstm_loop(*arguments)[used].sum(), arguments), rtol=0, atol=1e-10
    )


def test_gradient_of_the_last_state_only(rnn_states):
    arguments = rnn_arguments(9, 3, 4)
    gradients = torch.autograd.grad(rnn_states(*arguments)[-1].sum(), arguments)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(rnn_loop(*arguments)[-1].sum(), arguments), rtol=0, atol=1e-10
    )


def test_two_halves_equal_the_whole(lstm_states):
    """Carrying (h, c) over a cut changes neither the states nor the gradients."""
    z, h_0, c_0, W_h = arguments = lstm_arguments(10, 3, 4)
    whole = lstm_states(*arguments)
    h_first, c_first = lstm_states(z[:6], h_0, c_0, W_h)
    h_second, c_second = lstm_states(z[6:], h_first[-1], c_first, W_h)
    halves = torch.cat((h_first, h_second)), c_second
    torch.testing.assert_close(halves, whole, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(halves), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(whole), arguments), rtol=0, atol=1e-10)


def test_inputs_that_are_not_contiguous(lstm_states):
    z, h_0, c_0, W_h = lstm_arguments(6, 3, 4)
    z_batch_first = z.detach().transpose(0, 1).contiguous().requires_grad_()
    in_columns = [tensor.t().contiguous().t() for tensor in (h_0, c_0, W_h)]
    h, _ = lstm_states(z_batch_first.transpose(0, 1), *in_columns)
    expected, _ = lstm_loop(z, h_0, c_0, W_h)
    (gradient,), (expected_gradient,) = (
        torch.autograd.grad(h.sum(), z_batch_first),
        torch.autograd.grad(expected.sum(), z),
    )
    torch.testing.assert_close(gradient.transpose(0, 1), expected_gradient, rtol=0, atol=1e-10)


def test_gradients_that_are_not_contiguous(lstm_states):
    """A loss that looks at the states with their axes in another order hands its gradients back in that order."""
    arguments, mixing = lstm_arguments(6, 3, 4), torch.randn(6, 4, 3, dtype=torch.float64)

    def loss(h, c):
        return (h.transpose(1, 2) * mixing).sum() + (c.t() * mixing[0]).sum()

    gradients = torch.autograd.grad(loss(*lstm_states(*arguments)), arguments)
    expected = torch.autograd.grad(loss(*lstm_loop(*arguments)), arguments)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("B", "n"), [(0, 3), (2, 0)])
def test_nothing_to_compute(lstm_states, B, n):
    h, c = lstm_states(torch.zeros(4, B, 4 * n), None, None, torch.zeros(4 * n, n))
    assert h.shape == (4, B, n) and c.shape == (B, n)


def test_inputs_are_left_as_they_were(rnn_states, lstm_states):
    arguments = lstm_arguments(5, 2, 3)
    before = [argument.detach().clone() for argument in arguments]
    lstm_states(*arguments)[0].sum().backward()
    rnn_states(arguments[0][..., :3], arguments[1], arguments[3][:3]).sum().backward()
    torch.testing.assert_close([argument.detach() for argument in arguments], before, rtol=0, atol=0)


@pytest.mark.parametrize(("T", "B", "n"), [(1, 2, 3), (9, 3, 4)])
def test_states_left_out_are_zeros(lstm_states, T, B, n):
    z, _, _, W_h = lstm_arguments(T, B, n)
    zeros = torch.zeros(B, n, dtype=torch.float64)
    outputs, expected = lstm_states(z, None, None, W_h), lstm_loop(z, zeros, zeros, W_h)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), (z, W_h))
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), (z, W_h)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "B", "n", "share"),
    [
        *((torch.bfloat16, 3, n, 0.02) for n in (5, 16, 33, 300)),
        *((torch.float32, B, n, 1e-5) for B in (3, 40) for n in (130, 256)),
    ],
)
def test_lower_precision_errs_by_no_more_than_its_digits(lstm_states, dtype, B, n, share):
    """States and gradients, each within a share of its largest number; with bfloat16 the cells are float32."""
    arguments = lstm_arguments(7, B, n)
    rounded = [argument.detach().to(dtype).requires_grad_() for argument in arguments]
    rounded[2] = arguments[2].detach().float().requires_grad_()
    outputs, expected = lstm_states(*rounded), lstm_loop(*arguments)
    assert [output.dtype for output in outputs] == [dtype, torch.float32]
    gradients = torch.autograd.grad(random_loss([output.double() for output in outputs]), rounded)
    for value, right in zip(
        (*outputs, *gradients), (*expected, *torch.autograd.grad(random_loss(expected), arguments))
    ):
        assert (value.double() - right).abs().max() < share * right.abs().max()


def test_backward_twice_gives_the_same(lstm_states):
    arguments = lstm_arguments(5, 2, 3)
    loss = lstm_states(*arguments)[0].sum()
    first = torch.autograd.grad(loss, arguments, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, arguments), first, rtol=0, atol=0)


def saved_bytes(states, arguments) -> int:
    """Return the bytes that a call keeps for its backward pass; shared memory counts once."""
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states(*arguments)
    return sum(storages.values())


def test_memory_kept_a_step(way):
    """Hidden-sized tensors, counted by how the memory grows with T: one for the RNN, at most six for the LSTM."""
    B, d, n = 4, 1, 8
    weights = [_random_tensors((m * n, d), (m * n,), (m * n, n)) for m in (1, 4)]
    for gates, sequence, hidden_sized in ((1, rnn_sequence, 1), (4, lstm_sequence, 6)):
        W_x, b, W_h = weights[gates > 1]
        long, short = (saved_bytes(sequence, (torch.zeros(T, B, d).double(), None, W_x, W_h, b, way)) for T in (30, 10))
        assert (long - short) / 20 <= 8 * B * (hidden_sized * n + d)  # float64, and the inputs


def test_float32_is_as_good_as_torch_nn(lstm_states):
    """Against nn.LSTM in float32: both err from the float64 result by the same order."""
    torch.manual_seed(0)
    library = nn.LSTM(5, 32)
    x, b = torch.randn(40, 8, 5), (library.bias_ih_l0 + library.bias_hh_l0).detach()
    W_x, W_h = (from_torch_order(weight.detach()) for weight in (library.weight_ih_l0, library.weight_hh_l0))
    W_h.requires_grad_()
    h, _ = lstm_states(input_part(x, W_x, from_torch_order(b)), torch.zeros(8, 32), torch.zeros(8, 32), W_h)
    expected, _ = library(x)
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-6)
    h.square().mean().backward()
    expected.square().mean().backward()
    torch.testing.assert_close(to_torch_order(W_h.grad), library.weight_hh_l0.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("d", [3, 40])  # fewer and more inputs than `input_part` copies the weights for
def test_whole_sequences_equal_the_loop(d):
    """From the inputs on: values, and gradients of inputs, weights and biases."""
    x, W_hx, W_hh, b_h = _random_tensors((6, 4, d), (5, d), (5, 5), (5,))
    arguments = x, None, W_hx, W_hh, b_h
    tensors = x, W_hx, W_hh, b_h
    expected = rnn_loop(x @ W_hx.T + b_h, torch.zeros(4, 5, dtype=torch.float64), W_hh)
    assert_same((rnn_sequence(*arguments),), (expected,), tensors)
    W_x, W_h, b = _random_tensors((20, d), (20, 5), (20,))
    zeros = torch.zeros(4, 5, dtype=torch.float64)
    assert_same(lstm_sequence(x, None, W_x, W_h, b), lstm_loop(x @ W_x.T + b, zeros, zeros, W_h), (x, W_x, W_h, b))


def assert_same(outputs, expected, tensors):
    torch.testing.assert_close(tuple(outputs), tuple(expected), rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), tensors)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), tensors), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("z", "h_0", "W_hh", "message"),
    [
        ((0, 2, 3), (2, 3), (3, 3), "T >= 1"),
        ((4, 2), (2, 3), (3, 3), "z must be"),
        ((4, 2, 3), (2, 3), (3, 4), "recurrent weights"),
        ((4, 2, 3), (1, 3), (3, 3), "h_0 must be"),
    ],
)
def test_shapes_that_do_not_match_are_named(z, h_0, W_hh, message):
    with pytest.raises(ValueError, match=message):
        rnn.rnn_states(torch.zeros(z), torch.zeros(h_0), torch.zeros(W_hh))
