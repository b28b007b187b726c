"""CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 10 classes, 32 x 32 pixels each, and a small set of drawn shapes.

    load_images("cifar10")       as `sources.py` finds it, else the official archive is fetched over https
    load_images("synthetic")     coloured shapes, drawn here: no download

A tenth of the training images is set aside for validation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.data import checksum_of
from common.distributed import shard, world_size
from common.errors import InputError
from common.machine import seeded_generator
from part4.sources import BATCHES, SIDE, Images, read_cifar10

DATASETS = ("cifar10", "synthetic")
VALIDATION_SHARE = 10  # one in so many training images is for validation
PADDING = 4  # pixels that a training image is shifted by at most

SHAPES = "disk, ring, square, frame, triangle, plus, cross, rows, columns, checkerboard".split(", ")
NUM_SYNTHETIC = {"train": 5_000, "test": 1_000}


@dataclass
class ImageData:
    """A set of images, split.

    Attributes:
        name: to be reported with every result: "CIFAR-10", "CIFAR-10 as JPEG" (lossy copies) or "synthetic shapes".
        mean, std: (3,) of the training pixels' channels, on a scale from 0 to 1.
        checksum: of all pixels and labels.
    """

    name: str
    train: Images
    validation: Images
    test: Images
    mean: Tensor
    std: Tensor
    checksum: str


def load_images(dataset: str, data_dir: str | None = None, num_train: int | None = None) -> ImageData:
    """Return "cifar10" or "synthetic", with a tenth of the training images set aside for validation.

    The split is the same for every run, so that runs can be compared.

    Args:
        num_train: use only this many of the training images, drawn at random, always the same ones.

    Raises:
        ValueError: the images cannot be downloaded, are damaged or not CIFAR-10, or there are fewer than `num_train`.
    """
    if dataset not in DATASETS:
        raise InputError(f"the dataset must be one of {', '.join(DATASETS)}, not {dataset!r}")
    if num_train is not None and num_train < 1:
        raise InputError(f"num_train must be at least 1, not {num_train}")
    name, parts = draw_shapes() if dataset == "synthetic" else read_cifar10(data_dir)
    order = torch.randperm(len(parts["train"].labels), generator=seeded_generator(0, "split"))
    num_validation = len(order) // VALIDATION_SHARE
    validation, train = order[:num_validation], order[num_validation:]
    if not num_validation:
        raise InputError(f"{len(order)} training images are too few to set a tenth of them aside")
    if num_train and num_train > len(train):
        raise InputError(f"num_train {num_train} is more than the {len(train):,} training images there are")
    train_images, validation_images = parts["train"].take(train[:num_train]), parts["train"].take(validation)
    mean, std = channel_statistics(train_images.pixels)
    checksum = checksum_of(tensor for part in BATCHES for tensor in parts[part])[:32]
    return ImageData(name, train_images, validation_images, parts["test"], mean, std, checksum)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image of a batch shifted by up to 4 pixels either way, black moving in, and half of them mirrored.

    Args:
        pixels: (B, 3, H, W) of any type, on any device.
        generator: on the CPU, so that every device sees the same images. Of several processes, which hold equal shards
            of a batch, each draws for the whole batch.

    Raises:
        ValueError: the pixels have another shape.
    """
    check_shape(pixels, batch=True)
    B, _, H, W = pixels.shape
    dy, dx = torch.randint(2 * PADDING + 1, (2, B * world_size(), 1), generator=generator)
    mirrored = torch.rand(B * world_size(), 1, generator=generator) < 0.5
    columns = torch.where(shard(mirrored), torch.arange(W).flip(0), torch.arange(W))  # (B, W)
    b = torch.arange(B).to(pixels.device)[:, None, None]
    y = (shard(dy) + torch.arange(H)).to(pixels.device)[:, :, None]  # (B, H, 1)
    x = (shard(dx) + columns).to(pixels.device)[:, None, :]  # (B, 1, W)
    padded = F.pad(pixels, (PADDING,) * 4)
    return padded[b, :, y, x].permute(0, 3, 1, 2)  # indexing gives (B, H, W, 3)


def to_unit(pixels: Tensor) -> Tensor:
    """Return uint8 pixels, (3, H, W) or (B, 3, H, W), as float32 from 0 to 1.

    Raises:
        ValueError: the pixels have another type or shape.
    """
    check_pixels(pixels)
    return pixels.float() / 255


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return images from 0 to 1, (3, H, W) or (B, 3, H, W), their channels shifted by `mean` and scaled by `std`.

    Args:
        mean, std: (3,) each.

    Raises:
        ValueError: the images have another type, shape or range, or `mean` or `std` has another shape.
    """
    check_images(images)
    for name, value in (("mean", mean), ("std", std)):
        if not isinstance(value, Tensor) or value.shape != (3,):
            raise ValueError(f"{name} must be a tensor of 3 numbers, one for each channel, not {described(value)}")
    return (images - mean[:, None, None]) / std[:, None, None]


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (3,) of the channels of uint8 pixels (N, 3, H, W), on a scale from 0 to 1.

    The standard deviation is at least 1/255, for images of one colour too.

    Raises:
        ValueError: the pixels have another type or shape, or there is no image.
    """
    check_pixels(pixels, batch=True)
    if not len(pixels):
        raise ValueError("the statistics of no image at all are not defined")
    value = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([pixels[:, c].flatten().bincount(minlength=256) for c in range(3)])  # (3, 256)
    frequency = (counts / pixels[:, 0].numel()).double()
    mean = frequency @ value
    std = (frequency * (value - mean[:, None]).square()).sum(dim=1).sqrt()
    return mean.float(), std.clamp(min=1 / 255).float()


def check_images(images: Tensor, smallest: int = 1) -> None:
    """Raise a ValueError unless these are floating-point images from 0 to 1; see `check_shape` for their shape."""
    check_shape(images, smallest)
    if not images.is_floating_point():
        raise ValueError(f"images must be floating-point numbers from 0 to 1, not {described(images)}: see to_unit")
    if images.numel():
        low, high = (bound.item() for bound in images.detach().aminmax())  # both are nan if one value is
        if not (0 <= low and high <= 1):
            raise ValueError(f"images must have values from 0 to 1, not from {low:g} to {high:g}")


def check_pixels(pixels: Tensor, batch: bool = False) -> None:
    """Raise a ValueError unless these are uint8 pixels; see `check_shape` for their shape."""
    check_shape(pixels, batch=batch)
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be of type uint8, from 0 to 255, not {described(pixels)}")


def check_shape(images: Tensor, smallest: int = 1, batch: bool = False) -> None:
    """Raise a ValueError unless this is a tensor (B, 3, H, W), or (3, H, W) where it need not be a batch.

    Args:
        smallest: what H and W are at least, in pixels. B may be 0.
    """
    shapes = "(B, 3, H, W)" if batch else "(3, H, W) or (B, 3, H, W)"
    fits = isinstance(images, Tensor) and images.ndim in ((4,) if batch else (3, 4))
    if not (fits and images.shape[-3] == 3 and min(images.shape[-2:]) >= smallest):
        raise ValueError(
            f"images must be a tensor {shapes}, H and W at least {smallest}, red green blue, not {described(images)}"
        )


def described(value: object) -> str:
    """Return what somebody passed, in a few words, for messages."""
    if not isinstance(value, (Tensor, np.ndarray)):
        return f"something of type {type(value).__name__}"
    kind = "a tensor" if isinstance(value, Tensor) else "an ndarray"
    return f"{kind} {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


def draw_shapes() -> tuple[str, dict[str, Images]]:
    """Return the name and images of the synthetic set: ten shapes of random colour, size and place, and some noise."""
    parts = {}
    for part, number in NUM_SYNTHETIC.items():
        generator = seeded_generator(0, f"shapes {part}")
        labels = torch.arange(number) % len(SHAPES)
        centre = 16 + 12 * torch.rand(2, number, 1, 1, generator=generator) - 6
        radius = 6 + 5 * torch.rand(number, 1, 1, generator=generator)
        rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        y, x = (rows - centre[0]) / radius, (columns - centre[1]) / radius  # (N, 32, 32); the shape is within -1 to 1
        square = torch.maximum(y.abs(), x.abs())
        disk = torch.hypot(y, x)
        across, along = (4 * x).floor() % 2 == 0, (4 * y).floor() % 2 == 0
        diagonal = torch.minimum((y - x).abs(), (y + x).abs())
        inside = {
            "disk": disk < 1,
            "ring": (disk < 1) & (disk > 0.6),
            "square": square < 0.9,
            "frame": (square < 0.9) & (square > 0.55),
            "triangle": (x.abs() < (y + 1) / 2) & (y < 1),
            "plus": (square < 1) & (torch.minimum(y.abs(), x.abs()) < 0.25),
            "cross": (square < 1) & (diagonal < 0.35),
            "rows": (square < 1) & along,
            "columns": (square < 1) & across,
            "checkerboard": (square < 1) & (along ^ across),
        }
        mask = torch.stack([inside[shape] for shape in SHAPES])[labels, torch.arange(number)]  # (N, 32, 32)
        background = torch.rand(number, 3, 1, 1, generator=generator)
        colour = (background + 0.3 + 0.4 * torch.rand(number, 3, 1, 1, generator=generator)) % 1  # well apart from it
        noise = 0.05 * torch.randn(number, 3, SIDE, SIDE, generator=generator)
        images = torch.where(mask[:, None], colour, background) + noise
        parts[part] = Images((255 * images).round().clamp(0, 255).byte(), labels)
    return "synthetic shapes", parts
