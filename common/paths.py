"""Where the repository is, and how paths are shown to the user."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def short_path(path: str | Path) -> str:
    """Return a path as shown to the user: relative to the working directory if both are in the repository."""
    path = Path(path).resolve()
    return os.path.relpath(path) if path.is_relative_to(ROOT) and Path.cwd().is_relative_to(ROOT) else str(path)
