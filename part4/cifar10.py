"""CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 10 classes, 32 x 32 pixels each, and a small set of drawn shapes.

    load_images("cifar10")       from $DATA_DIR/cifar10, else the official archive is fetched over https
    load_images("synthetic")     coloured shapes, drawn here: no download

In $DATA_DIR/cifar10 the first of these is taken: the official binary archive cifar-10-binary.tar.gz; a zip of images,
cifar10_jpg.zip, with members train/CLASS/NAME.jpg and test/CLASS/NAME.jpg; folders train/ and test/ of the same layout.
JPEG copies are lossy, and the name of such a set says so. Decoded images are cached under data/images.
"""

import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from common.data import cached_tensors, data_path, find_data
from common.distributed import shard, world_size
from common.errors import CommandError, InputError
from common.machine import seeded_generator
from common.paths import ROOT, short_path

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32  # pixels
DATASETS = ("cifar10", "synthetic")
ARCHIVE = "cifar10/cifar-10-binary.tar.gz"
ZIP = "cifar10_jpg.zip"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
BATCHES = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
IMAGE = re.compile(r"(?:.*/)?(train|test)/([^/]+)/[^/]+\.(jpe?g|png)", re.IGNORECASE)
CACHE = ROOT / "data" / "images"
FORMAT = 1  # of the cache; raise it whenever the same source is decoded differently
VALIDATION_SHARE = 10  # one in so many training images is for validation
PADDING = 4  # pixels that a training image is shifted by at most

SHAPES = "disk, ring, square, frame, triangle, plus, cross, rows, columns, checkerboard".split(", ")
NUM_SYNTHETIC = {"train": 5_000, "test": 1_000}


class Images(NamedTuple):
    """N images with their labels.

    Attributes:
        pixels: (N, 3, 32, 32) uint8, red green blue.
        labels: (N,) int64, numbers of CLASSES (of SHAPES, in the synthetic set).
    """

    pixels: Tensor
    labels: Tensor

    def take(self, indices: Tensor) -> "Images":
        return Images(self.pixels[indices], self.labels[indices])

    def to(self, device: torch.device) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))


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
    return ImageData(name, train_images, validation_images, parts["test"], mean, std, checksum_of(parts))


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image of a batch shifted by up to 4 pixels either way, black moving in, and half of them mirrored.

    Args:
        pixels: (B, 3, H, W) of any type, on any device.
        generator: on the CPU, so that every device sees the same images. Of several processes, which hold equal shards
            of a batch, each draws for the whole batch.
    """
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
    """Return uint8 pixels as float32 from 0 to 1."""
    return pixels.float() / 255


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (B, 3, H, W) images from 0 to 1 with their channels shifted by `mean` and scaled by `std`, (3,) each."""
    return (images - mean[:, None, None]) / std[:, None, None]


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (3,) of the channels of uint8 pixels, on a scale from 0 to 1.

    The standard deviation is at least 1/255, for images of one colour too.
    """
    value = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([pixels[:, c].flatten().bincount(minlength=256) for c in range(3)])  # (3, 256)
    frequency = (counts / pixels[:, 0].numel()).double()
    mean = frequency @ value
    std = (frequency * (value - mean[:, None]).square()).sum(dim=1).sqrt()
    return mean.float(), std.clamp(min=1 / 255).float()


def read_cifar10(data_dir: str | None = None) -> tuple[str, dict[str, Images]]:
    """Return the name of the set, and its train and test images; decoded once, then taken from a cache.

    Raises:
        ValueError: there is none and it cannot be fetched, or it is damaged or not CIFAR-10.
    """
    source, folder = find_cifar10(data_dir), data_path("cifar10", data_dir)
    files = files_below(source) if source.is_dir() else [source]
    stats = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr((FORMAT, str(folder.resolve()), stats)).encode()).hexdigest()[:32]

    def decoded() -> dict[str, Any]:
        name, parts = decode_source(source)
        return {"name": name, **{part: tuple(parts[part]) for part in BATCHES}}

    content = cached_tensors(CACHE / f"{key}.pt", decoded)
    return content["name"], {part: Images(*content[part]) for part in BATCHES}


def find_cifar10(data_dir: str | None = None) -> Path:
    """Return the official archive, the zip of images or the folder of images; fetch the archive where there is none.

    Raises:
        ValueError: the archive is not the official one, or cannot be fetched.
    """
    folder = data_path("cifar10", data_dir)
    if not data_path(ARCHIVE, data_dir).is_file():
        if (folder / ZIP).is_file():
            return folder / ZIP
        if (folder / "train").is_dir():
            return folder
    try:
        return find_data(ARCHIVE, data_dir, URL, SHA256)
    except CommandError as error:
        raise InputError(f"{error}; the synthetic images need no download") from None


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def decode_source(source: Path) -> tuple[str, dict[str, Images]]:
    """Return the name of the set, and its train and test images, from what `find_cifar10` returned.

    Raises:
        ValueError: it is damaged, or not CIFAR-10.
    """
    if source.is_dir():
        names = [path.relative_to(source).as_posix() for path in files_below(source)]
        return read_image_files(short_path(source), names, lambda name: (source / name).read_bytes())
    if source.name != ZIP:
        return "CIFAR-10", read_archive(source)
    try:
        with zipfile.ZipFile(source) as file:
            return read_image_files(short_path(source), file.namelist(), file.read)
    except zipfile.BadZipFile as error:
        raise InputError(f"{short_path(source)} is damaged ({error}): move it away, or copy it again") from None


def read_archive(path: Path) -> dict[str, Images]:
    """Return the train and test images of the official archive. Nothing is unpacked: six members are read by name.

    A record is one byte of label and 3 x 32 x 32 bytes of red, green and blue pixels, row by row.
    """
    parts = {}
    with tarfile.open(path) as file:
        for part, names in BATCHES.items():
            members = [file.extractfile(f"cifar-10-batches-bin/{name}") for name in names]
            records = b"".join(member.read() for member in members if member)  # of a folder it would be None
            table = torch.from_numpy(np.frombuffer(records, np.uint8).reshape(-1, 1 + 3 * SIDE * SIDE).copy())
            parts[part] = Images(table[:, 1:].reshape(-1, 3, SIDE, SIDE), table[:, 0].long())
    return parts


def read_image_files(where: str, names: list[str], read: Callable[[str], bytes]) -> tuple[str, dict[str, Images]]:
    """Return the name of a set that was saved as image files, and its train and test images.

    Args:
        where: the folder or zip, for messages.
        names: of the files; those that are not images in train/CLASS/ or test/CLASS/ are skipped.
        read: returns the content of a file.

    Raises:
        ValueError: a class is missing or unknown, or a file is damaged or not an image of 32 x 32 pixels.
    """
    found = sorted((match[1].lower(), match[2], name) for name in names if (match := IMAGE.fullmatch(name)))
    for part in BATCHES:
        classes = {label for its_part, label, _ in found if its_part == part}
        if missing := [label for label in CLASSES if label not in classes]:
            all_classes = ", ".join(CLASSES)
            raise InputError(f"{where} has no images in {part}/{missing[0]}: CIFAR-10 has the classes {all_classes}")
        if unknown := sorted(classes - set(CLASSES)):
            raise InputError(f"{where} has images in {part}/{unknown[0]}, which is not a class of CIFAR-10")
    pixels: dict[str, list[np.ndarray]] = {part: [] for part in BATCHES}
    labels: dict[str, list[int]] = {part: [] for part in BATCHES}
    for part, label, name in tqdm(found, desc="decoding images", unit="image", disable=None, leave=False):
        pixels[part].append(decode(read(name), f"{where}: {name}"))
        labels[part].append(CLASSES.index(label))
    lossy = any(not name.lower().endswith(".png") for _, _, name in found)
    parts = {}
    for part in BATCHES:
        stacked = torch.from_numpy(np.stack(pixels[part]))  # (N, 32, 32, 3)
        parts[part] = Images(stacked.permute(0, 3, 1, 2).contiguous(), torch.tensor(labels[part]))
    return "CIFAR-10 as JPEG" if lossy else "CIFAR-10", parts


def decode(content: bytes, name: str) -> np.ndarray:
    """Return the (32, 32, 3) pixels of an image file.

    Raises:
        ValueError: it is damaged, or of another size.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size  # from the header, before anything is decoded
            pixels = np.asarray(image.convert("RGB")) if (width, height) == (SIDE, SIDE) else None
    except Exception as error:  # Pillow raises many types for damaged files
        raise InputError(f"{name} is damaged or not an image ({type(error).__name__})") from None
    if pixels is None:
        raise InputError(f"{name} has {width} x {height} pixels, not {SIDE} x {SIDE}")
    return pixels


def checksum_of(parts: dict[str, Images]) -> str:
    content = hashlib.sha256()
    for part in BATCHES:
        for tensor in parts[part]:
            content.update(tensor.contiguous().numpy().data)
    return content.hexdigest()[:32]


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
