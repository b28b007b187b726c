"""The runs of an experiment: with how many threads they compute, what they leave, and how they end with it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from common import jobs
from common.errors import CommandError
from common.jobs import Job, finished_result, run_locally, start
from tests.harness import POSIX, ROOT

NAMES = [f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS")]


class Done:
    """Stands for a process that has ended."""

    returncode = 0

    def communicate(self):
        return "", ""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job whose run writes to stderr with how many threads it was started."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "train.py"
    script.write_text(f"import os, sys\nsys.exit(' '.join(os.environ[name] for name in {NAMES}))")
    return Job(str(script), tmp_path / "run", {})


def test_a_run_gets_the_threads_it_is_given(job):
    assert start(job, 3).communicate()[1].split() == ["3", "3", "3"]


def test_what_the_user_has_set_is_kept_and_the_other_libraries_follow(job, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert start(job, 3).communicate()[1].split() == ["1", "1", "1"]
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    assert start(job, 3).communicate()[1].split() == ["1", "2", "1"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes are bound to cores on Linux only")
def test_the_cores_that_this_process_may_use_are_divided(job, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    threads = []
    monkeypatch.setattr(jobs, "start", lambda job, count: threads.append(count) or Done())
    for num_parallel in (1, 2, 4, 8):
        list(run_locally([job], num_parallel))
    assert threads == [6, 3, 1, 1]


@pytest.mark.parametrize("name", ["result.json", "config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7", '"x"', "\0", "[" * 100_000, None])
def test_a_damaged_file_of_a_run_is_named(tmp_path, name, content):
    files = {"result.json": {"accuracy": 1.0}, "config.json": {"arguments": {"size": 3}}}
    for file, whole in files.items():
        (tmp_path / file).write_text(json.dumps(whole))
    job = Job("train.py", tmp_path, {"size": 3})
    assert finished_result(job) == {"accuracy": 1.0}
    (tmp_path / name).unlink()
    if content is None and name == "result.json":
        assert finished_result(job) is None
        return
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(CommandError, match=rf"{name} is missing or damaged: (delete it|move the folder away)"):
        finished_result(job)


@pytest.mark.parametrize("arguments", [None, [], "size", {}])
def test_a_run_whose_arguments_are_not_the_jobs_is_named(tmp_path, arguments):
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"arguments": arguments}))
    with pytest.raises(CommandError, match="holds a run with --size None, not 3: move it away"):
        finished_result(Job("train.py", tmp_path, {"size": 3}))


TRAIN = """
import pathlib, sys, time
sys.path.insert(0, {root!r})
from common.command import StopRequest, run_command
from common.errors import CommandError

def main():
    folder = pathlib.Path(sys.argv[sys.argv.index("--run_dir") + 1])
    folder.mkdir()
    with StopRequest() as stop:
        (folder / "begun").touch()
        while not stop.signal_number:
            time.sleep(0.01)
    (folder / "checkpoint").touch()
    raise CommandError("stopped", 143)

run_command(main)
"""
EXPERIMENT = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell switches it off for what runs in the background
sys.path.insert(0, {root!r})
from common.command import run_command
from common.jobs import Job, run_locally

folder = pathlib.Path({folder!r})
run_command(lambda: list(run_locally([Job(str(folder / "train.py"), folder / name, {{}}) for name in "abc"], 2)))
"""


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_runs_stop_with_a_checkpoint_when_their_experiment_ends(tmp_path, number):
    """Two of three have begun. A kill cannot be noticed by the experiment itself: Linux tells its runs."""
    if number == signal.SIGKILL and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells a process that its parent is gone")
    for name, text in {"train.py": TRAIN, "experiment.py": EXPERIMENT}.items():
        (tmp_path / name).write_text(text.format(root=str(ROOT), folder=str(tmp_path)))
    command = [sys.executable, str(tmp_path / "experiment.py")]
    experiment = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(tmp_path.glob("*/begun"))) == 2)
    experiment.send_signal(number)
    _, error = experiment.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert experiment.returncode == 128 + number and error.count("\n") == 1
        assert len(list(tmp_path.glob("*/checkpoint"))) == 2  # the experiment has waited for them
    wait_for(lambda: len(list(tmp_path.glob("*/checkpoint"))) == 2)
    assert not (tmp_path / "c").exists()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
