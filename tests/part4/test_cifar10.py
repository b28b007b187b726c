"""CIFAR-10 from small archives, zips and folders made here, the real copies if they exist, and pixels by hand."""

import gzip
import io
import os
import pickle
import re
import shutil
import struct
import tarfile
import urllib.error
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import part4.sources as sources
from common.data import data_path
from common.errors import InputError
from part4.cifar10 import augment, channel_statistics, draw_shapes, load_images, normalise, to_unit
from part4.sources import CLASSES, read_cifar10

NEEDS_COPIES = pytest.mark.skipif(
    not data_path("cifar10/cifar10_jpg.zip").is_file(), reason="needs cifar10/cifar10_jpg.zip in $DATA_DIR"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recurrent-and-graph-networks" / "images"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


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


def tables(records_a_batch=3):
    """Return 6 tables (records, 3073) of a label and an image's pixels: five to train, one to test."""
    found = np.random.default_rng(1).integers(0, 256, (6, records_a_batch, 3073), np.uint8)
    found[:, :, 0] %= 10
    return found


def python2_pickle(table):
    """Return a batch as Python 2 and its NumPy pickled it: in protocol 2, with text that is bytes."""

    def text(value):
        length = bytes([len(value)]) if len(value) < 256 else struct.pack("<i", len(value))
        return (b"U" if len(value) < 256 else b"T") + length + value

    pixels = table[:, 1:].tobytes()
    return b"".join(
        (
            b"\x80\x02}q\x01(" + text(b"batch_label") + text(b"training batch 1 of 5"),
            text(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in table[:, 0]) + b"e",
            text(b"data") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R",
            b"(K\x01" + b"".join(b"J" + struct.pack("<i", size) for size in (len(table), 3072)) + b"\x86",
            b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R",
            b"(K\x03" + text(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb\x89" + text(pixels) + b"tb",
            text(b"filenames") + b"](" + len(table) * text(b"leptodactylus_pentadactylus_s_000004.png") + b"eu.",
        )
    )


BINARY = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
PYTHON = [name.removesuffix(".bin") for name in BINARY]
CONTENTS = {  # of the official batches
    "bin": dict(zip(BINARY, map(bytes, tables()))),
    "py": dict(zip(PYTHON, map(python2_pickle, tables()))),
}
OTHERS = {"bin": ["batches.meta.txt", "readme.html"], "py": ["batches.meta", "readme.html"]}


def as_folder(path, contents, junk=()):
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name).write_bytes(content)
        for prefix in junk:
            (path / f"{prefix}{name}").parent.mkdir(exist_ok=True)
            (path / f"{prefix}{name}").write_bytes(b"junk")


def as_archive(path, contents, folder="", others=()):
    """Write a tar.gz of some files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, content in [*((folder + name, content) for name, content in contents.items()), *others]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def assert_batches(parts, expected):
    """The parts hold what the tables hold, byte by byte."""
    for part, rows in (("train", np.concatenate(expected[:5])), ("test", expected[5])):
        assert parts[part].labels.tolist() == rows[:, 0].tolist()
        assert parts[part].pixels.numpy().tobytes() == rows[:, 1:].tobytes()
        assert parts[part].pixels.shape == (len(rows), 3, 32, 32)


def assert_equal(parts, others):
    assert all(torch.equal(a, b) for part in parts for a, b in zip(parts[part], others[part]))


def test_one_record_by_hand():
    table = tables()[2]
    for image in (sources.decode_binary(table.tobytes(), ""), sources.decode_pickle(python2_pickle(table), "")):
        for c, y, x in [(0, 0, 0), (0, 0, 1), (1, 7, 30), (2, 31, 31)]:
            assert image.pixels[1, c, y, x] == table[1, 1 + 1024 * c + 32 * y + x]


LAYOUTS = {
    "binary archive": lambda path: as_archive(
        path / "cifar-10-binary.tar.gz",
        CONTENTS["bin"],
        "cifar-10-batches-bin/",
        [("../../outside", b"x"), ("/tmp/outside", b"x"), ("cifar-10-batches-bin/readme.html", b"x")],
    ),
    "python archive": lambda path: as_archive(path / "cifar-10-python.tar.gz", CONTENTS["py"], "cifar-10-batches-py/"),
    "archive of macOS": lambda path: as_archive(
        path / "cifar-10-python.tar.gz",
        CONTENTS["py"],
        "./cifar-10-batches-py/",
        [("./cifar-10-batches-py/._data_batch_1", b"x"), ("__MACOSX/cifar-10-batches-py/data_batch_1", b"x")],
    ),
    "archive without a folder": lambda path: as_archive(path / "CIFAR-10-Python.tar.gz", CONTENTS["py"]),
    "batches-bin": lambda path: as_folder(path / "cifar-10-batches-bin", CONTENTS["bin"]),
    "batches-py": lambda path: as_folder(path / "cifar-10-batches-py", CONTENTS["py"]),
    "capitals": lambda path: as_folder(path / "CIFAR-10-batches-py", CONTENTS["py"], ("._", "__MACOSX/", ".DS_Store")),
}


@pytest.mark.parametrize("place", ["cifar10", ".", "cifar10/cifar10", "CIFAR-10", "cifar10/cifar-10-python"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_are_found_where_people_have_them(tmp_path, no_network, capsys, layout, place):
    """And nothing is written beside them."""
    LAYOUTS[layout](tmp_path / "data" / place)
    before = sorted((tmp_path / "data").rglob("*"))
    name, parts = read_cifar10(tmp_path / "data")
    assert name == "CIFAR-10"
    assert_batches(parts, tables())
    assert sorted((tmp_path / "data").rglob("*")) == before and not (tmp_path / "outside").exists()
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop().endswith("has 15 training and 3 test images; CIFAR-10 has 50,000 and 10,000")
    assert len(lines) == ("archive" in layout)
    assert all("is not the official archive (its sha256 differs): its images are taken" in line for line in lines)


def test_the_data_folder_may_be_that_of_the_batches(tmp_path, no_network):
    as_folder(tmp_path / "data", CONTENTS["py"])
    assert_batches(read_cifar10(tmp_path / "data")[1], tables())


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [list, np.array])
def test_batches_that_python_3_has_pickled(protocol, kind):
    for table in tables():
        batch = {b"data": table[:, 1:], b"labels": kind(table[:, 0].tolist())}
        for content in (batch, {key.decode(): value for key, value in batch.items()}):
            images = sources.decode_pickle(pickle.dumps(content, protocol), "")
            assert images.labels.tolist() == table[:, 0].tolist()
            assert images.pixels.numpy().tobytes() == table[:, 1:].tobytes()


TABLE = tables()[0]
GOOD = {"data": TABLE[:, 1:], "labels": TABLE[:, 0].tolist()}


@pytest.mark.parametrize(
    ("decode", "content", "message"),
    [
        ("binary", b"", "x is damaged: it has 0 bytes, not 3,073 for each image"),
        ("binary", TABLE.tobytes()[:-1], "x is damaged: it has 9,218 bytes"),
        ("binary", TABLE.tobytes() + b"1", "x is damaged: it has 9,220 bytes"),
        ("binary", b"\x0a" + TABLE.tobytes()[1:], "x has a label that is not 0 to 9"),
        ("pickle", b"", "x is refused: damaged, or no data file"),
        ("pickle", python2_pickle(TABLE)[:-1], "x is refused: damaged, or no data file"),
        ("pickle", python2_pickle(TABLE)[:5000], "x is refused: damaged, or no data file"),
        ("pickle", python2_pickle(TABLE).replace(b"ndarray", b"memmap1"), "x is refused: damaged, or no data file"),
        ("pickle", b"cos\nsystem\n(U\x04exit\x85R.", r"x is refused: .* names os\.system"),
        ("pickle", python2_pickle(TABLE).replace(b"labels", b"fables"), "x is no batch of CIFAR-10"),
        ("pickle", pickle.dumps([1, 2]), "x is no batch of CIFAR-10: data, .* and N labels are expected"),
        ("pickle", GOOD | {"data": None}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"data": TABLE[:, 1:].tolist()}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"data": TABLE[:, 1:].astype(float)}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"data": TABLE[:, 1:].astype(np.int8)}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"data": TABLE[:, 1:].reshape(-1, 3, 32, 32)}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"data": TABLE}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"data": TABLE[:0, 1:], "labels": []}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"data": np.array(7)}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"labels": [1, 2]}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"labels": ["1", "2", "3"]}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"labels": [1.0, 2.0, 3.0]}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"labels": None}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"labels": np.zeros((3, 2), int)}, "x is no batch of CIFAR-10"),
        ("pickle", GOOD | {"labels": [1, 2, 10]}, "x has a label that is not 0 to 9"),
        ("pickle", GOOD | {"labels": [1, 2, -1]}, "x has a label that is not 0 to 9"),
        ("pickle", GOOD | {"labels": [1, 2, 10**6000]}, "x has a label that is not 0 to 9"),
    ],
)
@pytest.mark.filterwarnings("ignore:dtype")  # of NumPy 2.4, for Python 2's pickles
def test_batches_that_are_none_are_refused(decode, content, message):
    content = pickle.dumps(content) if isinstance(content, dict) else content
    with pytest.raises(InputError, match=f"^{message}") as refusal:
        getattr(sources, f"decode_{decode}")(content, "x")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("layout", ["bin", "py"])
@pytest.mark.parametrize("archive", [False, True])
def test_a_missing_batch_is_named(tmp_path, no_network, layout, archive):
    contents = dict(CONTENTS[layout])
    del contents[list(contents)[3]]
    folder = tmp_path / "data" / "cifar10"
    if archive:
        as_archive(folder / "cifar-10-python.tar.gz", contents)
    else:
        as_folder(folder / f"cifar-10-batches-{layout}", contents)
    with pytest.raises(InputError, match="has no data_batch_4: CIFAR-10 has data_batch_1 to data_batch_5 and test_b"):
        read_cifar10(tmp_path / "data")


@pytest.mark.parametrize("source", ["cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar10_jpg.zip"])
def test_a_source_without_images_is_refused(tmp_path, no_network, source):
    path = tmp_path / "data" / "cifar10" / source
    if source.endswith("py"):
        as_folder(path, {"readme.html": b"x", "._data_batch_1": b"x"})
    elif source.endswith("zip"):
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("train/.DS_Store", b"x")
            file.writestr("__MACOSX/train/cat/1.png", b"x")
    else:
        as_archive(path, {"readme.html": b"x"})
    with pytest.raises(InputError, match=rf"{re.escape(source)} has neither batches \(data_batch_1, ...\) nor images"):
        read_cifar10(tmp_path / "data")


@pytest.mark.parametrize("layout", ["binary archive", "python archive", "zip"])
def test_one_flipped_bit_changes_no_image(tmp_path, data_dir, no_network, layout):
    """A checksum finds it, or it lies where it does not matter, as in a file's date."""
    if layout == "zip":
        path = pack(data_dir)
    else:
        LAYOUTS[layout](data_dir)
        (path,) = data_dir.glob("*.tar.gz")
        shutil.rmtree(data_dir / "cifar10")
    content, expected, refused = path.read_bytes(), read_cifar10(data_dir)[1], 0
    generator = np.random.default_rng(0)
    places = [*range(30), *generator.integers(30, len(content) - 30, 60), *range(len(content) - 30, len(content))]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.integers(8)
        path.write_bytes(flipped)
        try:
            found = read_cifar10(data_dir)[1]
        except InputError as error:
            assert path.name in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert_equal(found, expected)
    assert refused > 60


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        *(gzip.compress(text, mtime=0) for text in (b"", b"no tar")),
        gzip.compress(bytes(10**4))[:-9],
    ],
    ids=["empty", "no archive", "nothing compressed", "no tar", "cut"],
)
def test_an_archive_that_is_none_is_refused(tmp_path, content, no_network):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz (is damaged, or no tar\.gz|has neither)"):
        read_cifar10(tmp_path)


def test_sizes_are_capped(tmp_path, monkeypatch, no_network):
    """Of what an archive unpacks to, of what its members say they have, and of files in folders."""
    monkeypatch.setattr(sources, "MAX_BYTES", 100_000)
    bomb, liar, folder = (tmp_path / name for name in ("bomb", "liar", "folder"))
    as_archive(bomb / "cifar-10-binary.tar.gz", CONTENTS["bin"], others=[("zeros", bytes(100_000))])
    sparse = tarfile.TarInfo("data_batch_1")
    sparse.size, sparse.pax_headers = 0, {"GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,0"}
    liar.mkdir()
    with tarfile.open(liar / "cifar-10-python.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as file:
        file.addfile(sparse)
    as_folder(folder / "cifar-10-batches-bin", CONTENTS["bin"] | {"data_batch_1.bin": bytes(100_001)})
    for path in (bomb, liar, folder):
        with pytest.raises(InputError, match="is refused: it has more than 100,000 bytes"):
            read_cifar10(path)


def test_a_failed_download_says_what_was_looked_for_and_what_there_is(tmp_path, no_network):
    folder = tmp_path / "cifar10"
    for name in ("train/0", "cifar-10-python.tar.gz", "b\n"):  # of classes without names, a folder, a line end
        (folder / name).mkdir(parents=True)
    (folder / "a.zip").touch()
    with pytest.raises(InputError) as refusal:
        load_images("cifar10", tmp_path)
    assert re.search(
        r"cannot be downloaded \(no network\): put the file at \S*cifar-10-binary\.tar\.gz by hand; "
        rf"looked in {folder}, {tmp_path} and the folders in them for cifar-10-binary\.tar\.gz, "
        r"cifar-10-python\.tar\.gz, cifar-10-batches-bin/, cifar-10-batches-py/, cifar10_jpg\.zip, train/airplane/; "
        r"found cifar10/a\.zip, cifar10/b\\n/, cifar10/cifar-10-python\.tar\.gz/, cifar10/train/, cifar10/; "
        r"the synthetic images need no download$",
        str(refusal.value),
    )


@pytest.mark.parametrize("kind", ["missing", "file", "loop"])
def test_a_data_folder_that_is_none(tmp_path, no_network, kind):
    path = tmp_path / "data"
    if kind == "file":
        path.touch()
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(InputError, match="; found nothing; the synthetic images need no download"):
        load_images("cifar10", path)


def test_what_is_fetched_must_be_the_official_archive(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *words, **options: calls.append((words, options)))
    with pytest.raises(FileNotFoundError):
        read_cifar10(tmp_path)
    ((url, path), options) = calls[0]
    assert url.startswith("https://") and path == str(tmp_path / "cifar10" / "cifar-10-binary.tar.gz")
    assert options["hash_prefix"] == sources.SHA256["cifar-10-binary.tar.gz"]


def test_other_data_sets_beside_are_not_taken(data_dir, no_network):
    """Folders train/ and test/ count if one of the classes is in them; what lies in cifar10/ comes first."""
    (data_dir / "cifar10").rename(data_dir / "photographs")
    (data_dir / "imagenet" / "train" / "n01440764").mkdir(parents=True)
    assert len(read_cifar10(data_dir)[1]["train"].labels) == 20
    as_folder(data_dir / "cifar10" / "cifar-10-batches-py", CONTENTS["py"])
    assert len(read_cifar10(data_dir)[1]["train"].labels) == 15


@pytest.mark.parametrize("zipped", [None, "", "CIFAR-10-images-master/"])
def test_folders_and_zips_of_images(data_dir, zipped, capsys):
    path = data_dir / "cifar10" / "train" / "deer" / "0001.png"
    deer = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)
    if zipped is not None:
        pack(data_dir, zipped)
    name, parts = read_cifar10(data_dir)
    assert name == "CIFAR-10"  # PNG loses nothing
    assert parts["train"].labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert parts["test"].labels.tolist() == list(range(10))
    assert torch.equal(parts["train"].pixels[2 * CLASSES.index("deer") + 1], deer)
    read_cifar10(data_dir)  # from the cache
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("has 20 training and 10 test images; CIFAR-10 has" in line for line in lines)


@pytest.mark.parametrize("place", ["data/cifar10/cifar10", "data", "data/CIFAR-10-images-master"])
@pytest.mark.parametrize("capitals", [False, True])
def test_folders_of_images_are_found_where_people_have_them(tmp_path, data_dir, no_network, place, capitals):
    """With capitals, and with what file managers leave in them, in folders and in a zip."""
    expected = read_cifar10(data_dir)[1]
    (data_dir / "cifar10").rename(tmp_path / "images")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        for label in CLASSES:
            folder = tmp_path / place / (part.title() if capitals else part) / (label.title() if capitals else label)
            shutil.move(tmp_path / "images" / part / label, folder)
            for junk in ("._0000.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
                (folder / junk).write_bytes(b"junk")
    (tmp_path / place / "__MACOSX" / "train" / "cat").mkdir(parents=True)
    (tmp_path / place / "__MACOSX" / "train" / "cat" / "0000.png").write_bytes(b"junk")
    (tmp_path / place / "backup" / "train" / "cat").mkdir(parents=True)
    (tmp_path / place / "backup" / "train" / "cat" / "0000.png").write_bytes(b"junk")
    assert_equal(read_cifar10(data_dir)[1], expected)
    shutil.rmtree(tmp_path / place / "backup")
    with zipfile.ZipFile(tmp_path / "CIFAR10_JPG.ZIP", "w") as file:
        for path in sorted((tmp_path / place).rglob("*")):
            file.write(path, path.relative_to(tmp_path / place).as_posix())
    shutil.rmtree(data_dir)
    data_dir.mkdir()
    (tmp_path / "CIFAR10_JPG.ZIP").rename(data_dir / "CIFAR10_JPG.ZIP")
    assert_equal(read_cifar10(data_dir)[1], expected)


def test_a_zip_of_two_sets_is_refused(data_dir):
    path = pack(data_dir)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("cifar10/cifar10/train/cat/0000.png", b"x")
    with pytest.raises(InputError, match=r"has several sets of images, one in \., one in cifar10/cifar10: keep one"):
        read_cifar10(data_dir)


def test_jpeg_copies_are_named_as_such(data_dir):
    path = data_dir / "cifar10" / "test" / "frog" / "0000.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
    assert load_images("cifar10", data_dir).name == "CIFAR-10 as JPEG"
    path.with_suffix(".jpg").rename(path)  # whatever it is called
    assert load_images("cifar10", data_dir).name == "CIFAR-10 as JPEG"


def test_images_are_decoded_once(data_dir, monkeypatch, capsys, own_cache):
    first = read_cifar10(data_dir)[1]
    (cached,) = own_cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(sources, "decode", None)
        again = read_cifar10(data_dir)[1]
        assert all(torch.equal(a, b) for part in first for a, b in zip(first[part], again[part]))
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a pixel
    for damaged in (bytes(content), b"", b"nonsense"):
        cached.write_bytes(damaged)
        again = read_cifar10(data_dir)[1]
        assert f"{cached.name} is damaged" in capsys.readouterr().err
        assert all(torch.equal(a, b) for part in first for a, b in zip(first[part], again[part]))
    shutil.copytree(data_dir, data_dir.with_name("moved"))
    with monkeypatch.context() as patch:
        patch.setattr(sources, "decode", None)
        read_cifar10(data_dir.with_name("moved"))
    path = data_dir / "cifar10" / "train" / "cat" / "0000.png"
    for colour, values in (("#ff0000", [255, 0, 0]), ("#fe0000", [254, 0, 0])):  # in files of one size and time
        Image.new("RGB", (32, 32), colour).save(path, compress_level=0)
        os.utime(path, (0, 0))
        changed = read_cifar10(data_dir)[1]["train"]
        assert changed.pixels[2 * CLASSES.index("cat"), :, 0, 0].tolist() == values


def test_many_files_are_believed_by_size_and_time(data_dir, monkeypatch):
    monkeypatch.setattr(sources, "FEW_FILES", 10)
    path = data_dir / "cifar10" / "train" / "airplane" / "0000.png"
    read_cifar10(data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "decode", None)
        patch.setattr(sources, "sha256_of", None)
        read_cifar10(data_dir)
    status = path.stat()
    Image.new("RGB", (32, 32), "red").save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the size alone differs
    assert read_cifar10(data_dir)[1]["train"].pixels[0, :, 0, 0].tolist() == [255, 0, 0]
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    monkeypatch.setattr(sources, "decode", None)
    with pytest.raises(TypeError):
        read_cifar10(data_dir)


def spoil(folder, how):
    path = folder / "train" / "ship" / "0001.png"
    if how == "size":
        Image.new("RGB", (32, 48)).save(path)
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "no image":
        path.write_bytes(b"hello")
    elif how == "huge":  # it says so, and Pillow would warn
        content = bytearray(path.read_bytes())
        content[16:24] = struct.pack(">II", 10_000, 10_000)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        path.write_bytes(content)
    elif how == "bitmap":
        Image.new("RGB", (32, 32)).save(path, "BMP")
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
        ("huge", r"train/ship/0001\.png has 10000 x 10000 pixels, not 32 x 32"),
        ("bitmap", r"train/ship/0001\.png is damaged or not an image"),
        ("missing", "has no images in test/truck: CIFAR-10 has the classes airplane, automobile"),
        ("unknown", "has images in train/submarine, which is not a class of CIFAR-10"),
    ],
)
def test_wrong_images_are_refused_in_one_line(data_dir, own_cache, how, message, zipped):
    spoil(data_dir / "cifar10", how)
    if zipped:
        pack(data_dir)
    with pytest.raises(ValueError, match=message) as refusal:
        load_images("cifar10", data_dir)
    assert refusal.value.exit_code == 2 and "\n" not in str(refusal.value)
    assert not list(own_cache.iterdir())


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
    for num_train in (0, -5):
        with pytest.raises(ValueError, match=f"num_train must be at least 1, not {num_train}"):
            load_images("cifar10", data_dir, num_train=num_train)
    with pytest.raises(ValueError, match="the dataset must be one of cifar10, synthetic, not 'cifar100'"):
        load_images("cifar100", data_dir)


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
    assert all(torch.equal(x, y) for part in a for x, y in zip(a[part], b[part]))
    assert a["test"].labels.bincount().tolist() == [100] * 10 and a["train"].pixels.dtype == torch.uint8
    assert a["train"].pixels.float().std(dim=(1, 2, 3)).min() > 5  # no image is empty


PIXELS = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)
UNIT, THREE = PIXELS / 255, torch.full((3,), 0.5)
FUNCTIONS = {
    "augment": lambda images: augment(images, torch.Generator().manual_seed(0)),
    "to_unit": to_unit,
    "normalise": lambda images: normalise(images, THREE, THREE),
    "channel_statistics": channel_statistics,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[0, 0],
        lambda images: images[None],
        lambda images: images[:, :1],
        lambda images: images.movedim(1, 3),
        lambda images: images[:, :, :0],
        lambda images: images.numpy(),
        lambda images: images.tolist(),
        lambda images: None,
    ],
)
def test_what_is_no_image_is_refused(name, change):
    images = UNIT if name == "normalise" else PIXELS
    FUNCTIONS[name](images)
    with pytest.raises(ValueError, match=r"^images must be a tensor .*\(B, 3, H, W\), H and W at least 1, .*, not "):
        FUNCTIONS[name](change(images))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("augment", PIXELS[0], r"must be a tensor \(B, 3, H, W\)"),
        ("channel_statistics", PIXELS[0], r"must be a tensor \(B, 3, H, W\)"),
        ("channel_statistics", PIXELS[:0], "the statistics of no image at all are not defined"),
        ("channel_statistics", UNIT, r"of type uint8, from 0 to 255, not a tensor \(2, 3, 8, 8\) of float32"),
        ("to_unit", UNIT, r"of type uint8, from 0 to 255, not a tensor \(2, 3, 8, 8\) of float32"),
        ("to_unit", PIXELS.long(), "of type uint8, from 0 to 255, not .* of int64"),
        ("normalise", PIXELS, "must be floating-point numbers from 0 to 1, not .* of uint8: see to_unit"),
        ("normalise", PIXELS.float(), "must have values from 0 to 1, not from 51 to 51"),
        ("normalise", UNIT * torch.nan, "must have values from 0 to 1, not from nan to nan"),
    ],
)
def test_wrong_types_and_ranges_are_refused(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[name](wrong)


@pytest.mark.parametrize("wrong", [THREE[:1], THREE[:, None, None], 0.5, [0.5] * 3, torch.tensor(0.5)])
def test_statistics_of_other_shapes_are_refused(wrong):
    for name, words in (("mean", (wrong, THREE)), ("std", (THREE, wrong))):
        with pytest.raises(ValueError, match=f"{name} must be a tensor of 3 numbers, one for each channel, not "):
            normalise(UNIT, *words)


@pytest.mark.parametrize("name", ["augment", "to_unit", "normalise"])
def test_an_empty_batch_passes(name):
    """A process's shard of few images may be empty."""
    assert FUNCTIONS[name]((UNIT if name == "normalise" else PIXELS)[:0]).shape == (0, 3, 8, 8)


@NEEDS_COPIES
def test_the_real_copies(monkeypatch):
    monkeypatch.undo()  # the user's own cache: decoding takes ten seconds
    data = load_images("cifar10")
    assert [len(images.labels) for images in (data.train, data.validation, data.test)] == [45_000, 5_000, 10_000]
    assert (data.train.labels.bincount() + data.validation.labels.bincount()).tolist() == [5_000] * 10
    assert data.test.labels.bincount().tolist() == [1_000] * 10
    if data.name == "CIFAR-10 as JPEG":
        assert data.mean.tolist() == pytest.approx([0.4913, 0.4821, 0.4465], abs=1e-3)
        assert data.std.tolist() == pytest.approx([0.2452, 0.2428, 0.2606], abs=1e-3)
