"""Where the images of CIFAR-10 come from: the archives and folders that people have, in whatever place they lie.

The first of these is taken that lies in $DATA_DIR/cifar10, in $DATA_DIR, or in a folder in one of them:

    cifar-10-binary.tar.gz, cifar-10-python.tar.gz     the official archives
    cifar-10-batches-bin/, cifar-10-batches-py/        the same unpacked; the latter is what torchvision leaves
    cifar10_jpg.zip                                    of images train/CLASS/NAME.jpg and test/CLASS/NAME.jpg, or .png
    train/ and test/                                   such images in folders

Capitals do not matter, nor do the hidden files that file managers add. JPEG copies are lossy, and the name of such a
set says so. What is fetched must be the official archive; one that lies there may be another, if it can be read. Then
a line on stderr says so, and another one if there are not 50,000 and 10,000 images. Decoded images are kept in the
user's cache.
"""

import gzip
import hashlib
import io
import os
import re
import sys
import tarfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from common.data import cache_folder, cached_tensors, data_path, find_data, input_file, read_zip, sha256_of
from common.distributed import rank_zero_only
from common.errors import CommandError, InputError
from common.paths import readable, short_path
from common.pickles import load_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32  # pixels
ARCHIVE = "cifar-10-binary.tar.gz"  # what is fetched
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
SHA256 = {  # of the official archives
    ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
}
BATCH_FOLDERS, ZIP = ("cifar-10-batches-bin", "cifar-10-batches-py"), "cifar10_jpg.zip"
BATCHES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
BATCH = re.compile(r"(?:(.*)/)?(data_batch_[1-5]|test_batch)(\.bin)?", re.IGNORECASE)
IMAGE = re.compile(r"(?:(.*)/)?(train|test)/([^/]+)/[^/]+\.(?:jpe?g|png)", re.IGNORECASE)
NUM_VALUES = 3 * SIDE * SIDE  # of an image
MAX_BYTES = 2**28  # of a file, or of all that a tar.gz holds: 1.5 times the official archives
FEW_FILES = 1_000  # up to so many are read to see whether they have changed
FORMAT = 2  # of the cache; raise it whenever the same source is decoded differently


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


def read_cifar10(data_dir: str | None = None) -> tuple[str, dict[str, Images]]:
    """Return the name of the set, and its train and test images; decoded once, then taken from a cache.

    Raises:
        ValueError: there is none and it cannot be fetched, or it is damaged or not CIFAR-10.
    """
    source = find_cifar10(data_dir)
    key = hashlib.sha256(repr((FORMAT, fingerprint(source))).encode()).hexdigest()[:32]

    def decoded() -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's of strange images, which are refused; NumPy's of old pickles
            name, parts = decode_source(source)
        return {"name": name, **{part: tuple(parts[part]) for part in BATCHES}}

    content = cached_tensors(cache_folder("images") / f"{key}.pt", decoded)
    name, parts = content["name"], {part: Images(*content[part]) for part in BATCHES}
    train, test = len(parts["train"].labels), len(parts["test"].labels)
    if (train, test) != (50_000, 10_000):
        note(f"{short_path(source)} has {train:,} training and {test:,} test images; CIFAR-10 has 50,000 and 10,000")
    return name, parts


def fingerprint(source: Path) -> tuple[Any, ...]:
    """Return what changes whenever the images of a source do; say so if it is not the official archive."""
    files = files_of(source)
    if len(files) > FEW_FILES:  # they are believed by name, size and time
        stats = [(str(path), path.stat()) for path in files]
        return os.path.realpath(source), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    checksums = [(str(path.relative_to(source)), sha256_of(input_file(path, "images"))) for path in files]
    official = SHA256.get(source.name.lower())
    if source.is_file() and official and official != checksums[0][1]:
        note(f"{short_path(source)} is not the official archive (its sha256 differs): its images are taken as they are")
    return tuple(checksums)


@rank_zero_only
def note(line: str) -> None:
    print(line, file=sys.stderr)


def find_cifar10(data_dir: str | None = None) -> Path:
    """Return an archive, a folder of batches, or the folder of train/ and test/; fetch the archive where there is none.

    Raises:
        ValueError: there is none, and the official archive cannot be fetched.
    """
    above, folder = data_path("", data_dir), data_path("cifar10", data_dir)
    inside = [*entries(folder), *entries(above)]
    for place in (folder, above, *inside):
        if source := source_in(place):
            return source
    try:
        return find_data(f"cifar10/{ARCHIVE}", data_dir, URL, SHA256[ARCHIVE])
    except (CommandError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
    wanted = ", ".join([*SHA256, *(f"{name}/" for name in BATCH_FOLDERS), ZIP, "train/airplane/"])
    found = [f"{path.relative_to(above)}{'/' * path.is_dir()}" for path in inside]
    raise InputError(
        f"{reason}; looked in {short_path(folder)}, {short_path(above)} and the folders in them for {wanted}; "
        f"found {readable(', '.join(found[:10])) or 'nothing'}; the synthetic images need no download"
    )


def source_in(place: Path) -> Path | None:
    """Return the first source, in the order of the module's list, that lies in a folder; None if there is none."""
    found = {path.name.lower(): path for path in entries(place)}
    for name in (*SHA256, *BATCH_FOLDERS, ZIP):
        if name in found and found[name].is_dir() == (name in BATCH_FOLDERS):
            return found[name]
    classes = [path.name.lower() for path in entries(found["train"])] if "train" in found else []
    batches = [name for name in found if BATCH.fullmatch(name)]
    return place if batches or set(classes) & set(CLASSES) else None


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder but hidden files; nothing if it cannot be read, or there is none."""
    with suppress(OSError):
        return [folder / name for name in sorted(os.listdir(folder)) if not is_hidden(name)]
    return []


def is_hidden(name: str) -> bool:
    """Return whether a file, or a folder on the way to it, is hidden, or what macOS adds to zips."""
    return any(word == "__MACOSX" or (word.startswith(".") and word.strip(".")) for word in name.split("/"))


def files_of(source: Path) -> list[Path]:
    """Return an archive itself, or the batches in a folder, or the images in its train/CLASS/ and test/CLASS/."""
    if not source.is_dir():
        return [source]
    if batches := [path for path in entries(source) if BATCH.fullmatch(path.name)]:
        return batches
    folders = [folder for part in entries(source) if part.name.lower() in BATCHES for folder in entries(part)]
    return [path for folder in folders for path in entries(folder) if IMAGE.fullmatch(f"train/x/{path.name}")]


def decode_source(source: Path) -> tuple[str, dict[str, Images]]:
    """Return the name of the set, and its train and test images, from what `find_cifar10` returned.

    Raises:
        ValueError: it is damaged, or not CIFAR-10.
    """
    if source.is_dir():
        paths = {path.relative_to(source).as_posix(): path for path in files_of(source)}
        return decode_files(short_path(source), list(paths), lambda name: read_file(paths[name]))
    # All of a zip is read, so that every checksum and name in it is compared.
    contents = read_zip(source, lambda name: True) if source.suffix.lower() == ".zip" else read_tar_gz(source)
    return decode_files(short_path(source), list(contents), contents.__getitem__)


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        ValueError: it is too large to be an image or a batch.
    """
    if input_file(path, "images").stat().st_size > MAX_BYTES:
        raise InputError(f"{short_path(path)} is refused: it has more than {MAX_BYTES:,} bytes")
    return path.read_bytes()


def read_tar_gz(path: Path) -> dict[str, bytes]:
    """Return the regular files of a tar.gz by name. Nothing is unpacked to disk.

    Raises:
        ValueError: it is damaged or no tar.gz, or it has too many bytes.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_BYTES + 1)  # to the end, where its checksum is
        if len(content) > MAX_BYTES:
            raise InputError(f"{short_path(path)} is refused: it has more than {MAX_BYTES:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            members = [member for member in archive if member.isreg()]
            if sum(member.size for member in members) > MAX_BYTES:  # a sparse one may say more than it holds
                raise InputError(f"{short_path(path)} is refused: it has more than {MAX_BYTES:,} bytes")
            files = {member.name: archive.extractfile(member) for member in members}
            return {name: file.read() for name, file in files.items() if file}  # of a folder it would be None
    except InputError:
        raise
    except Exception as error:  # gzip, zlib and tarfile raise many types
        what = f"damaged, or no tar.gz ({type(error).__name__})"
        raise InputError(f"{short_path(path)} is {what}: move it away, or copy it again") from None


def decode_files(where: str, names: list[str], read: Callable[[str], bytes]) -> tuple[str, dict[str, Images]]:
    """Return the name of a set, and its train and test images, from batches or from image files.

    Args:
        where: the folder or archive, for messages.
        names: of the files in it; what is neither a batch nor an image in train/CLASS/ or test/CLASS/ is skipped.
        read: returns the content of a file.

    Raises:
        ValueError: there is neither, or something is missing, unknown or damaged.
    """
    names = sorted(name for name in names if not is_hidden(name))
    batches = [match for name in names if (match := BATCH.fullmatch(name))]
    found = batches or [match for name in names if (match := IMAGE.fullmatch(name))]
    if not found:
        raise InputError(f"{where} has neither batches (data_batch_1, ...) nor images (train/airplane/NAME.png, ...)")
    folders = sorted({match[1] or "." for match in found})
    if len(folders) > 1:
        raise InputError(f"{where} has several sets of images, one in {folders[0]}, one in {folders[1]}: keep one")
    return read_batches(where, found, read) if batches else read_image_files(where, found, read)


def read_batches(where: str, found: list[re.Match[str]], read: Callable[[str], bytes]) -> tuple[str, dict[str, Images]]:
    """Return the name of a set of batches, and its train and test images; as above, with matches of BATCH."""
    by_name = {match[2].lower(): match for match in found}
    if missing := [name for names in BATCHES.values() for name in names if name not in by_name]:
        raise InputError(f"{where} has no {missing[0]}: CIFAR-10 has data_batch_1 to data_batch_5 and test_batch")
    parts = {}
    for part, names in BATCHES.items():
        batches = []
        for match in (by_name[name] for name in names):
            decode_batch = decode_binary if match[3] else decode_pickle
            batches.append(decode_batch(read(match[0]), f"{where}: {match[0]}"))
        pixels, labels = zip(*batches)
        parts[part] = Images(torch.cat(pixels), torch.cat(labels))
    return "CIFAR-10", parts


def decode_binary(content: bytes, name: str) -> Images:
    """Return the images of a binary batch: of each a byte of label and 3 x 32 x 32 bytes of pixels, row by row.

    Raises:
        ValueError: it has another length, or a label is above 9.
    """
    if not content or len(content) % (1 + NUM_VALUES):
        raise InputError(f"{name} is damaged: it has {len(content):,} bytes, not {1 + NUM_VALUES:,} for each image")
    table = np.frombuffer(content, np.uint8).reshape(-1, 1 + NUM_VALUES)
    return as_images(table[:, 1:], table[:, 0].tolist(), name)


def decode_pickle(content: bytes, name: str) -> Images:
    """Return the images of a pickled batch: a dictionary with data, (N, 3072) uint8, and N labels.

    Raises:
        ValueError: it is damaged or no such batch, or a label is not 0 to 9.
    """
    batch = load_pickle(content, name)
    batch = batch if isinstance(batch, dict) else {}
    pixels: Any = batch.get("data", batch.get(b"data"))
    labels: Any = batch.get("labels", batch.get(b"labels"))
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    is_table = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[1:] == (NUM_VALUES,)
    is_list = isinstance(labels, list) and len(labels) > 0 and all(type(label) is int for label in labels)
    if not (is_table and is_list and len(pixels) == len(labels)):
        raise InputError(f"{name} is no batch of CIFAR-10: data, (N, 3072) of type uint8, and N labels are expected")
    return as_images(pixels, labels, name)


def as_images(pixels: np.ndarray, labels: list[int], name: str) -> Images:
    if not all(0 <= label < len(CLASSES) for label in labels):
        raise InputError(f"{name} has a label that is not 0 to 9")
    return Images(torch.from_numpy(np.array(pixels)).reshape(-1, 3, SIDE, SIDE), torch.tensor(labels))


def read_image_files(
    where: str, found: list[re.Match[str]], read: Callable[[str], bytes]
) -> tuple[str, dict[str, Images]]:
    """Return the name of a set that was saved as image files, and its train and test images.

    Args:
        where, read: as above.
        found: names that match IMAGE.

    Raises:
        ValueError: a class is missing or unknown, or a file is damaged or not an image of 32 x 32 pixels.
    """
    files = sorted((match[2].lower(), match[3].lower(), match[0]) for match in found)
    for part in BATCHES:
        classes = {label for its_part, label, _ in files if its_part == part}
        if missing := [label for label in CLASSES if label not in classes]:
            all_classes = ", ".join(CLASSES)
            raise InputError(f"{where} has no images in {part}/{missing[0]}: CIFAR-10 has the classes {all_classes}")
        if unknown := sorted(classes - set(CLASSES)):
            raise InputError(f"{where} has images in {part}/{unknown[0]}, which is not a class of CIFAR-10")
    pixels: dict[str, list[np.ndarray]] = {part: [] for part in BATCHES}
    labels: dict[str, list[int]] = {part: [] for part in BATCHES}
    lossy = False
    for part, label, name in tqdm(files, desc="decoding images", unit="image", disable=None, leave=False):
        content = read(name)
        lossy |= not content.startswith(b"\x89PNG")
        pixels[part].append(decode(content, f"{where}: {name}"))
        labels[part].append(CLASSES.index(label))
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
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            width, height = image.size  # from the header, before anything is decoded
            pixels = np.asarray(image.convert("RGB")) if (width, height) == (SIDE, SIDE) else None
    except Exception as error:  # Pillow raises many types for damaged files
        raise InputError(f"{name} is damaged or not an image ({type(error).__name__})") from None
    if pixels is None:
        raise InputError(f"{name} has {width} x {height} pixels, not {SIDE} x {SIDE}")
    return pixels
