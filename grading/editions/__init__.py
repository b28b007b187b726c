"""What each edition asks, read from the TOML files beside this one.

An edition's file has a title and a table for each part:

    title, probes       what the part is about; the module of `grading.probes` that judges it
    files               file name or pattern -> the names that the handout fixes in it
    handed_out          files that came with the assignment and need no change: their faults are not the student's
    signatures          class -> its constructor's parameters
    arguments           what the handed-out train.py sets on `args`: flags with their defaults, and attributes
    flags               for a short training: flags of train.py, passed where it has them
    options             what adapters and probes must know: the output, the temperature's side
    questions           number, what is asked, hint, models, and the probes: required, or advice
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parent


class Asked(NamedTuple):
    """A probe that a question asks for, of one model or function, or of none."""

    probe: str
    subject: str | None
    required: bool


@dataclass
class Question:
    """A question of the handout, and the probes that judge its code.

    Args:
        number: as the handout numbers it.
        asks: what is asked, in one line.
        required: probes that must hold.
        advice: probes whose failure costs nothing.
        subjects: the models or functions that each probe is run on; none for probes of something else.
        built_on: subjects of earlier questions: what is wrong with those is not said again here.
        one_of: it is enough that one of the subjects is there.
        hint: where this repository answers the question.
    """

    number: str
    asks: str
    required: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    built_on: list[str] = field(default_factory=list)
    one_of: bool = False
    hint: str = ""

    def asked(self) -> list[Asked]:
        """Return the probes in their order: all of one subject before the next."""
        subjects: list[str | None] = [*self.subjects] or [None]
        return [
            Asked(probe, subject, required)
            for subject in subjects
            for required, probes in ((True, self.required), (False, self.advice))
            for probe in probes
        ]


@dataclass
class Part:
    """A part of an edition; see above."""

    name: str
    title: str
    probes: str
    files: dict[str, list[str]]
    questions: list[Question]
    handed_out: list[str] = field(default_factory=list)
    signatures: dict[str, list[str]] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


class Edition(NamedTuple):
    name: str
    title: str
    parts: dict[str, Part]


def read_editions() -> list[Edition]:
    """Return all editions, the newest first."""
    editions = [read_edition(path) for path in FOLDER.glob("*.toml")]
    return sorted(editions, key=lambda edition: edition.title.split()[-1] + edition.name, reverse=True)


def read_edition(path: Path) -> Edition:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    parts = {}
    for name, table in content.items():
        if isinstance(table, dict):
            questions = [Question(**question) for question in table.pop("questions")]
            parts[name] = Part(name=name, questions=questions, **table)
    return Edition(path.stem, content["title"], parts)
