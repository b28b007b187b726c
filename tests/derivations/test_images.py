"""The formulas of the report's section on images, written as printed, against brute force, autograd or NumPy's FFT."""

import io
import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from part4 import corruptions, layers_loops, layers_numpy
from part4.experiments.robustness import corruption_error, relative_corruption_error
from part4.networks import VGG

# images N, channels C, filters K, (IH, IW), (FH, FW), (sh, sw), (ph, pw): tiling and not, overlapping and with gaps
SHAPES = [
    (2, 3, 4, (7, 6), (3, 2), (1, 1), (0, 0)),
    (1, 2, 3, (8, 7), (3, 3), (2, 2), (1, 1)),
    (2, 1, 2, (9, 10), (2, 3), (3, 4), (0, 1)),
    (1, 2, 1, (5, 11), (4, 2), (2, 3), (2, 0)),
]
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def drawn(shape):
    """x within its zeros, w, an output gradient g and autograd's gradients of sum g y."""
    N, C, K, sides, filters, stride, (ph, pw) = shape
    rng = np.random.default_rng(0)
    x = np.pad(rng.standard_normal((N, C, *sides)), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    w = rng.standard_normal((K, C, *filters))
    x_, w_ = (torch.from_numpy(array).requires_grad_() for array in (x, w))
    y = F.conv2d(x_, w_, stride=stride)
    g = rng.standard_normal(y.shape)
    y.backward(torch.from_numpy(g))
    return x, w, y.detach().numpy(), g, x_.grad.numpy(), w_.grad.numpy()


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_output_size():
    """floor((IH - F) / s) + 1 windows fit; the last (IH - F) mod s rows are not read and, if s <= F, all others are."""
    for size, filter_size, stride, padding in product(range(1, 12), range(1, 6), range(1, 6), range(3)):
        padded = size + 2 * padding
        if filter_size > padded:
            continue
        starts = [p for p in range(0, padded, stride) if p + filter_size <= padded]
        assert len(starts) == (size + 2 * padding - filter_size) // stride + 1
        assert len(starts) == layers_numpy.output_size(padded, filter_size, stride)
        read = {p + u for p in starts for u in range(filter_size)}
        assert padded - 1 - max(read) == (padded - filter_size) % stride
        if stride <= filter_size:
            assert read == set(range(max(read) + 1))


@EACH_SHAPE
def test_convolution(shape):
    _, C, _, (IH, IW), (FH, FW), (sh, sw), (ph, pw) = shape
    x, w, y, *_ = drawn(shape)
    inner = x[:, :, ph : ph + IH, pw : pw + IW]
    ours = np.zeros_like(y)
    for n, f, i, j in np.ndindex(y.shape):
        for c, u, v in product(range(C), range(FH), range(FW)):
            p, q = sh * i + u - ph, sw * j + v - pw  # of the image without its zeros
            if 0 <= p < IH and 0 <= q < IW:
                ours[n, f, i, j] += inner[n, c, p, q] * w[f, c, u, v]
    close(ours, y)
    for layers in (layers_loops, layers_numpy):
        close(layers.convolution2D(inner, w, (sh, sw), (ph, pw)), y)


@EACH_SHAPE
def test_gradient_of_the_filter(shape):
    _, _, _, _, _, (sh, sw), _ = shape
    x, w, _, g, _, d_w = drawn(shape)
    N, _, OH, OW = g.shape
    ours = np.zeros_like(w)
    for f, c, u, v in np.ndindex(w.shape):
        ours[f, c, u, v] = sum(
            g[n, f, i, j] * x[n, c, sh * i + u, sw * j + v] for n in range(N) for i in range(OH) for j in range(OW)
        )
    close(ours, d_w)
    for layers in (layers_loops, layers_numpy):
        close(layers.convolution2D_backward_filter(g, x, w, (sh, sw)), d_w)


def windows_over(p, filter_size, stride, number):
    """I(p): from max(0, ceil((p - F + 1) / s)) to min(O - 1, floor(p / s))."""
    return range(max(0, -((filter_size - 1 - p) // stride)), min(number - 1, p // stride) + 1)


@EACH_SHAPE
def test_gradient_of_the_input(shape):
    _, _, K, _, (FH, FW), (sh, sw), _ = shape
    x, w, _, g, d_x, _ = drawn(shape)
    OH, OW = g.shape[2:]
    ours = np.zeros_like(x)
    for n, c, p, q in np.ndindex(x.shape):
        assert list(windows_over(p, FH, sh, OH)) == [i for i in range(OH) if 0 <= p - sh * i < FH]
        for f, i, j in product(range(K), windows_over(p, FH, sh, OH), windows_over(q, FW, sw, OW)):
            ours[n, c, p, q] += g[n, f, i, j] * w[f, c, p - sh * i, q - sw * j]
    close(ours, d_x)
    for layers in (layers_loops, layers_numpy):
        close(layers.convolution2D_backward_input(g, x, w, (sh, sw)), d_x)


@EACH_SHAPE
def test_pixels_that_no_window_reaches(shape):
    """Zero gradient where p mod s >= F, and in the last (IH - F) mod s rows; some gradient everywhere else."""
    _, _, _, _, filters, strides, _ = shape
    x, _, _, g, d_x, _ = drawn(shape)
    for axis in (0, 1):
        size, F_, s = x.shape[2 + axis], filters[axis], strides[axis]
        reached = np.abs(d_x).max(axis=(0, 1, 3 - axis)) > 0
        expected = [p % s < F_ and p < size - (size - F_) % s for p in range(size)]
        assert reached.tolist() == expected
        assert reached.tolist() == [len(windows_over(p, F_, s, g.shape[2 + axis])) > 0 for p in range(size)]


@EACH_SHAPE
def test_full_correlation(shape):
    """g spread out by the stride and surrounded by F - 1 zeros, under the filter turned by 180 degrees."""
    N, _, K, _, (FH, FW), (sh, sw), _ = shape
    x, w, _, g, d_x, _ = drawn(shape)
    OH, OW = g.shape[2:]
    rh, rw = ((x.shape[2] - FH) % sh, (x.shape[3] - FW) % sw)
    spread = np.zeros((N, K, sh * (OH - 1) + 1, sw * (OW - 1) + 1))
    spread[:, :, ::sh, ::sw] = g
    spread = np.pad(spread, ((0, 0), (0, 0), (FH - 1, FH - 1 + rh), (FW - 1, FW - 1 + rw)))
    ours = np.zeros_like(x)
    for n, c, p, q in np.ndindex(x.shape):
        for f, u, v in product(range(K), range(FH), range(FW)):
            ours[n, c, p, q] += spread[n, f, p + u, q + v] * w[f, c, FH - 1 - u, FW - 1 - v]
    close(ours, d_x)
    turned = np.ascontiguousarray(w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
    close(layers_numpy.convolution2D(spread, turned, 1, 0), d_x)


@EACH_SHAPE
def test_one_product_over_patches(shape):
    """Row (c, u, v), column (i, j) of P holds x[c, sh i + u, sw j + v]: Y = W P, dW = sum G P^T, dX adds up W^T G."""
    N, C, K, _, (FH, FW), (sh, sw), _ = shape
    x, w, y, g, d_x, d_w = drawn(shape)
    OH, OW = g.shape[2:]
    Y, dW, dX = np.zeros((N, K, OH * OW)), np.zeros((K, C * FH * FW)), np.zeros_like(x)
    for n in range(N):
        P, source = np.zeros((C * FH * FW, OH * OW)), {}
        for c, u, v, i, j in np.ndindex(C, FH, FW, OH, OW):
            place = (c * FH + u) * FW + v, i * OW + j
            source[place] = n, c, sh * i + u, sw * j + v
            P[place] = x[source[place]]
        close(layers_numpy.patches(x, w, sh, sw)[n], P)
        W, G = w.reshape(K, -1), g[n].reshape(K, -1)
        Y[n], dP = W @ P, W.T @ G
        dW += G @ P.T
        for place, pixel in source.items():
            dX[pixel] += dP[place]
    close(Y, y.reshape(Y.shape))
    close(dW, d_w.reshape(dW.shape))
    close(dX, d_x)


@pytest.mark.parametrize(("f", "s"), [(2, 2), (3, 2), (2, 3), (3, 1)])
def test_gradient_through_pooling(f, s):
    """Each window's gradient at its maximum, windows that overlap add; autograd and finite differences agree."""
    rng = np.random.default_rng(0)
    x = rng.permutation(2 * 2 * 8 * 9).reshape(2, 2, 8, 9) / 10.0  # no ties, gaps of a tenth
    x_ = torch.from_numpy(x).requires_grad_()
    y = F.max_pool2d(x_, f, s)
    g = rng.standard_normal(y.shape)
    y.backward(torch.from_numpy(g))
    ours = np.zeros_like(x)
    for n, c, i, j in np.ndindex(g.shape):
        places = [(s * i + u, s * j + v) for u in range(f) for v in range(f)]
        p, q = max(places, key=lambda place: x[n, c, place[0], place[1]])
        assert y[n, c, i, j].item() == x[n, c, p, q]
        ours[n, c, p, q] += g[n, c, i, j]
    close(ours, x_.grad.numpy())
    for layers in (layers_loops, layers_numpy):
        close(layers.pool_back(g, x, f, s), ours)
    direction = rng.uniform(-1, 1, x.shape)
    ends = [(g * layers_numpy.pool_forward(x + sign * 1e-3 * direction, f, s)).sum() for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-3 == pytest.approx((ours * direction).sum(), rel=1e-9)


def test_ties():
    """Our pooling and PyTorch's give it all to the first maximum, `amax` shares it; the slopes to both sides differ."""
    x = np.array([[[[1.0, 3.0], [3.0, 3.0]]]])
    first = np.array([[[[0.0, 1.0], [0.0, 0.0]]]])
    for layers in (layers_loops, layers_numpy):
        close(layers.pool_back(np.ones((1, 1, 1, 1)), x, 2, 2), first)
    pooled, shared = (torch.from_numpy(x.copy()).requires_grad_() for _ in range(2))
    F.max_pool2d(pooled, 2).backward(torch.ones(1, 1, 1, 1, dtype=torch.float64))
    shared.amax(dim=(2, 3)).backward(torch.ones(1, 1, dtype=torch.float64))
    close(pooled.grad.numpy(), first)
    close(shared.grad.numpy(), np.array([[[[0, 1 / 3], [1 / 3, 1 / 3]]]]))
    raised, lowered = (x + sign * 0.5 * first for sign in (1, -1))
    assert (raised.max() - x.max(), x.max() - lowered.max()) == (0.5, 0)
    # subgradients: max(y) >= max(x) + <d, y - x> for every y
    for y in np.random.default_rng(0).normal(3, 2, (200, 1, 1, 2, 2)):
        for d in (first, shared.grad.numpy()):
            assert y.max() >= x.max() + (d * (y - x)).sum() - 1e-12


def test_a_shift_moves_the_output():
    """Away from the edges, moving the image by s = 2 pixels moves y by 1 and keeps its mean; 1 pixel does not."""
    rng = np.random.default_rng(0)
    x, w = np.zeros((1, 2, 20, 20)), rng.standard_normal((3, 2, 3, 3))
    x[:, :, 6:12, 6:12] = rng.standard_normal((1, 2, 6, 6))  # black around it
    y = layers_numpy.convolution2D(x, w, 2, 0)
    by_two, by_one = (layers_numpy.convolution2D(np.roll(x, shift, axis=2), w, 2, 0) for shift in (2, 1))
    close(by_two, np.roll(y, 1, axis=2))

    def relu_mean(y):
        return np.maximum(y, 0).mean(axis=(2, 3))

    close(relu_mean(by_two), relu_mean(y))
    assert np.abs(relu_mean(by_one) - relu_mean(y)).max() > 1e-3
    assert min(np.abs(by_one - np.roll(y, k, axis=2)).max() for k in range(9)) > 0.1


def test_49_copies():
    """W [x; ...; x] = (sum of W_k) x; each W_k gets the gradient d x^T, so a step moves the sum 49 times as far."""
    torch.manual_seed(0)
    # channels first, then the 49 places, as flattened
    weight = torch.randn(6, 5, 49, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 5, dtype=torch.float64)
    copies = F.adaptive_avg_pool2d(x[:, :, None, None], (7, 7)).flatten(1)
    assert torch.equal(copies, x.repeat_interleave(49, dim=1))
    summed = weight.sum(dim=2)
    with_copies = F.linear(copies, weight.flatten(1))
    assert torch.allclose(with_copies, F.linear(x, summed), rtol=0, atol=1e-12)
    d = torch.randn(3, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(with_copies, weight, d)
    assert torch.allclose(gradient, (d.T @ x)[:, :, None].expand(-1, -1, 49), atol=1e-12)
    step = (weight - 0.1 * gradient).sum(dim=2) - summed
    assert torch.allclose(step, -0.1 * 49 * d.T @ x, atol=1e-11)
    # the project's forward, on features of 1 x 1: as with the 49 copies written out
    classifier = nn.Sequential(nn.Linear(512 * 49, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    vgg = SimpleNamespace(features=nn.Identity(), avgpool=nn.AdaptiveAvgPool2d((7, 7)), classifier=classifier)
    x = torch.randn(2, 512, 1, 1, dtype=torch.float64)
    assert torch.allclose(VGG.forward(vgg, x), classifier(vgg.avgpool(x).flatten(1)), rtol=0, atol=1e-12)


def readings(S, E, S_R, E_R):
    """CE, RCE with the clean error subtracted from all five terms, and with it subtracted once."""
    return S / S_R, (S - 5 * E) / (S_R - 5 * E_R), (S - E) / (S_R - E_R)


def test_ce_and_rce():
    """The definitions as the code has them; both are 1 for the reference."""
    errors, reference, clean, clean_R = [0.2, 0.3, 0.4, 0.5, 0.6], [0.3, 0.4, 0.5, 0.6, 0.7], 0.1, 0.3
    CE, RCE, _ = readings(sum(errors), clean, sum(reference), clean_R)
    assert corruption_error(errors, reference) == pytest.approx(CE) == pytest.approx(0.8)
    assert relative_corruption_error(errors, clean, reference, clean_R) == pytest.approx(RCE) == pytest.approx(1.5)
    assert readings(sum(reference), clean_R, sum(reference), clean_R) == (1, 1, 1)


def test_how_far_the_readings_of_rce_differ():
    """once - five = 4 E_R / (S_R - E_R) (E / E_R - five): 0 where E / E_R = RCE, and then CE is the same number too."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        E, E_R = rng.uniform(0.05, 0.5, 2)
        S, S_R = 5 * E + rng.uniform(0, 2), 5 * E_R + rng.uniform(0.1, 2)
        CE, five, once = readings(S, E, S_R, E_R)
        assert once - five == pytest.approx(4 * E_R / (S_R - E_R) * (E / E_R - five), abs=1e-12)
        assert CE - five == pytest.approx(5 * E_R / S_R * (E / E_R - five), abs=1e-12)
        assert 0.8 <= (once - five) / (CE - five) <= 1  # between the two, at least four fifths of the way to CE
        S = E / E_R * S_R
        assert readings(S, E, S_R, E_R) == pytest.approx([E / E_R] * 3)
    CE, five, once = readings(1.5, 0.10, 1.25, 0.05)
    assert (CE, five, round(once, 2)) == (pytest.approx(1.2), pytest.approx(1), 1.17)


def test_a_flat_model():
    """One that always answers the same class has error 0.9 everywhere: RCE 0, CE 4.5 / S_R, above 1."""
    reference, clean_R = [0.3, 0.35, 0.4, 0.5, 0.6], 0.25
    assert relative_corruption_error([0.9] * 5, 0.9, reference, clean_R) == 0
    assert corruption_error([0.9] * 5, reference) == pytest.approx(4.5 / sum(reference)) and 4.5 / sum(reference) > 2
    # equal errors once corrupted, but better when clean: RCE is larger
    assert relative_corruption_error(reference, 0.2, reference, clean_R) > 1


def test_the_readings_on_published_numbers():
    """ResNet-50 on ImageNet-C: only the reading with five subtractions gives the published mean RCE of 105.0 %."""
    alexnet = [88.6, 89.4, 92.3, 82.0, 82.6, 78.6, 79.8, 86.7, 82.7, 81.9, 56.5, 85.3, 64.6, 71.8, 60.7]
    resnet_CE = [80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77]
    found = [readings(5 * CE / 100 * E, 23.9, 5 * E, 43.5) for CE, E in zip(resnet_CE, alexnet)]
    CE, five, once = (100 * np.mean(column) for column in zip(*found))
    assert CE == pytest.approx(76.7, abs=0.25) and five == pytest.approx(105.0, abs=0.5)
    assert (round(five), round(once)) == (105, 80)


def contrast(x, c):
    """x' = c x + (1 - c) g, g the mean grey value of each image; and the uniform images of value g."""
    grey = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype)
    g = (x * grey[:, None, None]).sum(dim=1).mean(dim=(1, 2))[:, None, None, None].expand_as(x)
    return c * x + (1 - c) * g, g


def first_layer(bn):
    """A convolution of normalised images and, with `bn`, a normalisation by running statistics."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False).double()
    norm = nn.BatchNorm2d(5).double()
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    mean, std = torch.tensor([[0.49, 0.48, 0.45], [0.25, 0.24, 0.26]], dtype=torch.float64)[:, :, None, None]
    after = norm.eval() if bn else nn.Identity()
    return lambda x: after(layer((x - mean) / std))


@pytest.mark.parametrize("bn", [False, True])
@torch.no_grad()
def test_contrast_in_the_first_layer(bn):
    """a(x') - a(g) = c (a(x) - a(g)): with and without normalisation by running statistics, edges included."""
    x = torch.rand(4, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = first_layer(bn)
    for severity, c in zip(corruptions.SEVERITIES, corruptions.CONTRAST_FACTOR):
        corrupted, g = contrast(x, c)
        assert 0 <= corrupted.min() and corrupted.max() <= 1  # so that nothing is clipped
        assert torch.allclose(corruptions.contrast_transform(severity)(x), corrupted, atol=1e-7)
        assert torch.allclose(a(corrupted) - a(g), c * (a(x) - a(g)), rtol=0, atol=1e-12)


@torch.no_grad()
def test_variance_under_contrast():
    """Within an image c^2 of the variance is left; batch statistics undo this where all images share one a(g)."""
    x = torch.rand(4, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x - contrast(x, 0)[1] + 0.5  # all of one mean grey value
    corrupted, _ = contrast(x, 0.3)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = F.conv2d(x, weight), F.conv2d(corrupted, weight)  # no zeros at the edges: a(g) is one number a channel
    assert torch.allclose(b.var(dim=(2, 3)), 0.09 * a.var(dim=(2, 3)), rtol=1e-10)
    by_batch = [F.batch_norm(values, None, None, training=True, eps=1e-12) for values in (a, b)]
    assert torch.allclose(*by_batch, rtol=0, atol=1e-9)
    mean, var = a.mean(dim=(0, 2, 3)), a.var(dim=(0, 2, 3), unbiased=False)
    by_training = [F.batch_norm(values, mean, var, eps=0) for values in (a, b)]
    assert torch.allclose(by_training[1].var(dim=(2, 3)), 0.09 * by_training[0].var(dim=(2, 3)))
    assert by_training[1].std() < 0.5


@torch.no_grad()
def test_scale_does_not_matter_without_biases():
    """f(c x) = c f(x), c > 0, for convolutions, ReLU and pooling without biases; not with a bias."""
    torch.manual_seed(0)
    for bias in (False, True):
        layers = [
            nn.Conv2d(3, 8, 3, bias=bias),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * 9, 10, bias=bias),
        ]
        model = nn.Sequential(*layers).double()
        x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
        assert torch.allclose(model(0.3 * x), 0.3 * model(x), rtol=0, atol=1e-12) != bias


@torch.no_grad()
def test_variance_of_noise_in_the_first_layer():
    """Independent noise of standard deviation s adds s^2 times the sum of (w / std)^2 to the variance."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=generator)
    std, s = torch.tensor([0.25, 0.24, 0.26], dtype=torch.float64), 0.1
    noise = s * torch.randn(60_000, 3, 3, 3, dtype=torch.float64, generator=generator)
    found = F.conv2d(noise / std[:, None, None], w).var(dim=0).flatten()
    expected = s**2 * (w / std[:, None, None]).square().sum(dim=(1, 2, 3))
    assert torch.allclose(found, expected, rtol=0.03)


def kernel(sigma, reach=corruptions.BLUR_KERNEL // 2):
    k = np.arange(-reach, reach + 1)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return weights / weights.sum()


def transfer(f, sigma):
    """H(f) = sum_m G(f - m) / sum_m G(m): the Gaussian and its copies at whole frequencies."""
    copies = range(-9, 10)
    return sum(gaussian(f - m, sigma) for m in copies) / sum(gaussian(m, sigma) for m in copies)


def gaussian(f, sigma):
    """G(f) = exp(-2 pi^2 sigma^2 f^2)"""
    return np.exp(-2 * (np.pi * sigma * f) ** 2)


@pytest.mark.parametrize("sigma", corruptions.BLUR_SIGMA)
def test_transfer_function_of_the_blur(sigma):
    """Against the FFT of the 11 weights."""
    padded = np.zeros(256)
    padded[np.arange(-5, 6)] = kernel(sigma)
    found, f = np.fft.fft(padded), np.fft.fftfreq(256)
    assert np.abs(found.imag).max() < 1e-12
    cut_off = np.exp(-((corruptions.BLUR_KERNEL // 2 + 1) ** 2) / (2 * sigma**2))  # the first weight left out
    np.testing.assert_allclose(found.real, transfer(f, sigma), rtol=0, atol=3 * cut_off + 1e-12)
    half = found.real[128]  # black and white rows
    if sigma == corruptions.BLUR_SIGMA[0]:
        assert round(half, 2) == 0.84
    if sigma == corruptions.BLUR_SIGMA[-1]:
        assert abs(half) < 1e-3


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_the_blur_multiplies_waves(severity):
    """The project's blur of cos(2 pi (f_y y + f_x x)) is H(f_y) H(f_x) times it, away from the edges."""
    sigma, (y, x) = corruptions.BLUR_SIGMA[severity - 1], np.mgrid[:24, :24]
    for f_y, f_x in ((0, 0.125), (0.25, 0.1), (0.4, 0.5)):
        wave = 0.4 * np.cos(2 * np.pi * (f_y * y + f_x * x))
        image = torch.from_numpy(0.5 + wave).expand(3, -1, -1)
        blurred = corruptions.gaussian_blur_transform(severity)(image).numpy() - 0.5
        expected = transfer(f_y, sigma) * transfer(f_x, sigma) * wave
        np.testing.assert_allclose(blurred[0, 5:-5, 5:-5], expected[5:-5, 5:-5], rtol=0, atol=2e-4)


STEPS = [16, 11, 10, 16, 24, 40, 51, 61]  # the first row of the standard's table for brightness


def written(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_steps_of_quality_50_are_twice_those_of_75():
    tables = [written(np.zeros((8, 8, 3), np.uint8), quality).quantization[0] for quality in (75, 50)]
    fine, coarse = map(np.array, tables)
    assert np.abs(coarse - 2 * fine).max() <= 1 and (coarse == 2 * fine).mean() > 0.4


def test_steps_of_jpeg():
    """q = floor((T S + 50) / 100), S = 5000 / Q below 50, else 200 - 2 Q; here the first row."""
    image = np.zeros((8, 8, 3), np.uint8)
    for quality in (*corruptions.JPEG_QUALITY, 75):
        S = 5000 // quality if quality < 50 else 200 - 2 * quality
        expected = [min(255, max(1, (T * S + 50) // 100)) for T in STEPS]
        assert written(image, quality).quantization[0][:8] == expected
    ends = [written(image, quality).quantization[0][:8:7] for quality in (90, 10)]
    assert ends == [[3, 12], [80, 255]]


@pytest.mark.parametrize("quality", corruptions.JPEG_QUALITY)
def test_jpeg_drops_what_is_below_half_a_step(quality):
    """The cosine of frequency 7 across a block vanishes if its coefficient is below q / 2, and stays if it is above."""
    wave = np.cos((2 * np.arange(8) + 1) * 7 * np.pi / 16)
    q = written(np.zeros((8, 8), np.uint8), quality).quantization[0][7]
    for share, kept in ((0.35, False), (0.65, True)):
        amplitude = share * q * math.sqrt(2) / 8  # whose coefficient is share times q
        pixels = np.tile(128 + amplitude * wave, (8, 1))
        coefficient = (math.sqrt(1 / 8) * 8) * (math.sqrt(2 / 8) * ((pixels[0] - 128) * wave).sum())
        assert coefficient == pytest.approx(share * q)
        rounded = np.round(coefficient / q)
        assert rounded == kept
        if q > 40:  # large enough to survive the rounding of the pixels themselves
            read = np.asarray(written(np.round(pixels).astype(np.uint8), quality)).astype(float)
            assert (np.ptp(read) > 0) == kept


def test_jpeg_halves_the_resolution_of_colour():
    """Brightness keeps its pixels; one value of colour serves 2 x 2 of them, at every quality used here."""
    from PIL import JpegImagePlugin

    for quality in (*corruptions.JPEG_QUALITY, 75):
        assert JpegImagePlugin.get_sampling(written(np.zeros((32, 32, 3), np.uint8), quality)) == 2  # 4:2:0
