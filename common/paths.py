"""Where the project's runs and data lie, and how paths are shown to the user."""

import os
from pathlib import Path

_ABOVE = Path(__file__).resolve().parents[1]  # the repository, or site-packages
INSTALLED = not (_ABOVE / "report" / "main.tex").exists()  # an installation holds the packages alone
# What holds runs/ and data/: the repository, or the folder in which a command of an installed project was started.
ROOT = Path.cwd() if INSTALLED else _ABOVE


def short_path(path: str | Path) -> str:
    """Return a path as shown to the user: relative to the working directory if both are in ROOT."""
    path = Path(path).resolve()
    return os.path.relpath(path) if path.is_relative_to(ROOT) and Path.cwd().is_relative_to(ROOT) else str(path)
