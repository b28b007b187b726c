"""Four corruptions of images, each in five severities (question 1.2; after Hendrycks and Dietterich 2019).

    jpeg_transform(3)(images)        (3, H, W) or (B, 3, H, W) from 0 to 1 -> the same shape, from 0 to 1

Each function takes a severity from 1 to 5 and returns a transform of an image or a batch. Only the noise is random, and
it is seeded: a new transform that goes through the same test set, in batches of any size, adds the same noise. A
transform raises a ValueError for images of another type, shape or range: uint8 pixels go through `to_unit` first.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from common.machine import seeded_generator
from part4.cifar10 import check_images

SEVERITIES = (1, 2, 3, 4, 5)
NOISE_STD = (0.04, 0.07, 0.10, 0.15, 0.25)
BLUR_SIGMA = (0.4, 0.6, 0.8, 1.1, 1.5)  # pixels
BLUR_KERNEL = 11  # pixels
CONTRAST_FACTOR = (0.75, 0.6, 0.5, 0.4, 0.3)
JPEG_QUALITY = (90, 70, 50, 30, 10)
GREY = (0.299, 0.587, 0.114)  # of red, green and blue in a grey value: ITU-R BT.601
Transform = Callable[[Tensor], Tensor]


def gaussian_noise_transform(severity: int, seed: int = 0) -> Transform:
    """Add independent noise to each value, then clip. All severities scale the same draws."""
    std = of_severity(NOISE_STD, severity)
    generator = seeded_generator(seed, "gaussian noise")

    def transform(images: Tensor) -> Tensor:
        check_images(images)
        noise = torch.randn(images.shape, generator=generator)  # on the CPU: the same on every device
        return (images + std * noise.to(images)).clamp(0, 1)

    return transform


def gaussian_blur_transform(severity: int) -> Transform:
    """Average neighbouring pixels, weighted by exp(-distance² / 2 sigma²); the image is mirrored at its edges.

    So it has at least 6 x 6 pixels.
    """
    sigma, reach = of_severity(BLUR_SIGMA, severity), BLUR_KERNEL // 2
    weights = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    weights = weights / weights.sum()

    def transform(images: Tensor) -> Tensor:
        check_images(images, smallest=reach + 1)
        w = weights.to(images)
        x = images.reshape(-1, 1, *images.shape[-2:])  # (B * 3, 1, H, W)
        x = F.pad(x, (reach,) * 4, mode="reflect")
        x = F.conv2d(x, w.view(1, 1, 1, -1))  # along the rows; the weight of a pixel is a product of two
        x = F.conv2d(x, w.view(1, 1, -1, 1))  # along the columns
        return x.view_as(images).clamp(0, 1)

    return transform


def contrast_transform(severity: int) -> Transform:
    """Move each value towards the mean grey value of its image."""
    factor = of_severity(CONTRAST_FACTOR, severity)

    def transform(images: Tensor) -> Tensor:
        check_images(images)
        grey = (images * images.new_tensor(GREY)[:, None, None]).sum(dim=-3).mean(dim=(-2, -1))  # (B,)
        return (factor * images + (1 - factor) * grey[..., None, None, None]).clamp(0, 1)

    return transform


def jpeg_transform(severity: int) -> Transform:
    """Compress each image to JPEG and decode it."""
    quality = int(of_severity(JPEG_QUALITY, severity))

    def transform(images: Tensor) -> Tensor:
        check_images(images)
        batch = images if images.ndim == 4 else images[None]
        pixels = (255 * batch).round().byte().permute(0, 2, 3, 1).cpu()  # (B, H, W, 3)
        for image in pixels.numpy():
            image[:] = through_jpeg(image, quality)
        return (pixels.permute(0, 3, 1, 2).to(images) / 255).reshape(images.shape)

    return transform


CORRUPTIONS = {
    "Gaussian noise": gaussian_noise_transform,
    "Gaussian blur": gaussian_blur_transform,
    "contrast": contrast_transform,
    "JPEG": jpeg_transform,
}


def through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels after compression to JPEG of a quality."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def of_severity(values: tuple[float, ...], severity: int) -> float:
    """Return the value for a severity.

    Raises:
        ValueError: the severity is not one of the integers 1 to 5.
    """
    is_integer = isinstance(severity, (int, np.integer)) and not isinstance(severity, bool)
    if not is_integer or severity not in SEVERITIES:
        raise ValueError(f"a severity is one of 1, 2, 3, 4, 5, not {severity!r}")
    return values[SEVERITIES.index(severity)]
