"""From a data set's name to its files: $DATA_DIR or data/, else a verified download, else one line that says what to do."""

import os
import urllib.error
from pathlib import Path

import torch

from common.errors import CommandError
from common.machine import ROOT


def find_data(name: str, data_dir: str | None = None, url: str | None = None, sha256: str | None = None) -> Path:
    """Return the path of a data file, after downloading it if need be.

    Args:
        name: path of the file inside the data folder, as in "text/grimm.txt".
        data_dir: the data folder; by default the environment's $DATA_DIR, else `data/` in the repository.
        url: https address to take the file from where the folder does not have it.
        sha256: checksum of the file behind `url`, in hexadecimal; checked before the file gets its name.

    Raises:
        CommandError: the file is not there and cannot be had, or is not the one expected.
    """
    path = data_path(name, data_dir)
    if path.is_file():
        return path
    if url is None:
        raise CommandError(f"{path} does not exist: put the file there, or name another data folder with --data_dir")
    if not (url.startswith("https://") and sha256 and len(sha256) == 64):
        raise ValueError("a download needs an https address and a whole sha256")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=True)
    except urllib.error.URLError as error:
        raise CommandError(f"{url} cannot be had ({error.reason}): put the file at {path} by hand") from None
    except RuntimeError:  # what torch.hub raises for a wrong checksum; the temporary file is gone
        raise CommandError(
            f"{url} is not the expected file (its sha256 differs): put the right one at {path} by hand"
        ) from None
    return path


def data_path(name: str, data_dir: str | None = None) -> Path:
    """Return where a data file lies, whether it is there or not; arguments as for `find_data`."""
    return Path(data_dir or os.environ.get("DATA_DIR") or ROOT / "data") / name
