"""Data files: find or download them by name, check them, cache what is made from them, and write them atomically.

A name stands for a file in $DATA_DIR (default data/) or for a verified download. If neither can be had, a one-line
message says which file to put where.
"""

import hashlib
import io
import os
import shutil
import stat
import sys
import urllib.error
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO
from uuid import uuid4

import torch
from torch import Tensor

from common.errors import InputError
from common.paths import ROOT, readable, short_path

MAX_UNPACKED = 2**30  # bytes that an archive may say it unpacks to


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one move: whatever happens, `path` holds either its old or its new content.

    Raises:
        ValueError: there is something other than a regular file, such as a link or a device.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that replaces `path` once the block has ended well; raises what `write_atomically` does."""
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.tmp")  # a fixed name: the next write replaces what a kill leaves behind
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # a new file: no link that somebody has put there is followed
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which file it was
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """Raise an InputError if there is something at a path that must not be replaced: a link, a device, a folder."""
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise InputError(f"{readable(str(path))} is not a regular file, and is left as it is: choose another place")


def input_file(path: str | Path, expected: str = "a file") -> Path:
    """Return the path of a file to be read.

    Args:
        expected: what it should be, for messages.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no regular file (or link to one), but a folder, a pipe or a device.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{short_path(path)} does not exist: {expected} is expected")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise InputError(f"{readable(str(path))} is {kind}: {expected} is expected, as a regular file")
    return path


def data_path(name: str, data_dir: str | None = None) -> Path:
    """Return the path at which a data file belongs, whether it exists or not; see `find_data` for the arguments."""
    return Path(data_dir or os.environ.get("DATA_DIR") or ROOT / "data") / name


def find_data(name: str, data_dir: str | None = None, url: str | None = None, sha256: str | None = None) -> Path:
    """Return the path of a data file, which is downloaded if it does not exist.

    Args:
        name: path of the file inside the data folder, as in "text/grimm.txt".
        data_dir: the data folder; by default the environment's $DATA_DIR, else `data/` in ROOT (common/paths.py).
        url: https address from which a missing file is downloaded.
        sha256: checksum in hexadecimal; compared for an existing file as well as for a download.

    Raises:
        InputError: the file does not exist and cannot be downloaded, or it is not the expected one.
    """
    path = data_path(name, data_dir)
    if path.is_file():
        if sha256 and sha256_of(path) != sha256:
            raise InputError(
                f"{short_path(path)} is not the expected file (its sha256 differs): move it away to fetch it anew"
            )
        return path
    if url is None:
        raise InputError(f"{path} does not exist: put the file there, or name another data_dir")
    if not (url.startswith("https://") and sha256 and len(sha256) == 64):
        raise ValueError("a download needs an https address and a full sha256")
    check_replaceable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=sys.stderr.isatty())
    except urllib.error.URLError as error:
        raise InputError(f"{url} cannot be downloaded ({error.reason}): put the file at {path} by hand") from None
    except RuntimeError:  # torch.hub raises it for a wrong checksum, after removing the file
        raise InputError(
            f"{url} is not the expected file (its sha256 differs): put the right one at {path} by hand"
        ) from None
    return path


def sha256_of(path: Path) -> str:
    """Return the checksum of a file of any size, in hexadecimal."""
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        while content := file.read(2**20):
            checksum.update(content)
    return checksum.hexdigest()


def checksum_of(tensors: Iterable[Tensor], about: str = "") -> str:
    """Return the sha256 of a text and of what tensors hold, in hexadecimal."""
    checksum = hashlib.sha256(about.encode())
    for tensor in tensors:
        checksum.update(tensor.cpu().contiguous().numpy().data)
    return checksum.hexdigest()


def read_zip(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the wanted members of a zip archive, by name.

    Raises:
        ValueError: it is damaged, encrypted or no zip archive, or its members have more than a GiB together.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = [member for member in archive.infolist() if wanted(member.filename)]
                if sum(member.file_size for member in members) > MAX_UNPACKED:
                    raise InputError(f"{short_path(path)} is refused: it unpacks to more than {MAX_UNPACKED:,} bytes")
                return {member.filename: archive.read(member) for member in members}
        except InputError:
            raise
        except Exception as error:  # zipfile and zlib raise many types
            raise InputError(
                f"{short_path(path)} is damaged, or no zip archive ({type(error).__name__}): copy it again"
            ) from None


def save_tensors(path: Path, content: Any) -> None:
    """Write tensors in dictionaries, lists and tuples with `torch.save`, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_tensors(path: Path) -> Any:
    """Return what `save_tensors` wrote, on the CPU. Its checksums are compared, and no code in the file is run.

    Raises:
        ValueError, or one of the many types that torch.load raises: the file is damaged, or not one of ours.
    """
    content = input_file(path).read_bytes()
    archive = zipfile.ZipFile(io.BytesIO(content))
    if sum(member.file_size for member in archive.infolist()) > len(content):  # torch.save compresses nothing
        raise ValueError("it would unpack to more than it is")
    if damaged := archive.testzip():  # torch.load itself does not compare the checksums
        raise ValueError(f"checksum of {damaged}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def cached_tensors(path: Path, make: Callable[[], Any]) -> Any:
    """Return the content of the cache file `path`; if that is missing or damaged, `make()` the content and save it."""
    if path.exists():
        try:
            return load_tensors(path)
        except Exception as error:  # torch.load raises many types for damaged and foreign files
            print(f"{short_path(path)} is damaged ({type(error).__name__}): made anew", file=sys.stderr)
    content = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own_path = path.with_name(f"{path.name}.{uuid4().hex}")  # other processes may be making the same content
        save_tensors(own_path, content)
        own_path.replace(path)
    except OSError as error:  # the content is there all the same
        print(f"{short_path(path)} cannot be written ({error.strerror}): made anew next time", file=sys.stderr)
    return content


def cache_folder(name: str = "") -> Path:
    """Return a folder in the user's cache, or one for this process alone where that cannot be used.

    What lies there is believed, or even run: so it must be the user's own, and nobody else's to write in.
    """
    base = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    if os.path.isabs(chosen := os.environ.get("XDG_CACHE_HOME", "")):  # the specification: others are to be ignored
        base = Path(chosen)
    folder = Path(os.path.expanduser(base), "recurrent-and-graph-networks")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        foreign = os.name == "posix" and (found.st_uid != os.getuid() or found.st_mode & 0o022)
        if foreign or not os.access(folder, os.W_OK):
            folder = _folder_of_this_process()
    except OSError:
        folder = _folder_of_this_process()
    (folder / name).mkdir(exist_ok=True)
    return folder / name


@cache
def _folder_of_this_process() -> Path:
    import atexit

    folder = mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
