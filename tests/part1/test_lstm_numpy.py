"""The NumPy LSTM: every gradient of PRML's questions 1 and 2 against PyTorch's autograd and nn.LSTM in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from part1 import lstm_numpy

T, B, d, n = 7, 3, 4, 5
NAMES = ("h_0", "c_0", "W_x", "W_h", "b")


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    shapes = {"x": (T, B, d), "h_0": (B, n), "c_0": (B, n), "W_x": (4 * n, d), "W_h": (4 * n, n), "b": (4 * n,)}
    return {name: generator.standard_normal(shape) for name, shape in shapes.items()}


def assert_equal(ours: np.ndarray, theirs: torch.Tensor, name: str) -> None:
    assert ours.shape == tuple(theirs.shape), name
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-10, err_msg=name)


def test_step_and_all_its_gradients(arrays):
    """Question 1, with a loss that looks at h(t) and, apart from that, at c(t)."""
    arrays["x"] = arrays["x"][0]
    h, c, cache = lstm_numpy.lstm_step(*arrays.values())

    tensors = {name: torch.from_numpy(array).requires_grad_() for name, array in arrays.items()}
    x, h_0, c_0, W_x, W_h, b = tensors.values()
    a_g, a_i, a_f, a_o = (x @ W_x.t() + h_0 @ W_h.t() + b).chunk(4, dim=1)
    inner = {"g": torch.tanh(a_g), "i": torch.sigmoid(a_i), "f": torch.sigmoid(a_f), "o": torch.sigmoid(a_o)}
    inner["c"] = inner["g"] * inner["i"] + c_0 * inner["f"]
    for tensor in inner.values():
        tensor.retain_grad()
    expected_h = torch.tanh(inner["c"]) * inner["o"]
    assert_equal(h, expected_h, "h")
    assert_equal(c, inner["c"], "c")

    d_h, d_c = np.random.default_rng(1).standard_normal((2, B, n))
    ((torch.from_numpy(d_h) * expected_h).sum() + (torch.from_numpy(d_c) * inner["c"]).sum()).backward()
    gradients = lstm_numpy.lstm_step_backward(d_h, d_c, cache)
    expected = {**inner, "x": x, "h_before": h_0, "c_before": c_0, "W_x": W_x, "W_h": W_h, "b": b}
    assert set(expected) == set(gradients._fields)
    for name, tensor in expected.items():
        assert_equal(getattr(gradients, name), tensor.grad, name)


def test_sequence_and_all_its_gradients_equal_nn_lstm(arrays):
    """Question 2: backpropagation through time."""
    library = nn.LSTM(d, n).double()
    rows = [
        1,
        2,
        0,
        3,
    ]  # torch.nn stacks i, f, g, o, the handout g, i, f, o: rows[k] is the block that stands k-th there
    reorder = lambda array: np.concatenate([np.split(array, 4)[k] for k in rows])  # noqa: E731
    state = {"weight_ih_l0": arrays["W_x"], "weight_hh_l0": arrays["W_h"], "bias_ih_l0": arrays["b"]}
    state = {name: torch.from_numpy(reorder(array)) for name, array in state.items()}
    library.load_state_dict({**state, "bias_hh_l0": torch.zeros(4 * n)})
    x, h_0, c_0 = (torch.from_numpy(arrays[name]).requires_grad_() for name in ("x", "h_0", "c_0"))
    expected_h, (_, expected_c) = library(x, (h_0.unsqueeze(0), c_0.unsqueeze(0)))

    h, c, caches = lstm_numpy.lstm_sequence(*arrays.values())
    assert_equal(h, expected_h, "h")
    assert_equal(c, expected_c[0], "c")

    generator = np.random.default_rng(1)
    grad_h, grad_c = generator.standard_normal((T, B, n)), generator.standard_normal((B, n))
    ((torch.from_numpy(grad_h) * expected_h).sum() + (torch.from_numpy(grad_c) * expected_c[0]).sum()).backward()
    gradients = lstm_numpy.lstm_sequence_backward(grad_h, grad_c, caches)
    for name, expected in (("x", x), ("h_0", h_0), ("c_0", c_0)):
        assert_equal(getattr(gradients, name), expected.grad, name)
    for name, expected in (("W_x", library.weight_ih_l0), ("W_h", library.weight_hh_l0), ("b", library.bias_ih_l0)):
        assert_equal(reorder(getattr(gradients, name)), expected.grad, name)


def test_finite_differences(arrays):
    """The same without any library: the loss moved along a random direction of each argument."""
    generator = np.random.default_rng(2)
    grad_h, grad_c = generator.standard_normal((T, B, n)), generator.standard_normal((B, n))

    def loss(changed: dict[str, np.ndarray]) -> float:
        h, c, _ = lstm_numpy.lstm_sequence(*changed.values())
        return (grad_h * h).sum() + (grad_c * c).sum()

    gradients = lstm_numpy.lstm_sequence_backward(grad_h, grad_c, lstm_numpy.lstm_sequence(*arrays.values())[2])
    for name, array in arrays.items():
        direction, epsilon = generator.standard_normal(array.shape), 1e-6
        above, below = (loss({**arrays, name: array + sign * epsilon * direction}) for sign in (1, -1))
        slope = (above - below) / (2 * epsilon)
        assert abs(slope - (getattr(gradients, name) * direction).sum()) < 1e-6 * max(1, abs(slope)), name


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        np.testing.assert_allclose(lstm_numpy.sigmoid(np.array([-1e4, 0.0, 1e4])), [0, 0.5, 1])


def test_numpy_alone():
    """No PyTorch in the module's own names."""
    assert not [name for name, value in vars(lstm_numpy).items() if "torch" in repr(value)]
