"""What must hold of a submission: plain functions of its code, and of the model or function they are about.

A probe's docstring says first what must hold, and in its last paragraph what to look at where it does not. A probe
fails by an assertion that says what was found. One that would fail as well wherever another does is marked
`@after(that)`: then it is not judged, so that one fault is named once.
"""

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

MODULES = ("part1", "part2", "part3", "part4")
Probe = TypeVar("Probe", bound=Callable[..., None])


def after(*others: Callable[..., None]) -> Callable[[Probe], Probe]:
    """Mark a probe whose verdict means something only where these have passed."""

    def mark(probe: Probe) -> Probe:
        probe.after = [other.__name__ for other in others]  # type: ignore[attr-defined]
        return probe

    return mark


def about(name: str) -> Callable[[Probe], Probe]:
    """Mark a probe whose failure is to be looked for in this function, method or file, not in its subject's forward."""

    def mark(probe: Probe) -> Probe:
        probe.about = name  # type: ignore[attr-defined]
        return probe

    return mark


def find(module: str, name: str) -> Callable[..., None]:
    """Return the probe of this name."""
    return getattr(importlib.import_module(f"grading.probes.{module}"), name)


def catalogue() -> dict[str, dict[str, Any]]:
    """Return of every probe, by "module.name": what must hold, what to look at, and after which others it comes."""
    found = {}
    for module in MODULES:
        for name, probe in probes_of(importlib.import_module(f"grading.probes.{module}")).items():
            paragraphs = [" ".join(p.split()) for p in (inspect.getdoc(probe) or "").split("\n\n")]
            must, look = paragraphs[0], paragraphs[-1] if len(paragraphs) > 1 else ""
            found[f"{module}.{name}"] = {"must": must, "look": look, "after": getattr(probe, "after", [])}
    return found


def probes_of(module: ModuleType) -> dict[str, Callable[..., None]]:
    """Return a module's probes: the public functions that it defines."""
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and not name.startswith("_") and function.__module__ == module.__name__
    }


def is_ours(error: BaseException) -> bool:
    """Return whether an exception was raised by a probe, not by the submission that it called."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).resolve().is_relative_to(Path(__file__).resolve().parents[1])
