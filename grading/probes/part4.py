"""What must hold of the images' part: the layers of the notebook, and the evaluation of a network.

Images are (N, C, IH, IW), filters (F, C, FH, FW), a stride is (sh, sw), a padding (ph, pw); the gradients' functions
get the input as it was convolved, and no padding. The notebook holds them against PyTorch, so PyTorch says here what is
right. Who of several equal maxima gets the gradient is left open.
"""

import ast
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from grading.adapters.part4 import array, call, gradients
from grading.loading import Code
from grading.probes import after
from grading.submission import defined

PARAMETERS = {
    "vgg11": 128_807_306,
    "vgg11_bn": 128_812_810,
    "resnet18": 11_181_642,
    "resnet34": 21_289_802,
    "densenet121": 6_964_106,
}
CORRUPTIONS = ("gaussian_noise_transform", "gaussian_blur_transform", "contrast_transform", "jpeg_transform")
SIMPLE = {"image": (5, 5), "filter": (3, 3), "stride": (1, 1)}
STRIDES = (
    {"image": (7, 7), "filter": (3, 3), "stride": (2, 2)},
    {"image": (8, 8), "filter": (2, 2), "stride": (3, 3)},  # pixels between the windows, and behind the last one
    {"image": (8, 8), "filter": (3, 3), "stride": (2, 2)},  # a last row and column that no window reaches
)
RECTANGLES = (
    {"image": (7, 7), "filter": (3, 3), "stride": (1, 2)},
    {"image": (7, 7), "filter": (3, 3), "stride": (3, 1)},
    {"image": (4, 7), "filter": (3, 3), "stride": (1, 1)},
    {"image": (6, 6), "filter": (1, 4), "stride": (1, 1)},
    {"image": (9, 5), "filter": (4, 2), "stride": (2, 3)},
    {"image": (3, 4), "filter": (3, 4), "stride": (1, 1)},  # one window
    {"image": (3, 3), "filter": (1, 1), "stride": (1, 1)},
)


def runs(code: Code, name: str) -> None:
    """The function is there and returns an array."""
    array(code, name, code.call(f"call {name}", code.load(name), *_small(name)))


def padding_goes_around_height_and_width(code: Code, name: str) -> None:
    """zero_padding gives (N, C, IH + 2 ph, IW + 2 pw): the images in the middle, zeros around.

    Look at which of ph and pw goes to which axis.
    """
    X = 1 + np.random.rand(2, 3, 4, 5)
    for ph, pw in ((1, 1), (3, 2)):
        _compare(call(code, name, X, (ph, pw)), _padded(X, ph, pw), f"with a padding of {(ph, pw)} the images")


@after(padding_goes_around_height_and_width)
def padding_of_zero_is_none(code: Code, name: str) -> None:
    """A padding of 0, in either direction or both, leaves that side as it is.

    Look at slices such as [ph:-ph], which are empty for 0.
    """
    X = 1 + np.random.rand(2, 3, 4, 5)
    for ph, pw in ((0, 2), (1, 0), (0, 0)):
        _compare(call(code, name, X, (ph, pw)), _padded(X, ph, pw), f"with a padding of {(ph, pw)} the images")


def padding_does_without_np_pad(code: Code, name: str) -> None:
    """zero_padding does not call np.pad, as the notebook asks."""
    tree = defined(code.file(name))[name]
    assert tree is None or not any(isinstance(node, ast.Attribute) and node.attr == "pad" for node in ast.walk(tree)), (
        "it calls np.pad"
    )


@after(padding_goes_around_height_and_width)
def convolution_does_not_flip_the_filter(code: Code, name: str) -> None:
    """convolution2D is PyTorch's: output (i, j) is the sum of the filter times the window that begins there.

    Look at the indices of W and X in the sum.
    """
    X, W, _ = _layer(**SIMPLE)
    found, expected = call(code, name, X, W, (1, 1), (1, 1)), _convolution(_padded(X, 1, 1), W)
    flipped = _convolution(_padded(X, 1, 1), W[:, :, ::-1, ::-1].copy())
    assert not (found.shape == flipped.shape and np.allclose(found, flipped)), "the filter is flipped; PyTorch's is not"
    _compare(found, expected, "the convolution")


@after(convolution_does_not_flip_the_filter, padding_of_zero_is_none)
def convolution_without_padding(code: Code, name: str) -> None:
    """A padding of 0, in either direction or both, is none.

    Look at slices such as [ph:-ph], which are empty for 0.
    """
    X, W, _ = _layer(**SIMPLE)
    for ph, pw in ((0, 0), (0, 2), (1, 0)):
        found = call(code, name, X, W, (1, 1), (ph, pw))
        _compare(found, _convolution(_padded(X, ph, pw), W), f"with a padding of {(ph, pw)} the convolution")


@after(convolution_does_not_flip_the_filter)
def convolution_takes_any_stride(code: Code, name: str) -> None:
    """convolution2D moves by sh down and sw across, whether or not the windows tile the image.

    Look at where a window begins, i sh and j sw, and at the number of windows.
    """
    for case in STRIDES:
        X, W, stride = _layer(**case)
        found = call(code, name, X, W, stride, (1, 1))
        _compare(found, _convolution(_padded(X, 1, 1), W, stride), _name(case))


@after(convolution_does_not_flip_the_filter, convolution_takes_any_stride)
def convolution_takes_rectangles(code: Code, name: str) -> None:
    """Images, filters, strides and paddings may be rectangular; the filter may be as large as the image.

    Look at which sizes are used for heights, and which for widths.
    """
    for case in RECTANGLES:
        X, W, stride = _layer(**case)
        found = call(code, name, X, W, stride, (2, 1))
        _compare(found, _convolution(_padded(X, 2, 1), W, stride), f"{_name(case)}, padding (2, 1)")


def gradient_is_the_sum_over_all_windows(code: Code, name: str) -> None:
    """The gradient is that of PyTorch, for a stride of 1: dL/dW sums over images and places, dL/dX over windows.

    Look at +=: windows overlap, and so do their contributions.
    """
    _compare_gradients(code, name, [SIMPLE])


@after(gradient_is_the_sum_over_all_windows)
def gradient_takes_any_stride(code: Code, name: str) -> None:
    """The same where the stride is not 1; a pixel that no window reaches has gradient 0.

    Look at where a window begins, i sh and j sw.
    """
    _compare_gradients(code, name, STRIDES)


@after(gradient_is_the_sum_over_all_windows, gradient_takes_any_stride)
def gradient_takes_rectangles(code: Code, name: str) -> None:
    """The same for images, filters and strides that are longer one way than the other.

    Look at which sizes are used for heights, and which for widths.
    """
    _compare_gradients(code, name, RECTANGLES)


def pooling_takes_the_maximum_of_each_window(code: Code, name: str) -> None:
    """pool_forward takes windows that touch, overlap, lie apart or do not tile the image, of any images.

    Look at where a window begins, i s and j s, and at the number of windows.
    """
    for (IH, IW), f, s in (
        ((6, 6), 2, 2),
        ((6, 6), 3, 1),
        ((9, 9), 2, 5),
        ((7, 5), 2, 2),
        ((8, 5), 3, 2),
        ((4, 4), 1, 1),
    ):
        X = 1 + np.random.rand(2, 3, IH, IW)
        expected = F.max_pool2d(torch.from_numpy(X), f, s).numpy()
        _compare(call(code, name, X, f, s), expected, f"windows of {f} at stride {s} on {IH} x {IW} images: the maxima")


@after(pooling_takes_the_maximum_of_each_window)
def pooling_of_negative_numbers_is_negative(code: Code, name: str) -> None:
    """The maximum of negative numbers is the largest of them, not 0.

    Look at what the maximum starts from.
    """
    X = -1 - np.random.rand(2, 3, 6, 6)
    found = call(code, name, X, 2, 2)
    assert found.max() < 0, f"the maximum of numbers below -1 is {found.max():g}"
    _compare(found, F.max_pool2d(torch.from_numpy(X), 2, 2).numpy(), "the maxima")


def pool_gradient_goes_to_the_maximum(code: Code, name: str) -> None:
    """pool_back gives each window's gradient to its maximum, with the shape of X; other pixels have 0.

    Look at how the maximum's place is found: negative numbers have one too.
    """
    for (IH, IW), f, s in (((6, 6), 2, 2), ((9, 9), 2, 5), ((7, 5), 2, 2)):
        _compare_pool_back(code, np.random.randn(2, 3, IH, IW), f, s)
        _compare_pool_back(code, -1 - np.random.rand(2, 3, IH, IW), f, s)


@after(pool_gradient_goes_to_the_maximum)
def pool_gradients_of_overlapping_windows_add_up(code: Code, name: str) -> None:
    """A pixel that is the maximum of several windows gets the sum of their gradients.

    Look at +=.
    """
    X = np.random.rand(1, 1, 5, 5)
    X[0, 0, 2, 2] = 9
    found = call(code, name, np.arange(1.0, 10).reshape(1, 1, 3, 3), X, 3, 1)
    assert np.isclose(found[0, 0, 2, 2], 45), f"the maximum of 9 windows gets {found[0, 0, 2, 2]:g}, not their sum, 45"
    for (IH, IW), f, s in (((6, 6), 2, 1), ((8, 5), 3, 2)):
        _compare_pool_back(code, np.random.randn(2, 3, IH, IW), f, s)


@after(pool_gradient_goes_to_the_maximum, pool_gradients_of_overlapping_windows_add_up)
def pool_back_takes_the_leading_windows_only(code: Code, name: str) -> None:
    """A gradient of fewer windows than the image has, as in the notebook's own check, is that of the first ones."""
    X, part, whole = np.random.rand(2, 3, 10, 10), np.random.rand(2, 3, 4, 4), np.zeros((2, 3, 9, 9))
    whole[:, :, :4, :4] = part
    found = call(code, name, part, X, 2, 1)
    _compare(found, _pool_gradient(whole, X, 2, 1), "with a gradient of 4 x 4 of 9 x 9 windows, dX")


def arguments_stay_as_they_were(code: Code, name: str) -> None:
    """The function does not write to what it is given, and a second call gives the same."""
    arguments = _small(name)
    copies = [value.copy() if isinstance(value, np.ndarray) else value for value in arguments]
    first = call(code, name, *arguments).copy()
    for number, (value, copy) in enumerate(zip(arguments, copies), start=1):
        assert np.array_equal(value, copy), f"argument {number} of {name} was changed"
    assert np.array_equal(call(code, name, *arguments), first), "the same call gave another result the second time"


def accuracy_counts_every_image_once(code: Code, name: str) -> None:
    """evaluate_model gives the share of images whose largest score is their class's, whatever the batches' sizes.

    Look at the axis of argmax, at what is summed, and at what it is divided by.
    """
    scores, targets = torch.randn(13, 10), torch.randint(10, (13,))
    scores[torch.arange(9), targets[:9]] = 5.0  # right in the full batches, by chance in the last
    scores[12] = 9.0
    scores[12, targets[12]] = 9.5
    data = DataLoader(TensorDataset(scores, targets), batch_size=6)
    found = float(_evaluate(code, nn.Sequential(nn.Identity()), data))
    expected = (scores.argmax(1) == targets).double().mean().item()
    close = min(abs(found - expected), abs(found / 100 - expected))
    assert close < 1e-4, f"the accuracy is {found:.4f}, not {expected:.4f}"


def evaluation_is_in_evaluation_mode(code: Code, name: str) -> None:
    """evaluate_model calls the model in evaluation mode.

    Look for model.eval() in it.
    """
    seen = _watched(code)
    assert not any(training for training, _ in seen), "the model is evaluated in training mode"


def evaluation_records_no_gradients(code: Code, name: str) -> None:
    """evaluate_model records no graph of gradients.

    Look for torch.no_grad().
    """
    assert not any(enabled for _, enabled in _watched(code)), "gradients are recorded while evaluating"


def networks_have_all_their_parameters(code: Code) -> None:
    """get_model gives the ImageNet architectures with ten classes, by their number of parameters."""
    for name, number in PARAMETERS.items():
        with torch.device("meta"):  # counted, not filled
            found = sum(parameter.numel() for parameter in code.load("get_model")(name).parameters())
        assert found == number, f"{name} has {found:,} parameters, not {number:,}"


def networks_give_logits_of_any_batch(code: Code) -> None:
    """A network takes one image or several, and gives logits: no softmax before the loss; num_classes is obeyed."""
    for classes, batch in ((10, 1), (7, 3)):
        network = code.load("get_model")("resnet18", num_classes=classes).eval()
        logits = network(torch.randn(batch, 3, 32, 32))
        assert logits.shape == (batch, classes), f"{batch} images, {classes} classes: shape {tuple(logits.shape)}"
        assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(batch)), "the outputs are log-probabilities"
        assert not torch.allclose(logits.sum(dim=1), torch.ones(batch)), "the outputs are probabilities"


def corruptions_grow_with_severity(code: Code) -> None:
    """Each corruption keeps an image's shape, and takes it further from what it was with each severity."""
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 32), torch.linspace(0, 9, 32), indexing="ij")
    image = 0.5 + 0.2 * torch.stack([torch.sin(rows), torch.cos(columns), torch.sin(rows * columns)])
    for name in CORRUPTIONS:
        distances = []
        for severity in range(1, 6):
            found = code.load(name)(severity)(image.clone())
            assert found.shape == image.shape, f"{name}({severity}) gives {tuple(found.shape)} of {tuple(image.shape)}"
            distances.append((found - image).square().mean().item())
        grow = distances == sorted(distances) and distances[0] < distances[-1]
        assert grow, f"{name}, severity 1 to 5: off by {distances}"


def noise_has_its_standard_deviation(code: Code) -> None:
    """gaussian_noise_transform adds fresh noise of standard deviation 0.04, 0.07, 0.10 at severities 1 to 3."""
    image = torch.full((3, 32, 32), 0.5)
    for severity, std in ((1, 0.04), (2, 0.07), (3, 0.10)):
        transform = code.load("gaussian_noise_transform")(severity)
        first, second = transform(image.clone()), transform(image.clone())
        found = (first - image).std().item()
        assert abs(found - std) < 0.1 * std, f"the noise of severity {severity} has deviation {found:.3f}, not {std}"
        assert not torch.equal(first, second), "two images get the same noise"


def contrast_is_drawn_to_the_mean(code: Code) -> None:
    """contrast_transform multiplies the distance to the mean grey value by 0.75, 0.6, 0.5, 0.4 and 0.3."""
    image = (0.3 + 0.4 * torch.rand(1, 32, 32)).expand(3, -1, -1).contiguous()
    for severity, factor in enumerate((0.75, 0.6, 0.5, 0.4, 0.3), start=1):
        found = code.load("contrast_transform")(severity)(image.clone())
        expected = image.mean() + factor * (image - image.mean())
        difference = (found - expected).abs().max().item()
        assert difference < 0.01, f"at severity {severity}, the contrast is off by up to {difference:.3f}"


class _Watched(nn.Module):
    """Scores that are the input's, and what mode and gradients they were asked for in."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled()))
        return x * self.scale


def _watched(code: Code) -> list[tuple[bool, bool]]:
    model = _Watched().train()
    _evaluate(code, model, DataLoader(TensorDataset(torch.randn(6, 10), torch.randint(10, (6,))), batch_size=3))
    return model.seen


def _evaluate(code: Code, model: nn.Module, data: Any) -> Any:
    function = code.load("evaluate_model")
    return code.call("call evaluate_model", function, model, data, torch.device("cpu"))


def _compare_gradients(code: Code, name: str, cases: Any) -> None:
    which = "dX" if name.endswith("input") else "dW"
    for case in cases:
        X, W, stride = _layer(**case)
        (IH, IW), (FH, FW), (sh, sw) = case["image"], case["filter"], stride
        grad = np.random.randn(len(X), len(W), (IH - FH) // sh + 1, (IW - FW) // sw + 1)
        expected = gradients(X, W, stride, grad)[name.endswith("input")]
        _compare(call(code, name, grad, X, W, stride), expected, f"{_name(case)}: {which}")


def _compare_pool_back(code: Code, X: np.ndarray, f: int, s: int) -> None:
    OH, OW = (1 + (size - f) // s for size in X.shape[2:])
    grad = np.random.randn(*X.shape[:2], OH, OW)
    case = f"windows of {f} at stride {s} on {X.shape[2]} x {X.shape[3]} images: dX"
    _compare(call(code, "pool_back", grad, X, f, s), _pool_gradient(grad, X, f, s), case)


def _layer(image: Any, filter: Any, stride: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Random images, filters, and the stride; no two sizes are equal where a mix-up would then pass."""
    return np.random.randn(2, 3, *image), np.random.randn(5, 3, *filter), stride


def _name(case: Any) -> str:
    (IH, IW), (FH, FW) = case["image"], case["filter"]
    return f"{FH} x {FW} filters at stride {case['stride']} on {IH} x {IW} images"


def _small(name: str) -> tuple[Any, ...]:
    """The simplest call of a function: four square images, five filters, windows that tile, stride 1."""
    X, W, grad = np.random.randn(4, 3, 6, 6), np.random.randn(5, 3, 3, 3), np.random.randn(4, 5, 4, 4)
    return {
        "zero_padding": (X, (1, 2)),
        "convolution2D": (X, W, (1, 1), (1, 2)),
        "convolution2D_backward_filter": (grad, X, W, (1, 1)),
        "convolution2D_backward_input": (grad, X, W, (1, 1)),
        "pool_forward": (X, 2, 2),
        "pool_back": (np.random.randn(4, 3, 3, 3), X, 2, 2),
    }[name]


def _padded(X: np.ndarray, ph: int, pw: int) -> np.ndarray:
    return F.pad(torch.from_numpy(X), (pw, pw, ph, ph)).numpy()


def _convolution(X: np.ndarray, W: np.ndarray, stride: Any = 1) -> np.ndarray:
    return F.conv2d(torch.from_numpy(X), torch.from_numpy(W), stride=stride).numpy()


def _pool_gradient(grad: np.ndarray, X: np.ndarray, f: int, s: int) -> np.ndarray:
    x = torch.from_numpy(X).requires_grad_()
    F.max_pool2d(x, f, s).backward(torch.from_numpy(grad))
    assert x.grad is not None
    return x.grad.numpy()


def _compare(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    difference = np.abs(found - expected).max()
    assert difference < 1e-6, f"{what}: off by up to {difference:.2g}"
