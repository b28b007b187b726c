"""Where runs and data lie in a checkout, and how paths are shown; tests/test_installation.py has the other case."""

import os
from pathlib import Path

from common.paths import INSTALLED, ROOT, short_path


def test_a_checkout_holds_its_runs_and_data_itself():
    assert not INSTALLED and Path(__file__).parents[2].samefile(ROOT)


def test_paths_are_short_within_the_repository_and_whole_elsewhere(tmp_path, monkeypatch):
    run = ROOT / "runs" / "part1" / "run"
    monkeypatch.chdir(ROOT)
    assert short_path(run) == os.path.join("runs", "part1", "run")
    assert short_path(tmp_path) == str(tmp_path.resolve())
    monkeypatch.chdir(ROOT / "part1")
    assert short_path(run) == os.path.join("..", "runs", "part1", "run")
    monkeypatch.chdir(tmp_path)
    assert short_path(run) == str(run)
