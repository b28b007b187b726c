"""part4/cifar10.py: small archives, zips and folders made here, the real copies if they exist, and pixels by hand."""

import hashlib
import io
import shutil
import tarfile
import urllib.error
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import part4.cifar10 as cifar10
from common.data import data_path
from part4.cifar10 import (
    CLASSES,
    augment,
    channel_statistics,
    draw_shapes,
    load_images,
    normalise,
    read_cifar10,
    to_unit,
)

NEEDS_COPIES = pytest.mark.skipif(
    not data_path("cifar10/cifar10_jpg.zip").is_file(), reason="needs cifar10/cifar10_jpg.zip in $DATA_DIR"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "CACHE", tmp_path / "cache")


@pytest.fixture
def data_dir(tmp_path):
    """Make a data folder with 2 train images and 1 test image of each class, as PNG."""
    generator = np.random.default_rng(0)
    for part, number in (("train", 2), ("test", 1)):
        for label in CLASSES:
            folder = tmp_path / "data" / "cifar10" / part / label
            folder.mkdir(parents=True)
            for k in range(number):
                Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{k:04}.png")
    return tmp_path / "data"


def pack(data_dir, prefix=""):
    """Replace the folders by a zip of them, and return its path."""
    folder = data_dir / "cifar10"
    with zipfile.ZipFile(folder / "cifar10_jpg.zip", "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
    for part in ("train", "test"):
        shutil.rmtree(folder / part)
    return folder / "cifar10_jpg.zip"


def official_archive(path, records_a_batch=5, members=()):
    """Write a small archive in the official layout, and return its 6 tables (records, 3073)."""
    tables = np.random.default_rng(1).integers(0, 256, (6, records_a_batch, 3073), np.uint8)
    tables[:, :, 0] %= 10
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as file:
        names = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
        contents = [(f"cifar-10-batches-bin/{name}", table.tobytes()) for name, table in zip(names, tables)]
        for name, content in [*contents, *members]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return tables


def test_the_official_archive(tmp_path, monkeypatch):
    """Byte by byte; members that would be written outside the folder are ignored."""
    path = tmp_path / "data" / cifar10.ARCHIVE
    tables = official_archive(path, members=[("../../outside", b"x"), ("/tmp/outside", b"x")])
    before = {file for file in tmp_path.rglob("*") if "cache" not in file.parts}
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    name, parts = read_cifar10(tmp_path / "data")
    assert name == "CIFAR-10"
    assert parts["train"].pixels.shape == (25, 3, 32, 32) and parts["test"].pixels.shape == (5, 3, 32, 32)
    record = tables[2, 3]  # the fourth image of the third batch: number 13
    assert parts["train"].labels[13] == record[0]
    for c, y, x in [(0, 0, 0), (0, 0, 1), (1, 7, 30), (2, 31, 31)]:
        assert parts["train"].pixels[13, c, y, x] == record[1 + 1024 * c + 32 * y + x]
    assert torch.equal(parts["test"].labels, torch.from_numpy(tables[5, :, 0]).long())
    assert {file for file in tmp_path.rglob("*") if "cache" not in file.relative_to(tmp_path).parts} == before


def test_a_corrupted_archive_is_refused(tmp_path):
    path = tmp_path / "data" / cifar10.ARCHIVE
    official_archive(path)
    message = r"cifar-10-binary\.tar\.gz is not the expected file \(its sha256 differs\): move it away"
    with pytest.raises(ValueError, match=message):
        load_images("cifar10", tmp_path / "data")


def test_a_failed_download_says_what_else_there_is(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    message = r"put the file at .*cifar-10-binary\.tar\.gz by hand; the synthetic images need no download"
    with pytest.raises(ValueError, match=message):
        load_images("cifar10", tmp_path)


@pytest.mark.parametrize("zipped", [None, "", "CIFAR-10-images-master/"])
def test_folders_and_zips_of_images(data_dir, zipped):
    path = data_dir / "cifar10" / "train" / "deer" / "0001.png"
    deer = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)
    if zipped is not None:
        pack(data_dir, zipped)
    name, parts = read_cifar10(data_dir)
    assert name == "CIFAR-10"  # PNG loses nothing
    assert parts["train"].labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert parts["test"].labels.tolist() == list(range(10))
    assert torch.equal(parts["train"].pixels[2 * CLASSES.index("deer") + 1], deer)


def test_jpeg_copies_are_named_as_such(data_dir):
    path = data_dir / "cifar10" / "test" / "frog" / "0000.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
    assert load_images("cifar10", data_dir).name == "CIFAR-10 as JPEG"


def test_images_are_decoded_once(data_dir, monkeypatch, capsys):
    first = read_cifar10(data_dir)[1]
    (cached,) = cifar10.CACHE.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(cifar10, "decode", None)
        again = read_cifar10(data_dir)[1]
        assert all(torch.equal(a, b) for part in first for a, b in zip(first[part], again[part]))
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a pixel
    for damaged in (bytes(content), b"", b"nonsense"):
        cached.write_bytes(damaged)
        again = read_cifar10(data_dir)[1]
        assert f"{cached.name} is damaged" in capsys.readouterr().err
        assert all(torch.equal(a, b) for part in first for a, b in zip(first[part], again[part]))
    path = data_dir / "cifar10" / "train" / "cat" / "0000.png"
    Image.new("RGB", (32, 32), "red").save(path)
    changed = read_cifar10(data_dir)[1]["train"]
    assert changed.pixels[2 * CLASSES.index("cat"), :, 0, 0].tolist() == [255, 0, 0]


def spoil(folder, how):
    path = folder / "train" / "ship" / "0001.png"
    if how == "size":
        Image.new("RGB", (32, 48)).save(path)
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "no image":
        path.write_bytes(b"hello")
    elif how == "missing":
        shutil.rmtree(folder / "test" / "truck")
    elif how == "unknown":
        shutil.copytree(path.parent, folder / "train" / "submarine")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("size", r"train/ship/0001\.png has 32 x 48 pixels, not 32 x 32"),
        ("damaged", r"train/ship/0001\.png is damaged or not an image"),
        ("no image", r"train/ship/0001\.png is damaged or not an image"),
        ("missing", "has no images in test/truck: CIFAR-10 has the classes airplane, automobile"),
        ("unknown", "has images in train/submarine, which is not a class of CIFAR-10"),
    ],
)
def test_wrong_images_are_refused_in_one_line(data_dir, how, message, zipped):
    spoil(data_dir / "cifar10", how)
    if zipped:
        pack(data_dir)
    with pytest.raises(ValueError, match=message) as refusal:
        load_images("cifar10", data_dir)
    assert refusal.value.exit_code == 2 and "\n" not in str(refusal.value)
    assert not cifar10.CACHE.exists()


def test_a_damaged_zip_is_refused(data_dir):
    path = pack(data_dir)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:100] + bytes(1000) + content[1100:], b"no zip"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cifar10_jpg\.zip"):
            load_images("cifar10", data_dir)


def test_too_few_images_are_refused(data_dir):
    with pytest.raises(ValueError, match="num_train 19 is more than the 18 training images there are"):
        load_images("cifar10", data_dir, num_train=19)
    for path in data_dir.glob("cifar10/train/*/0001.png"):
        path.unlink()
    (data_dir / "cifar10" / "train" / "cat" / "0000.png").rename(data_dir / "cifar10" / "train" / "cat" / "7.png")
    assert len(load_images("cifar10", data_dir).validation.labels) == 1


def test_the_split_loses_and_repeats_no_image():
    _, parts = draw_shapes()
    data, other = load_images("synthetic"), load_images("synthetic", num_train=100)

    def rows(images):
        return [(label, pixels.tobytes()) for label, pixels in zip(images.labels.tolist(), images.pixels.numpy())]

    assert len(data.validation.labels) == 500
    assert sorted(rows(data.train) + rows(data.validation)) == sorted(rows(parts["train"]))
    assert rows(other.train) == rows(data.train)[:100] and rows(other.validation) == rows(data.validation)
    assert other.checksum == data.checksum
    assert not set(rows(data.test)) & set(rows(parts["train"]))
    assert data.train.labels.bincount().min() > 400


def test_statistics_are_those_of_the_training_pixels():
    data = load_images("synthetic", num_train=50)
    values = data.train.pixels.double() / 255
    assert torch.allclose(data.mean.double(), values.mean(dim=(0, 2, 3)), atol=1e-7)
    assert torch.allclose(data.std.double(), values.std(dim=(0, 2, 3), correction=0), atol=1e-7)
    x = normalise(to_unit(data.train.pixels), data.mean, data.std)
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(x.square().mean(dim=(0, 2, 3)), torch.ones(3), atol=1e-4)
    assert channel_statistics(torch.full((2, 3, 4, 4), 51, dtype=torch.uint8))[0].tolist() == pytest.approx([0.2] * 3)


def test_augmentation_keeps_pixels():
    """Every result is one of the image's 81 shifts, mirrored or not; over many images all 162 occur."""
    x = torch.randint(1, 256, (1, 3, 32, 32), dtype=torch.uint8).expand(3000, -1, -1, -1)
    y = augment(x, torch.Generator().manual_seed(0))
    assert y.dtype == torch.uint8 and y.shape == x.shape
    padded = torch.zeros(3, 40, 40, dtype=torch.uint8)
    padded[:, 4:36, 4:36] = x[0]
    shifts = [padded[:, dy : dy + 32, dx : dx + 32] for dy in range(9) for dx in range(9)]
    possible = {image.contiguous().numpy().tobytes() for shift in shifts for image in (shift, shift.flip(2))}
    found = [image.contiguous().numpy().tobytes() for image in y]
    assert set(found) == possible and len(possible) == 162


def test_augmentation_draws_from_its_generator():
    x = torch.rand(8, 3, 32, 32)
    a, b, c = (augment(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_synthetic_images_are_the_same_everywhere():
    """So that training curves of one machine can be compared with those of another."""
    a, b = draw_shapes()[1], draw_shapes()[1]
    assert cifar10.checksum_of(a) == cifar10.checksum_of(b)
    assert a["test"].labels.bincount().tolist() == [100] * 10 and a["train"].pixels.dtype == torch.uint8
    assert a["train"].pixels.float().std(dim=(1, 2, 3)).min() > 5  # no image is empty


@NEEDS_COPIES
def test_the_real_copies(monkeypatch):
    monkeypatch.undo()  # the checkout's own cache: decoding takes ten seconds
    data = load_images("cifar10")
    assert [len(images.labels) for images in (data.train, data.validation, data.test)] == [45_000, 5_000, 10_000]
    assert (data.train.labels.bincount() + data.validation.labels.bincount()).tolist() == [5_000] * 10
    assert data.test.labels.bincount().tolist() == [1_000] * 10
    if data.name == "CIFAR-10 as JPEG":
        assert data.mean.tolist() == pytest.approx([0.4913, 0.4821, 0.4465], abs=1e-3)
        assert data.std.tolist() == pytest.approx([0.2452, 0.2428, 0.2606], abs=1e-3)
