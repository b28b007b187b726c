"""Data files: find or download them by name, check them, cache what is made from them, and write them atomically.

A name stands for a file in $DATA_DIR (default data/) or for a verified download. If neither can be had, a one-line
message says which file to put where.
"""

import hashlib
import io
import os
import sys
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from common.errors import InputError
from common.paths import ROOT, short_path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one move: whatever happens, `path` holds either its old or its new content."""
    temporary = path.with_name(f".{path.name}.tmp")  # a fixed name: the next write replaces what a kill leaves behind
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
        if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise InputError(
                f"{short_path(path)} is not the expected file (its sha256 differs): move it away to fetch it anew"
            )
        return path
    if url is None:
        raise InputError(f"{path} does not exist: put the file there, or name another data_dir")
    if not (url.startswith("https://") and sha256 and len(sha256) == 64):
        raise ValueError("a download needs an https address and a full sha256")
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
    content = path.read_bytes()
    if damaged := zipfile.ZipFile(io.BytesIO(content)).testzip():  # torch.load itself does not compare the checksums
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
    path.parent.mkdir(parents=True, exist_ok=True)
    own_path = path.with_name(f"{path.name}.{uuid4().hex}")  # other processes may be making the same content
    save_tensors(own_path, content)
    own_path.replace(path)
    return content
