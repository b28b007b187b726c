"""Benchmarks measure what is committed: none starts from changed files, unless it is told to."""

import importlib

import pytest

from common import experiment
from common.errors import CommandError


@pytest.mark.parametrize("name", ["part1", "grid", "part2", "part3", "part4", "scaling", "readme"])
def test_a_benchmark_does_not_start_in_a_changed_tree(name, monkeypatch):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(experiment, "working_tree", lambda: ("1234", ["part1/train.py"]))
    monkeypatch.setattr("sys.argv", [name])
    with pytest.raises(CommandError, match=r"^part1/train\.py is not as committed"):
        benchmark.main()
