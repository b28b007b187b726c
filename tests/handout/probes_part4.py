"""What must hold of any solution of part 4, by the names that the handout fixes: its layers, networks and corruptions.

The layers, `zero_padding` to `pool_back`, are looked for in `layers_numpy.py`, then in any Python file of the
solution's folder, then in its notebooks. Images are (N, C, IH, IW), filters (F, C, FH, FW), a stride is (sh, sw), a
padding (ph, pw); the gradients' functions get the input as it was convolved, and no padding. The notebook holds them
against PyTorch, so PyTorch says here what is right. Who of several equal maxima gets the gradient is left open.

`get_model` takes a network's name; a corruption takes a severity, and its transform a (3, 32, 32) image from 0 to 1.
"""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

FUNCTIONS = (
    "zero_padding",
    "convolution2D",
    "convolution2D_backward_filter",
    "convolution2D_backward_input",
    "pool_forward",
    "pool_back",
)
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
    {"image": (7, 7), "filter": (3, 3), "stride": (1, 2)},
    {"image": (7, 7), "filter": (3, 3), "stride": (3, 1)},
)
RECTANGLES = (
    {"image": (4, 7), "filter": (3, 3), "stride": (1, 1)},
    {"image": (6, 6), "filter": (1, 4), "stride": (1, 1)},
    {"image": (9, 5), "filter": (4, 2), "stride": (2, 3)},
    {"image": (3, 4), "filter": (3, 4), "stride": (1, 1)},  # one window
    {"image": (3, 3), "filter": (1, 1), "stride": (1, 1)},
)


def padding_goes_around_height_and_width():
    """zero_padding gives (N, C, IH + 2 ph, IW + 2 pw): the images in the middle, zeros around."""
    X = 1 + np.random.rand(2, 3, 4, 5)
    for ph, pw in ((1, 1), (3, 2)):
        _compare(_call("zero_padding", X, (ph, pw)), _padded(X, ph, pw), f"with a padding of {(ph, pw)} the images")


def padding_of_zero_is_none():
    """A padding of 0, in either direction or both, leaves that side as it is."""
    X = 1 + np.random.rand(2, 3, 4, 5)
    for ph, pw in ((0, 2), (1, 0), (0, 0)):
        _compare(_call("zero_padding", X, (ph, pw)), _padded(X, ph, pw), f"with a padding of {(ph, pw)} the images")
        Y = _call("convolution2D", X, np.ones((1, 3, 2, 2)), (1, 1), (ph, pw))
        _compare(
            Y, _convolution(_padded(X, ph, pw), np.ones((1, 3, 2, 2))), f"with a padding of {(ph, pw)} the convolution"
        )


def convolution_does_not_flip_the_filter():
    """convolution2D is PyTorch's: output (i, j) is the sum of the filter times the window that begins there."""
    X, W, _ = _layer(**SIMPLE)
    found, expected = _call("convolution2D", X, W, (1, 1), (0, 0)), _convolution(X, W)
    flipped = _convolution(X, W[:, :, ::-1, ::-1].copy())
    assert not (found.shape == flipped.shape and np.allclose(found, flipped)), "the filter is flipped; PyTorch's is not"
    _compare(found, expected, "the convolution")


def convolution_sums_over_all_channels():
    """Every output sees every channel of its own filter, and no other filter."""
    X, W, _ = _layer(**SIMPLE)
    for f, c in np.ndindex(W.shape[:2]):
        one = np.zeros_like(W)
        one[f, c] = W[f, c]
        found = _call("convolution2D", X, one, (1, 1), (0, 0))
        _compare(found, _convolution(X, one), f"with all filters 0 but channel {c} of filter {f}, the convolution")


def convolution_takes_any_stride():
    """convolution2D moves by sh down and sw across, whether or not the windows tile the image."""
    for case in STRIDES:
        X, W, stride = _layer(**case)
        _compare(_call("convolution2D", X, W, stride, (0, 0)), _convolution(X, W, stride), _name(case))


def convolution_takes_rectangles():
    """Images, filters, strides and paddings may be rectangular; the filter may be as large as the image."""
    for case in RECTANGLES:
        X, W, stride = _layer(**case)
        for ph, pw in ((0, 0), (2, 1)):
            found = _call("convolution2D", X, W, stride, (ph, pw))
            _compare(found, _convolution(_padded(X, ph, pw), W, stride), f"{_name(case)}, padding {(ph, pw)}")


def filter_gradient_is_the_sum_over_all_windows():
    """convolution2D_backward_filter gives dL/dW, over all images and places, with the shape of W."""
    _probe_gradient("convolution2D_backward_filter", [SIMPLE])


def filter_gradient_takes_any_stride():
    """The same where the stride is not 1, whether or not the windows tile the image."""
    _probe_gradient("convolution2D_backward_filter", STRIDES)


def filter_gradient_takes_rectangles():
    """The same for images, filters and strides that are longer one way than the other."""
    _probe_gradient("convolution2D_backward_filter", RECTANGLES)


def input_gradient_adds_up_all_windows_of_a_pixel():
    """convolution2D_backward_input gives dL/dX, with the shape of X; windows overlap."""
    _probe_gradient("convolution2D_backward_input", [SIMPLE])


def input_gradient_takes_any_stride():
    """The same where the stride is not 1; a pixel that no window reaches has gradient 0."""
    _probe_gradient("convolution2D_backward_input", STRIDES)


def input_gradient_takes_rectangles():
    """The same for images, filters and strides that are longer one way than the other."""
    _probe_gradient("convolution2D_backward_input", RECTANGLES)


def pooling_takes_the_maximum_of_each_window():
    """pool_forward takes windows that touch, overlap, lie apart or do not tile the image, of any images."""
    for (IH, IW), f, s in (
        ((6, 6), 2, 2),
        ((6, 6), 3, 1),
        ((9, 9), 2, 5),
        ((7, 5), 2, 2),
        ((8, 5), 3, 2),
        ((4, 4), 1, 1),
    ):
        X = np.random.randn(2, 3, IH, IW)
        expected = F.max_pool2d(torch.from_numpy(X), f, s).numpy()
        _compare(
            _call("pool_forward", X, f, s), expected, f"windows of {f} at stride {s} on {IH} x {IW} images: the maxima"
        )


def pooling_of_negative_numbers_is_negative():
    """The maximum of negative numbers is the largest of them, not 0."""
    X = -1 - np.random.rand(2, 3, 6, 6)
    found = _call("pool_forward", X, 2, 2)
    assert found.max() < 0, f"the maximum of numbers below -1 is {found.max():g}"
    _compare(found, F.max_pool2d(torch.from_numpy(X), 2, 2).numpy(), "the maxima")


def pool_gradient_goes_to_the_maximum():
    """pool_back gives each window's gradient to its maximum, with the shape of X; other pixels have 0."""
    for (IH, IW), f, s in (((6, 6), 2, 2), ((9, 9), 2, 5), ((7, 5), 2, 2)):
        _probe_pool_back(np.random.randn(2, 3, IH, IW), f, s)
        _probe_pool_back(-1 - np.random.rand(2, 3, IH, IW), f, s)


def pool_gradients_of_overlapping_windows_add_up():
    """A pixel that is the maximum of several windows gets the sum of their gradients."""
    X = np.random.rand(1, 1, 5, 5)
    X[0, 0, 2, 2] = 9
    grad_pool = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    found = _call("pool_back", grad_pool, X, 3, 1)
    assert np.isclose(found[0, 0, 2, 2], 45), (
        f"the maximum of 9 windows gets {found[0, 0, 2, 2]:g}; their gradients sum to 45"
    )
    for (IH, IW), f, s in (((6, 6), 2, 1), ((8, 5), 3, 2)):
        _probe_pool_back(np.random.randn(2, 3, IH, IW), f, s)


def pool_back_takes_the_leading_windows_only():
    """A gradient of fewer windows than the image has, as the notebook gives, is that of the first ones."""
    X, part, whole = np.random.rand(2, 3, 10, 10), np.random.rand(2, 3, 4, 4), np.zeros((2, 3, 9, 9))
    whole[:, :, :4, :4] = part
    _compare(
        _call("pool_back", part, X, 2, 1),
        _pool_gradient(whole, X, 2, 1),
        "with a gradient of 4 x 4 of 9 x 9 windows, dX",
    )


def images_do_not_mix():
    """A batch gives what its images give one by one; the filter's gradient is their sum."""
    for name in FUNCTIONS:
        arguments = _arguments(name)
        together = _call(name, *arguments)
        of_images = [isinstance(value, np.ndarray) and len(value) == 4 for value in arguments]  # W is not
        alone = [
            _call(name, *(value[n : n + 1] if batched else value for value, batched in zip(arguments, of_images)))
            for n in range(4)
        ]
        expected = sum(alone) if name == "convolution2D_backward_filter" else np.concatenate(alone)
        _compare(together, expected, f"{name} of four images, against each alone")


def arguments_stay_as_they_were():
    """No function writes to what it is given, and a second call gives the same."""
    for name in FUNCTIONS:
        arguments = _arguments(name)
        copies = [value.copy() if isinstance(value, np.ndarray) else value for value in arguments]
        first = _call(name, *arguments).copy()
        for number, (value, copy) in enumerate(zip(arguments, copies), start=1):
            assert np.array_equal(value, copy), f"argument {number} of {name} was changed"
        assert np.array_equal(_call(name, *arguments), first), (
            f"the same call of {name} gave another result the second time"
        )


def networks_have_all_their_parameters():
    """get_model gives the ImageNet architectures with ten classes, by their number of parameters."""
    for name, number in PARAMETERS.items():
        with torch.device("meta"):  # counted, not filled
            found = sum(parameter.numel() for parameter in _function("get_model")(name).parameters())
        assert found == number, f"{name} has {found:,} parameters, not {number:,}"


def networks_give_logits_of_any_batch():
    """A network takes one image or several, and gives logits: no softmax before the loss; num_classes is obeyed."""
    for classes, batch in ((10, 1), (7, 3)):
        network = _function("get_model")("resnet18", num_classes=classes).eval()
        logits = network(torch.randn(batch, 3, 32, 32))
        assert logits.shape == (batch, classes), (
            f"{batch} images, {classes} classes: logits of shape {tuple(logits.shape)}"
        )
        assert not torch.allclose(logits.exp().sum(dim=1), torch.ones(batch)), "the outputs are log-probabilities"
        assert not torch.allclose(logits.sum(dim=1), torch.ones(batch)), "the outputs are probabilities"


def corruptions_grow_with_severity():
    """Each corruption keeps an image's shape, and takes it further from what it was with each severity."""
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 32), torch.linspace(0, 9, 32), indexing="ij")
    image = 0.5 + 0.2 * torch.stack([torch.sin(rows), torch.cos(columns), torch.sin(rows * columns)])
    for name in CORRUPTIONS:
        distances = []
        for severity in range(1, 6):
            found = _function(name)(severity)(image.clone())
            assert found.shape == image.shape, f"{name}({severity}) gives {tuple(found.shape)} of {tuple(image.shape)}"
            distances.append((found - image).square().mean().item())
        assert distances == sorted(distances) and distances[0] < distances[-1], (
            f"{name}, severity 1 to 5: off by {distances}"
        )


def noise_has_its_standard_deviation():
    """gaussian_noise_transform adds fresh noise of standard deviation 0.04, 0.07, 0.10 at severities 1 to 3."""
    image = torch.full((3, 32, 32), 0.5)
    for severity, std in ((1, 0.04), (2, 0.07), (3, 0.10)):
        transform = _function("gaussian_noise_transform")(severity)
        first, second = transform(image.clone()), transform(image.clone())
        found = (first - image).std().item()
        assert abs(found - std) < 0.1 * std, (
            f"the noise of severity {severity} has standard deviation {found:.3f}, not {std}"
        )
        assert not torch.equal(first, second), "two images get the same noise"


def contrast_is_drawn_to_the_mean():
    """contrast_transform multiplies the distance to the mean grey value by 0.75, 0.6, 0.5, 0.4 and 0.3."""
    image = (0.3 + 0.4 * torch.rand(1, 32, 32)).expand(3, -1, -1).contiguous()
    for severity, factor in enumerate((0.75, 0.6, 0.5, 0.4, 0.3), start=1):
        found = _function("contrast_transform")(severity)(image.clone())
        expected = image.mean() + factor * (image - image.mean())
        difference = (found - expected).abs().max().item()
        assert difference < 0.01, f"at severity {severity}, the contrast is off by up to {difference:.3f}"


def _probe_gradient(name, cases):
    for case in cases:
        X, W, stride = _layer(**case)
        x, w = (torch.from_numpy(array).requires_grad_() for array in (X, W))
        y = F.conv2d(x, w, stride=stride)
        out_grad = np.random.randn(*y.shape)
        y.backward(torch.from_numpy(out_grad))
        expected = (w if name.endswith("filter") else x).grad.numpy()
        _compare(
            _call(name, out_grad, X, W, stride), expected, f"{_name(case)}: {'dW' if name.endswith('filter') else 'dX'}"
        )


def _probe_pool_back(X, f, s):
    OH, OW = (1 + (size - f) // s for size in X.shape[2:])
    grad_pool = np.random.randn(*X.shape[:2], OH, OW)
    case = f"windows of {f} at stride {s} on {X.shape[2]} x {X.shape[3]} images: dX"
    _compare(_call("pool_back", grad_pool, X, f, s), _pool_gradient(grad_pool, X, f, s), case)


def _layer(image, filter, stride):
    """Random images, filters, and the stride; no two sizes are equal where a mix-up would then pass."""
    return np.random.randn(2, 3, *image), np.random.randn(5, 3, *filter), stride


def _name(case):
    (IH, IW), (FH, FW) = case["image"], case["filter"]
    return f"{FH} x {FW} filters at stride {case['stride']} on {IH} x {IW} images"


def _arguments(name):
    """What a call of each function may look like, with four images; W has five filters."""
    X, W, stride = np.random.randn(4, 3, 6, 7), np.random.randn(5, 3, 3, 2), (2, 1)
    out_grad = np.random.randn(4, 5, 2, 6)
    return {
        "zero_padding": (X, (1, 2)),
        "convolution2D": (X, W, stride, (1, 2)),
        "convolution2D_backward_filter": (out_grad, X, W, stride),
        "convolution2D_backward_input": (out_grad, X, W, stride),
        "pool_forward": (X, 2, 2),
        "pool_back": (np.random.randn(4, 3, 3, 3), X, 2, 2),
    }[name]


def _padded(X, ph, pw):
    return F.pad(torch.from_numpy(X), (pw, pw, ph, ph)).numpy()


def _convolution(X, W, stride=1):
    return F.conv2d(torch.from_numpy(X), torch.from_numpy(W), stride=stride).numpy()


def _pool_gradient(grad_pool, X, f, s):
    x = torch.from_numpy(X).requires_grad_()
    F.max_pool2d(x, f, s).backward(torch.from_numpy(grad_pool))
    return x.grad.numpy()


def _compare(found, expected, what):
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    difference = np.abs(found - expected).max()
    assert difference < 1e-6, f"{what}: off by up to {difference:.2g}"


def _call(name, *arguments):
    found = _function(name)(*arguments)
    assert isinstance(found, np.ndarray), f"{name} returned {type(found).__name__}, not an array"
    return found


def _function(name, modules={}):  # noqa: B006, what was found is kept for the next call
    if name not in modules:
        folder = Path(sys.path[0])
        files = [path for path in sorted(folder.rglob("*.py")) if f"def {name}(" in path.read_text("utf-8", "replace")]
        files.sort(key=lambda path: path.name != "layers_numpy.py")
        modules[name] = getattr(_module(files[0]), name) if files else _from_notebook(folder, name)
    return modules[name]


def _module(path):
    sys.path.append(str(path.parent))  # for the files beside it
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_notebook(folder, name):
    """Return a function from the notebook that defines it, where imports and functions are run, and nothing else."""
    for path in sorted(folder.rglob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        if any(f"def {name}(" in source for source in sources):
            scope = {}
            for source in sources:
                lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
                body = ast.parse("\n".join(lines)).body
                kept = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
                exec(compile(ast.Module(kept, []), str(path), "exec"), scope)
            return scope[name]
    raise AssertionError(f"no file of the solution defines {name}")
