"""What the tests of all training scripts share: running scripts, comparing run folders, and killing trainings."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import experiment
from common.command import run_command

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs fork, POSIX signals and limits")
TIMES = ("seconds", "examples_per_second", "characters_per_second")


def run_script(script, *words, cwd=ROOT, **options):
    """Run a script and return what `subprocess.run` does; for speed in a fork, where nothing else is asked for."""
    command = [sys.executable, script, *map(str, words)]
    if os.name == "posix" and re.fullmatch(r"part[\w/]+\.py", str(script)) and cwd == ROOT and not options:
        from tests.tried import server

        ending = server()(str(script).removesuffix(".py").replace("/", "."), *words)
        return subprocess.CompletedProcess(command, *ending)
    options = {"cwd": cwd, "env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run(command, **options)


def trains_small_models(tried):
    """Return a stand-in for `run_jobs` that trains part 2's models with few units."""
    small = {"lstm_hidden_dim": 8, "embedding_size": 4, "batch_size": 4}

    def run_jobs(jobs, executor):
        for job in jobs:
            arguments = [word for name, value in {**job.arguments, **small}.items() for word in (f"--{name}", value)]
            assert tried("part2.train", *arguments, "--run_dir", job.run_dir).code == 0
        return [json.loads((job.run_dir / "result.json").read_text()) for job in jobs]

    return run_jobs


def sweeps_below(folder, train, monkeypatch, capsys, runs=()):
    """Return a function that does an experiment's sweep below a folder, its trainings within this process.

    The function takes the experiment's module and its arguments, and returns what it prints.

    Args:
        train: the module of the training script.
        runs: other experiments whose folder RUNS this one uses.
    """

    def start(job):
        words = [f"--{name}={value}" for name, value in job.arguments.items()]
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", [job.script, *words, f"--run_dir={job.run_dir}"])
            train.main()

    def run(script, words):
        monkeypatch.setattr("sys.argv", [script.__name__, *words.split()])
        monkeypatch.setattr(experiment, "ROOT", folder)
        for module in runs:
            monkeypatch.setattr(module, "RUNS", folder / "accuracy")
        monkeypatch.setattr(script, "RUNS", folder / "of_the_sweep", raising=False)
        script.main()
        return capsys.readouterr().out

    monkeypatch.setattr(experiment, "_run", lambda jobs, *_: map(start, jobs))
    return run


def contents(folder):
    """Return what must be equal in two runs: checkpoint, rows of metrics.csv and result, without times."""
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    checkpoint["state"].pop("seconds")
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{key: text for key, text in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    result = json.loads((folder / "result.json").read_text())
    result.pop("seconds")
    return checkpoint, rows, result


def assert_same_run(folder, reference):
    """Compare weights, optimizer, generators, metrics and result, bit for bit."""
    for found, expected in zip(contents(folder), contents(reference)):
        assert bits(found) == bits(expected)


def bits(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, (list, tuple)) else value


def tensorboard_losses(folder):
    """Return the (step, loss) pairs that TensorBoard shows; it keeps float32."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]


def one_line(done, exit_code=2):
    """Return the one line that a failed command has printed on stderr."""
    assert done.returncode == exit_code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def failure_of(main, script, words, monkeypatch, capsys, exit_code=2):
    """Return the one line that a failing script prints on stderr; for speed, `main` runs in this process."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == exit_code
    return line


def train_under_fire(module, mode, folder, *words):
    """Return how often training was killed; modes "write" and "random" are those of killer.py."""
    command = [sys.executable, "-m", "tests.killer", module, mode, str(folder), *words]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])
