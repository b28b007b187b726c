"""With how many threads the runs of an experiment compute."""

import os

import pytest

from common import jobs
from common.jobs import Job, run_locally, start

NAMES = [f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS")]


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


def test_what_the_user_has_set_is_kept(job, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert start(job, 3).communicate()[1].split() == ["1", "3", "3"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes are bound to cores on Linux only")
def test_the_cores_that_this_process_may_use_are_divided(job, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    threads = []
    monkeypatch.setattr(jobs, "_run", lambda job, count: threads.append(count))
    for num_parallel in (1, 2, 4, 8):
        list(run_locally([job], num_parallel))
    assert threads == [6, 3, 1, 1]
