"""Experiments: their arguments, jobs that run once, and result files."""

import json

import pytest

from common.errors import CommandError
from common.experiment import ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Executor, Job

SCRIPT = """
import json, pathlib, sys
flag = "--twice" in sys.argv
rest = [word for word in sys.argv[1:] if word != "--twice"]
words = dict(zip(rest[::2], rest[1::2]))
folder = pathlib.Path(words["--run_dir"])
if words["--size"] == "13":
    print("first line\\nscript: thirteen is too much", file=sys.stderr)
    sys.exit(2)
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "calls", "a") as file:
    file.write("x")
(folder / "config.json").write_text(json.dumps({"arguments": {"size": int(words["--size"]), "twice": flag}}))
(folder / "result.json").write_text(json.dumps({"square": int(words["--size"]) ** 2 * (2 if flag else 1)}))
"""


def test_the_parser_makes_an_executor():
    args = ExperimentParser("Doc.").parse_args(["--jobs", "3"])
    assert args.executor == Executor("local", jobs=3) and args.draw_only is False
    with pytest.raises(CommandError, match="argument --gpus: only with --executor slurm"):
        ExperimentParser("Doc.").parse_args(["--gpus", "1"])


def test_jobs_run_once_and_results_keep_their_order(tmp_path):
    one, two = Executor(jobs=1), Executor(jobs=2)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    jobs = [Job(str(script), tmp_path / f"run{size}", {"size": size}) for size in (3, 1, 2)]
    for _ in range(2):
        assert run_jobs(jobs, two) == [{"square": 9}, {"square": 1}, {"square": 4}]
    assert (tmp_path / "run3" / "calls").read_text() == "x"
    assert run_jobs([Job(str(script), tmp_path / "flag", {"size": 3, "twice": True})], one) == [{"square": 18}]
    with pytest.raises(CommandError, match="run3 holds a run with --size 3, not 4"):
        run_jobs([Job(str(script), tmp_path / "run3", {"size": 4})], one)
    with pytest.raises(CommandError, match="exit code 2: script: thirteen is too much"):
        run_jobs([Job(str(script), tmp_path / "run13", {"size": 13})], one)


def test_results_come_back_with_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("common.experiment.RESULTS", tmp_path)
    rows = [{"model": "RNN", "T": 5, "accuracy": 0.5, "converged": True}]
    write_results("table", rows, seeds=[0])
    assert read_results("table") == [{"model": "RNN", "T": 5, "accuracy": 0.5, "converged": "True"}]
    assert json.loads((tmp_path / "table.json").read_text())["seeds"] == [0]
    with pytest.raises(CommandError, match="does not exist"):
        read_results("other")
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(CommandError, match="holds no results"):
        read_results("table")
