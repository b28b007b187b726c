"""Where the project's runs and data lie, and how paths and texts are shown to the user."""

import os
from pathlib import Path

_ABOVE = Path(__file__).resolve().parents[1]  # the repository, or site-packages
INSTALLED = not (_ABOVE / "report" / "main.tex").exists()  # an installation holds the packages alone
# What holds runs/ and data/: the repository, or the folder in which a command of an installed project was started.
ROOT = Path.cwd() if INSTALLED else _ABOVE


def short_path(path: str | Path) -> str:
    """Return a path as shown to the user: on one line, relative to the working directory if both are in ROOT."""
    path = Path(os.path.realpath(path))  # unlike Path.resolve, without an error where links lead round in a circle
    inside = path.is_relative_to(ROOT) and Path.cwd().is_relative_to(ROOT)
    return readable(os.path.relpath(path) if inside else str(path))


def readable(text: str) -> str:
    """Return a text on one line: line ends, terminal escapes and other invisible characters as Python writes them."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
