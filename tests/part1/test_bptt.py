"""The backward passes derived by hand, against autograd on the plain loops, finite differences and torch.nn.

All of it twice: with the LSTM's steps as PyTorch's calls, and compiled.
"""

import pytest
import torch
from torch import nn

from common.errors import CommandError
from part1 import lstm_kernel
from part1.bptt import lstm_loop, lstm_sequence, rnn_loop, rnn_sequence


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """Compiled into a folder of the test's own, so that nothing else runs it that did not before."""
    if not lstm_kernel.compiled():
        try:
            lstm_kernel.build(tmp_path_factory.mktemp("kernel") / "lstm_kernel.so")
        except CommandError as error:
            pytest.skip(str(error))


@pytest.fixture(autouse=True, params=["calls", "compiled"])
def steps(request, monkeypatch):
    if request.param == "compiled":
        request.getfixturevalue("kernel")
    monkeypatch.setattr(lstm_kernel, "compiled", lambda: request.param == "compiled")
    return request.param


@pytest.fixture(autouse=True, scope="module")
def two_threads():
    """From 32 sequences on the compiled steps share them out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def rnn_arguments(T: int, B: int, n: int) -> list[torch.Tensor]:
    return _random_tensors((T, B, n), (B, n), (n, n))


def lstm_arguments(T: int, B: int, n: int) -> list[torch.Tensor]:
    return _random_tensors((T, B, 4 * n), (B, n), (B, n), (4 * n, n))


def _random_tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Standard normal float64; the last, the weights, scaled by 1/sqrt(n) so that gradients neither explode nor vanish."""
    generator = torch.Generator().manual_seed(sum(shapes[0]))
    tensors = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    tensors[-1] *= shapes[-1][-1] ** -0.5
    return [tensor.requires_grad_() for tensor in tensors]


def random_loss(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A loss that looks at every output with a different weight, and is not linear."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(output.shape, dtype=output.dtype, generator=generator) for output in outputs]
    return sum((weight * output.sin()).sum() for weight, output in zip(weights, outputs))


@pytest.mark.parametrize(("T", "B", "n"), [(1, 1, 1), (1, 4, 3), (7, 1, 5), (12, 4, 3), (60, 2, 16)])
def test_rnn_sequence_equals_the_loop(T, B, n):
    arguments = rnn_arguments(T, B, n)
    outputs, expected = (rnn_sequence(*arguments),), (rnn_loop(*arguments),)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), arguments), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("T", "B", "n"), [(1, 1, 1), (1, 4, 3), (7, 1, 5), (12, 4, 3), (60, 2, 16), (4, 33, 17)])
def test_lstm_sequence_equals_the_loop(T, B, n):
    arguments = lstm_arguments(T, B, n)
    outputs, expected = lstm_sequence(*arguments), lstm_loop(*arguments)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), arguments), rtol=0, atol=1e-10)


def test_gradcheck():
    assert torch.autograd.gradcheck(rnn_sequence, rnn_arguments(4, 2, 3))
    assert torch.autograd.gradcheck(lstm_sequence, lstm_arguments(4, 2, 3))


@pytest.mark.parametrize("used", [0, 1])
def test_lstm_gradient_when_the_loss_sees_one_output_only(used):
    """Autograd hands zeros, not None, for the output that the loss does not use."""
    arguments = lstm_arguments(5, 2, 3)
    gradients = torch.autograd.grad(lstm_sequence(*arguments)[used].sum(), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(lstm_loop(*arguments)[used].sum(), arguments), rtol=0, atol=1e-10)


def test_gradient_of_the_last_state_only():
    arguments = rnn_arguments(9, 3, 4)
    gradients = torch.autograd.grad(rnn_sequence(*arguments)[-1].sum(), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(rnn_loop(*arguments)[-1].sum(), arguments), rtol=0, atol=1e-10)


def test_two_halves_equal_the_whole():
    """Carrying (h, c) over a cut changes neither the states nor the gradients."""
    z, h_0, c_0, W_h = arguments = lstm_arguments(10, 3, 4)
    whole = lstm_sequence(*arguments)
    h_first, c_first = lstm_sequence(z[:6], h_0, c_0, W_h)
    h_second, c_second = lstm_sequence(z[6:], h_first[-1], c_first, W_h)
    halves = torch.cat((h_first, h_second)), c_second
    torch.testing.assert_close(halves, whole, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(halves), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(whole), arguments), rtol=0, atol=1e-10)


def test_inputs_that_are_not_contiguous():
    z, h_0, c_0, W_h = lstm_arguments(6, 3, 4)
    z_batch_first = z.detach().transpose(0, 1).contiguous().requires_grad_()
    h, _ = lstm_sequence(z_batch_first.transpose(0, 1), h_0, c_0, W_h)
    expected, _ = lstm_loop(z, h_0, c_0, W_h)
    (gradient,), (expected_gradient,) = torch.autograd.grad(h.sum(), z_batch_first), torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(gradient.transpose(0, 1), expected_gradient, rtol=0, atol=1e-10)


def test_gradients_that_are_not_contiguous():
    """A loss that looks at the states with their axes in another order hands its gradients back in that order."""
    arguments, mixing = lstm_arguments(6, 3, 4), torch.randn(6, 4, 3, dtype=torch.float64)

    def loss(h, c):
        return (h.transpose(1, 2) * mixing).sum() + (c.t() * mixing[0]).sum()

    gradients = torch.autograd.grad(loss(*lstm_sequence(*arguments)), arguments)
    expected = torch.autograd.grad(loss(*lstm_loop(*arguments)), arguments)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("B", "n"), [(0, 3), (2, 0)])
def test_nothing_to_compute(B, n):
    h, c = lstm_sequence(torch.zeros(4, B, 4 * n), None, None, torch.zeros(4 * n, n))
    assert h.shape == (4, B, n) and c.shape == (B, n)


def test_inputs_are_left_as_they_were():
    arguments = lstm_arguments(5, 2, 3)
    before = [argument.detach().clone() for argument in arguments]
    lstm_sequence(*arguments)[0].sum().backward()
    rnn_sequence(arguments[0][..., :3], arguments[1], arguments[3][:3]).sum().backward()
    torch.testing.assert_close([argument.detach() for argument in arguments], before, rtol=0, atol=0)


@pytest.mark.parametrize(("T", "B", "n"), [(1, 2, 3), (9, 3, 4)])
def test_states_left_out_are_zeros(T, B, n):
    z, _, _, W_h = lstm_arguments(T, B, n)
    zeros = torch.zeros(B, n, dtype=torch.float64)
    outputs, expected = lstm_sequence(z, None, None, W_h), lstm_loop(z, zeros, zeros, W_h)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(random_loss(outputs), (z, W_h))
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), (z, W_h)), rtol=0, atol=1e-10)


def test_overwriting_z_changes_nothing_but_z():
    z, h_0, c_0, W_h = arguments = lstm_arguments(6, 3, 5)
    part = 1 * z
    outputs, expected = lstm_sequence(part, h_0, c_0, W_h, overwrite_z=True), lstm_loop(*arguments)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    assert not torch.equal(part, z)
    gradients = torch.autograd.grad(random_loss(outputs), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(random_loss(expected), arguments), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "B", "n", "share"),
    [
        *((torch.bfloat16, 3, n, 0.02) for n in (5, 16, 33, 300)),
        *((torch.float32, B, n, 1e-5) for B in (3, 40) for n in (130, 256)),
    ],
)
def test_lower_precision_errs_by_no_more_than_its_digits(dtype, B, n, share):
    """States and gradients, each within a share of its largest number; with bfloat16 the cells are float32."""
    arguments = lstm_arguments(7, B, n)
    rounded = [argument.detach().to(dtype).requires_grad_() for argument in arguments]
    rounded[2] = arguments[2].detach().float().requires_grad_()
    outputs, expected = lstm_sequence(*rounded), lstm_loop(*arguments)
    assert [output.dtype for output in outputs] == [dtype, torch.float32]
    gradients = torch.autograd.grad(random_loss([output.double() for output in outputs]), rounded)
    for value, right in zip((*outputs, *gradients), (*expected, *torch.autograd.grad(random_loss(expected), arguments))):
        assert (value.double() - right).abs().max() < share * right.abs().max()


def test_backward_twice_gives_the_same():
    arguments = lstm_arguments(5, 2, 3)
    loss = lstm_sequence(*arguments)[0].sum()
    first = torch.autograd.grad(loss, arguments, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, arguments), first, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sequence", "arguments", "at_most"), [(rnn_sequence, rnn_arguments, 1), (lstm_sequence, lstm_arguments, 7)]
)
def test_memory_saved_a_step(sequence, arguments, at_most):
    """Hidden-sized tensors saved for the backward pass, counted in bytes by how they grow with T; shared memory once."""

    def saved_bytes(T: int) -> int:
        storages = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: storages.update(_storage(tensor)) or tensor, lambda x: x):
            sequence(*arguments(T, 4, 8))
        return sum(storages.values())

    hidden_sized = 4 * 8 * 8  # B n float64
    assert (saved_bytes(30) - saved_bytes(10)) / 20 <= at_most * hidden_sized


def _storage(tensor: torch.Tensor) -> dict[int, int]:
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()}


def test_float32_is_as_good_as_torch_nn():
    """Against nn.LSTM in float32: both err from the float64 result by the same order."""
    torch.manual_seed(0)
    library = nn.LSTM(5, 32)
    x = torch.randn(40, 8, 5)
    i, f, g, o = library.weight_hh_l0.detach().chunk(4)
    W_h = torch.cat((g, i, f, o)).requires_grad_()
    i, f, g, o = (x @ library.weight_ih_l0.detach().t() + library.bias_ih_l0 + library.bias_hh_l0).detach().chunk(4, dim=-1)
    h, _ = lstm_sequence(torch.cat((g, i, f, o), dim=-1), torch.zeros(8, 32), torch.zeros(8, 32), W_h)
    expected, _ = library(x)
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-6)
    h.square().mean().backward()
    expected.square().mean().backward()
    i, f, g, o = library.weight_hh_l0.grad.chunk(4)
    torch.testing.assert_close(W_h.grad, torch.cat((g, i, f, o)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("z", "h_0", "W_hh", "message"),
    [
        ((0, 2, 3), (2, 3), (3, 3), "T >= 1"),
        ((4, 2), (2, 3), (3, 3), "z must be"),
        ((4, 2, 3), (2, 3), (3, 4), "recurrent weights"),
        ((4, 2, 3), (1, 3), (3, 3), "h_0 must be"),
    ],
)
def test_shapes_that_do_not_fit_are_named(z, h_0, W_hh, message):
    with pytest.raises(ValueError, match=message):
        rnn_sequence(torch.zeros(z), torch.zeros(h_0), torch.zeros(W_hh))


def test_a_damaged_kernel_is_named(tmp_path, monkeypatch):
    monkeypatch.undo()  # `compiled` itself is tried
    monkeypatch.setattr(lstm_kernel, "kernel_file", lambda: tmp_path / "lstm_kernel.so")
    assert not lstm_kernel.compiled.__wrapped__()
    (tmp_path / "lstm_kernel.so").write_bytes(b"")
    with pytest.raises(CommandError, match=r"lstm_kernel\.so is damaged: part1/lstm_kernel\.py compiles it anew"):
        lstm_kernel.compiled.__wrapped__()


def test_a_missing_compiler_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CommandError, match="compiling the kernel needs no-such-compiler, which is not here"):
        lstm_kernel.build(tmp_path / "lstm_kernel.so")
