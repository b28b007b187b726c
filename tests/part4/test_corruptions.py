"""part4/corruptions.py against sums by hand and against Pillow."""

import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from part4 import corruptions
from part4.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    contrast_transform,
    gaussian_blur_transform,
    gaussian_noise_transform,
    jpeg_transform,
)


@pytest.fixture
def images():
    """Six smooth images with a few sharp edges."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 5, 5, generator=generator)
    x = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    x[:, :, 10:14, 5:25] = 1
    return (255 * x).round() / 255


def test_the_strengths_are_the_assignments():
    assert corruptions.NOISE_STD == (0.04, 0.07, 0.10, 0.15, 0.25)
    assert corruptions.BLUR_SIGMA == (0.4, 0.6, 0.8, 1.1, 1.5) and corruptions.BLUR_KERNEL == 11
    assert corruptions.CONTRAST_FACTOR == (0.75, 0.6, 0.5, 0.4, 0.3)
    assert corruptions.JPEG_QUALITY == (90, 70, 50, 30, 10)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_its_standard_deviation(severity):
    """Compared where nothing is clipped; clipped values are 0 or 1, as many as expected."""
    std = corruptions.NOISE_STD[severity - 1]
    x = torch.full((200, 3, 32, 32), 0.5)
    y = gaussian_noise_transform(severity)(x)
    clipped = 2 * 0.5 * math.erfc(0.5 / std / math.sqrt(2))
    assert ((y == 0) | (y == 1)).float().mean().item() == pytest.approx(clipped, abs=1e-3)
    within = y[(y > 0) & (y < 1)] - 0.5
    edge = 0.5 / std
    lost = math.sqrt(2 / math.pi) * edge * math.exp(-0.5 * edge**2) / math.erf(edge / math.sqrt(2))
    assert within.std().item() == pytest.approx(std * math.sqrt(1 - lost), rel=0.01)  # normal, truncated at both sides
    assert abs(within.mean().item()) < 0.01 * std


def test_noise_is_seeded_and_differs_in_strength_alone():
    x = torch.full((4, 3, 32, 32), 0.5)
    a, b, c = (gaussian_noise_transform(1, seed)(x) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert not torch.equal(a[0], a[1])
    assert torch.allclose((a - x) / 0.04, (gaussian_noise_transform(2)(x) - x) / 0.07, atol=1e-5)
    twice = gaussian_noise_transform(1)
    assert not torch.equal(twice(x), twice(x))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_batches_of_any_size_give_the_same(name, images):
    whole = CORRUPTIONS[name](3)(images)
    one_by_one, by_four = CORRUPTIONS[name](3), CORRUPTIONS[name](3)
    assert torch.allclose(torch.stack([one_by_one(image) for image in images]), whole, atol=1e-6)
    assert torch.allclose(torch.cat([by_four(images[:4]), by_four(images[4:])]), whole, atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_against_the_direct_sum(severity):
    """Each of 11 x 11 neighbours with its own weight, in double precision; beyond an edge the image is mirrored."""
    x = torch.rand(3, 12, 13, dtype=torch.float64)
    sigma = corruptions.BLUR_SIGMA[severity - 1]
    offsets = [(i, j) for i in range(-5, 6) for j in range(-5, 6)]
    weight = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma**2)) for i, j in offsets}

    def mirrored(k, size):
        return -k if k < 0 else 2 * (size - 1) - k if k >= size else k

    expected = torch.zeros_like(x)
    for r in range(12):
        for s in range(13):
            for i, j in offsets:
                expected[:, r, s] += weight[i, j] * x[:, mirrored(r + i, 12), mirrored(s + j, 13)]
    expected /= sum(weight.values())
    assert torch.allclose(gaussian_blur_transform(severity)(x), expected, atol=1e-6)


def test_blur_reaches_five_pixels_and_keeps_the_mean():
    x = torch.zeros(1, 3, 31, 31)
    x[:, :, 15, 15] = 1
    y = gaussian_blur_transform(5)(x)
    reached = y[0, 0].nonzero()
    assert reached.min(dim=0).values.tolist() == [10, 10] and reached.max(dim=0).values.tolist() == [20, 20]
    assert y.sum(dim=(2, 3)).flatten().tolist() == pytest.approx([1] * 3, abs=1e-5)
    flat = torch.full((3, 32, 32), 0.3)
    assert torch.allclose(gaussian_blur_transform(5)(flat), flat, atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_by_hand(severity):
    """A grey value is 0.299 red + 0.587 green + 0.114 blue; its mean over the image does not change."""
    factor = (0.75, 0.6, 0.5, 0.4, 0.3)[severity - 1]
    x = torch.zeros(2, 3, 1, 2)
    x[0, :, 0, 0] = torch.tensor([1.0, 0.5, 0.0])  # grey value 0.5925; the other pixel is black
    x[1] = 0.6
    y = contrast_transform(severity)(x)
    grey = 0.5925 / 2
    assert y[0, :, 0, 0].tolist() == pytest.approx([grey + factor * (value - grey) for value in (1, 0.5, 0)])
    assert y[0, :, 0, 1].tolist() == pytest.approx([(1 - factor) * grey] * 3)
    assert torch.allclose(y[1], x[1])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_against_pillow(severity, images, tmp_path):
    y = jpeg_transform(severity)(images)
    for k, image in enumerate(images):
        pixels = Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy())
        pixels.save(tmp_path / "image.jpg", quality=(90, 70, 50, 30, 10)[severity - 1])
        read = np.asarray(Image.open(io.BytesIO((tmp_path / "image.jpg").read_bytes())))
        assert np.array_equal((255 * y[k]).round().byte().permute(1, 2, 0).numpy(), read)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_results_are_images_and_grow_worse(name, images):
    original, distances = images.clone(), []
    for severity in SEVERITIES:
        y = CORRUPTIONS[name](severity)(images)
        assert y.shape == images.shape and y.dtype == images.dtype and 0 <= y.min() and y.max() <= 1
        distances.append((y - images).square().mean().item())
    assert distances == sorted(distances) and distances[0] > 0
    assert torch.equal(images, original)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(
    "severity", [0, 6, -1, 2.5, 1.0, "3", None, True, np.bool_(True), [1], np.array([1, 2]), torch.tensor(1)]
)
def test_other_severities_are_refused(name, severity):
    with pytest.raises(ValueError, match="a severity is one of 1, 2, 3, 4, 5, not"):
        CORRUPTIONS[name](severity)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_integers_of_numpy_are_severities(name, images):
    assert torch.equal(CORRUPTIONS[name](np.int64(2))(images), CORRUPTIONS[name](2)(images))


X = torch.full((2, 3, 8, 8), 0.5)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            (255 * X).byte(),
            "must be floating-point numbers from 0 to 1, not a tensor (2, 3, 8, 8) of uint8",
        ),
        (X.long(), "must be floating-point numbers from 0 to 1, not a tensor (2, 3, 8, 8) of int64"),
        (X > 0, "must be floating-point numbers from 0 to 1, not a tensor (2, 3, 8, 8) of bool"),
        (X + 0j, "must be floating-point numbers from 0 to 1, not a tensor (2, 3, 8, 8) of complex64"),
        (255 * X, "must have values from 0 to 1, not from 127.5 to 127.5"),
        (X - 0.75, "must have values from 0 to 1, not from -0.25 to -0.25"),
        (X + 0.51, "must have values from 0 to 1, not from 1.01 to 1.01"),
        (X / 0, "must have values from 0 to 1, not from inf to inf"),
        (X.index_fill(0, torch.tensor([1]), math.nan), "must have values from 0 to 1, not from nan to nan"),
        (X[0, 0], "must be a tensor (3, H, W) or (B, 3, H, W), H and W at least"),
        (X[:, :1], "not a tensor (2, 1, 8, 8) of float32"),
        (X.movedim(1, 3), "not a tensor (2, 8, 8, 3) of float32"),
        (X[None], "not a tensor (1, 2, 3, 8, 8) of float32"),
        (X[:, :, :0], "not a tensor (2, 3, 0, 8) of float32"),
        (torch.tensor(0.5), "not a tensor () of float32"),
        (X.numpy(), "not an ndarray (2, 3, 8, 8) of float32"),
        (X.tolist(), "not something of type list"),
        (Image.new("RGB", (8, 8)), "not something of type Image"),
        (None, "not something of type NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused(name, wrong, message):
    with pytest.raises(ValueError, match=f"^images .*{re.escape(message)}"):
        CORRUPTIONS[name](1)(wrong)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 6), (6, 5)])
def test_blur_alone_needs_six_pixels(name, size):
    x = torch.full((2, 3, *size), 0.5)
    if name == "Gaussian blur":
        with pytest.raises(ValueError, match="H and W at least 6, red green blue, not a tensor"):
            CORRUPTIONS[name](5)(x)
        assert gaussian_blur_transform(5)(torch.full((3, 6, 6), 0.5)).mean().item() == pytest.approx(0.5)
    else:
        assert CORRUPTIONS[name](5)(x).shape == x.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_shapes_of_memory_give_the_same(name, images):
    """Black, white, no image at all, strided memory, double precision, and images that want a gradient."""
    transform = CORRUPTIONS[name]
    for x in (torch.zeros(1, 3, 6, 6), torch.ones(1, 3, 6, 6), torch.zeros(0, 3, 6, 6)):
        assert transform(3)(x).shape == x.shape
    expected = transform(3)(images)
    strided = images.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(transform(3)(strided), expected, atol=1e-6)
    assert torch.allclose(transform(3)(images.double()), expected.double(), atol=1e-6)
    assert torch.equal(transform(3)(images.clone().requires_grad_()).detach(), expected)
