"""Where a submission's parts lie, and which edition it answers. Its files are read here, never run.

A part is recognised by names that its handout fixes, in files of the handed-out names or in notebooks, in any folder
below the submission's. The edition is the one whose names and constructors fit best.
"""

import ast
import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

from grading.editions import Edition, Part

SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv", "env"}
MOST_FOLDERS = 5_000
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)


class UnreadableNotebook(ValueError):
    """A notebook that is no JSON; the message says in one line why."""


class Cell(NamedTuple):
    """A notebook's cell of code: its number, and its text without lines that are IPython's."""

    number: int
    source: str


class FoundPart(NamedTuple):
    """A part of a submission: where it lies, how well it fits, and other folders that fit as well."""

    part: Part
    folder: Path
    score: int
    rivals: list[Path]


class Submission(NamedTuple):
    """A submission: its root, the edition it answers, others that fit as well, and its parts."""

    root: Path
    edition: Edition
    others: list[str]
    parts: list[FoundPart]


def find_submission(root: Path, editions: list[Edition], part: str | None = None) -> Submission:
    """Return the submission in a folder.

    Args:
        editions: the editions to choose from: all, or the one that was named.
        part: keep this part only, by its name in the edition.

    Raises:
        ValueError: nothing there fits, or several folders fit alike; the message says so in one line.
    """
    root = root.resolve()
    folders = list(folders_below(root))
    if part and not any(part in edition.parts for edition in editions):
        names = sorted({name for edition in editions for name in edition.parts})
        raise ValueError(f"there is no part {part!r}: the parts are {', '.join(names)}")
    found = {edition.name: find_parts(edition, root, folders, part) for edition in editions}
    scores = {name: sum(one.score for one in parts) for name, parts in found.items()}
    best = max(scores.values())
    if not best:
        what = editions[0].name if len(editions) == 1 else "any edition"
        raise ValueError(f"{root} holds no {part or 'part'} of {what}: none of the names that its handout fixes")
    fitting = [edition for edition in editions if scores[edition.name] == best]
    parts = found[fitting[0].name]
    for one in parts:
        if one.rivals:
            places = " and ".join(str(folder.relative_to(root)) for folder in (one.folder, one.rivals[0]))
            raise ValueError(f"{places} both hold {one.part.name} of {fitting[0].name}: name the submission's own")
    return Submission(root, fitting[0], [edition.name for edition in fitting[1:]], parts)


def folders_below(root: Path) -> Iterator[Path]:
    """Yield a folder and those below it, the nearest first; none that is hidden or holds installed packages."""
    waiting = [root]
    for number, folder in enumerate(waiting):
        if number == MOST_FOLDERS:
            raise ValueError(f"{root} holds more than {MOST_FOLDERS:,} folders: name the submission's own")
        yield folder
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] not in "._")
        waiting += [folder / name for name in names if name not in SKIPPED]


def find_parts(edition: Edition, root: Path, folders: list[Path], name: str | None) -> list[FoundPart]:
    """Return an edition's parts that are there, each in the folder that fits best."""
    parts = []
    for part in edition.parts.values():
        if name in (None, part.name):
            ranks = ((score_of(part, folder), has_files(part, folder), -depth(root, folder)) for folder in folders)
            best = max(scores := list(ranks))
            if best[0]:
                fitting = [folder for folder, score in zip(folders, scores) if score == best]
                parts.append(FoundPart(part, fitting[0], best[0], fitting[1:]))
    return parts


def has_files(part: Part, folder: Path) -> bool:
    """Return whether a folder has a file of a handed-out name: beside those, a notebook is a copy."""
    return any((folder / name).is_file() for name in part.files)


def depth(root: Path, folder: Path) -> int:
    return len(folder.relative_to(root).parts)


def score_of(part: Part, folder: Path) -> int:
    """Return how many of a part's names a folder defines, plus how many constructors are the handout's."""
    score = 0
    for name in {name for names in part.files.values() for name in names} - {"train"}:  # many folders have one
        path = file_of(part, folder, name)
        if path:
            signature = part.signatures.get(name)
            score += 1 + (signature is not None and constructor(path, name) == signature)
    return score


def file_of(part: Part, folder: Path, name: str) -> Path | None:
    """Return the file of a folder that defines a name: the one the handout says, else a notebook."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".ipynb") and path.is_file())
    patterns = [pattern for pattern, names in part.files.items() if name in names]
    for pattern in [*patterns, "*.ipynb"]:
        for path in files:
            if fnmatch(path.name, pattern) and name in defined(path):
                return path
    return None


@cache
def defined(path: Path) -> dict[str, ast.AST | None]:
    """Return the classes and functions of a file, by name; without their trees where the file is not Python."""
    found: dict[str, ast.AST | None] = {}
    try:
        sources = [cell.source for cell in notebook_cells(path)] if path.suffix == ".ipynb" else [source_of(path)]
    except UnreadableNotebook:
        sources = [source_of(path).replace("\\n", "\n").replace('"', "\n")]
    for source in sources:
        try:
            nodes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
            found |= {node.name: node for node in nodes}
        except (SyntaxError, ValueError):
            found |= dict.fromkeys(re.findall(r"^(?:class|def) (\w+)", source, re.MULTILINE))
    return found


def source_of(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="replace")


def notebook_cells(path: Path) -> list[Cell]:
    """Return a notebook's cells of code, numbered from 1.

    Raises:
        UnreadableNotebook: it is no JSON, or no notebook.
    """
    text = source_of(path)
    try:
        cells = json.loads(text)["cells"]
        sources = [(number, "".join(cell["source"])) for number, cell in enumerate(cells, 1) if is_code(cell)]
    except (ValueError, KeyError, TypeError):
        conflict = CONFLICT.search(text)
        line = text.count("\n", 0, conflict.start()) + 1 if conflict else 0
        reason = f"it holds git's conflict markers, at line {line}" if conflict else "it is not whole"
        raise UnreadableNotebook(f"the notebook cannot be read: {reason}") from None
    return [Cell(number, re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)) for number, source in sources]


def is_code(cell: dict) -> bool:
    return cell["cell_type"] == "code"


def constructor(path: Path, name: str) -> list[str] | None:
    """Return the names of a class's constructor's parameters, without self."""
    tree = defined(path)[name]
    for node in tree.body if isinstance(tree, ast.ClassDef) else []:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return [argument.arg for argument in node.args.args[1:]]
    return None
