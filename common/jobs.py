"""Jobs: training runs in processes of their own, started or resumed, on this machine or on a cluster."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from common.errors import CommandError
from common.interrupts import EXPERIMENT
from common.machine import num_cores
from common.paths import ROOT, short_path


class Job(NamedTuple):
    """A training run of `script` (relative to the repository) in `run_dir`; an argument that is True is a flag."""

    script: str
    run_dir: Path
    arguments: dict[str, Any]

    def with_settings(self, settings: dict[str, Any]) -> "Job":
        """Return the job with these arguments as well, in a folder whose name ends in them."""
        ending = "".join(f"_{name}_{value}" for name, value in settings.items())
        run_dir = self.run_dir.with_name(self.run_dir.name + ending)
        return self._replace(run_dir=run_dir, arguments={**self.arguments, **settings})


class Executor(NamedTuple):
    """Where jobs run, and how many at a time. The other fields hold for each job on SLURM."""

    name: str = "local"  # or "slurm"
    jobs: int = 1
    partition: str | None = None
    gpus: int = 0
    cpus: int = 2
    minutes: int = 240


def start(job: Job, threads: int) -> "subprocess.Popen[str]":
    """Start or resume a run with so many threads, or as many as the environment says, and return its process.

    The caller must read its stderr.
    """
    command = [sys.executable, str(ROOT / job.script)]
    for name, value in job.arguments.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    command += ["--run_dir", str(job.run_dir)]
    if job.run_dir.exists():
        command.append("--resume")
    limit = os.environ.get("OMP_NUM_THREADS", str(threads))  # also for libraries of which the environment says nothing
    limits = {f"{library}_NUM_THREADS": limit for library in ("OMP", "MKL", "OPENBLAS")}
    return subprocess.Popen(
        command,
        env={**limits, **os.environ, EXPERIMENT: str(os.getpid())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished_result(job: Job) -> dict[str, Any] | None:
    """Return a finished run's result.json; None while it is not finished.

    Raises:
        CommandError: the folder holds a run with other arguments.
    """
    if not (job.run_dir / "result.json").exists():
        return None
    result = _read_json(job.run_dir / "result.json", "delete it, and the run is completed again")
    config = _read_json(job.run_dir / "config.json", "move the folder away to run this experiment again")
    arguments = config.get("arguments")
    theirs = arguments if isinstance(arguments, dict) else {}
    for name, value in job.arguments.items():
        if name != "data_dir" and theirs.get(name) != value:
            raise CommandError(
                f"{short_path(job.run_dir)} holds a run with --{name} {theirs.get(name)}, not {value}: "
                "move it away to run this experiment again"
            )
    return result


def _read_json(path: Path, advice: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CommandError(f"{short_path(path)} is missing or damaged: {advice}")
    return content


def failure(run_dir: Path, returncode: int, stderr: str) -> CommandError:
    """Return the error that says how a run failed."""
    reason = (stderr.strip().splitlines() or ["no message"])[-1]
    return CommandError(f"the run in {short_path(run_dir)} ended with exit code {returncode}: {reason}")


def run_locally(jobs: list[Job], num_parallel: int) -> Iterator[None]:
    """Run the jobs, `num_parallel` at a time, each with its share of the cores, and yield whenever one has ended.

    Ctrl-C or SIGTERM stops the runs that have begun, with a checkpoint each.

    Raises:
        CommandError: a run failed, after the others that have begun have ended; or SIGTERM has come.
    """
    threads = max(1, num_cores() // num_parallel)
    running: set[subprocess.Popen[str]] = set()
    stopping = threading.Event()

    def run(job: Job) -> None:
        process = start(job, threads)
        running.add(process)
        if stopping.is_set():
            process.terminate()
        _, stderr = process.communicate()
        running.discard(process)
        if process.returncode:
            raise failure(job.run_dir, process.returncode, stderr)

    before = signal.signal(signal.SIGTERM, _raise_stopped)
    try:
        with ThreadPoolExecutor(num_parallel) as pool:
            futures = [pool.submit(run, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, Stopped)):
                    stopping.set()
                    for process in list(running):
                        process.terminate()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


class Stopped(CommandError):
    """SIGTERM has come."""


def _raise_stopped(number: int, _: FrameType | None) -> None:
    raise Stopped("stopped; the same command goes on with the runs that are left", 128 + number)
