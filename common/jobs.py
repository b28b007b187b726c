"""Jobs: training runs in processes of their own, started or resumed, on this machine or on a cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import CommandError
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
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    return subprocess.Popen(
        command,
        env={**limits, **os.environ},
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
    config = json.loads((job.run_dir / "config.json").read_text(encoding="utf-8"))
    for name, value in job.arguments.items():
        if name != "data_dir" and config["arguments"].get(name) != value:
            raise CommandError(
                f"{short_path(job.run_dir)} holds a run with --{name} {config['arguments'].get(name)}, not {value}: "
                "move it away to run this experiment again"
            )
    return json.loads((job.run_dir / "result.json").read_text(encoding="utf-8"))


def failure(run_dir: Path, returncode: int, stderr: str) -> CommandError:
    """Return the error that says how a run failed."""
    reason = (stderr.strip().splitlines() or ["no message"])[-1]
    return CommandError(f"the run in {short_path(run_dir)} ended with exit code {returncode}: {reason}")


def run_locally(jobs: list[Job], num_parallel: int) -> Iterator[None]:
    """Run the jobs, `num_parallel` at a time, each with its share of the cores, and yield whenever one has ended.

    Raises:
        CommandError: a run failed.
    """
    threads = max(1, num_cores() // num_parallel)
    with ThreadPoolExecutor(num_parallel) as pool:
        futures = [pool.submit(_run, job, threads) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            # Runs that have begun end by themselves; Ctrl-C has reached them too.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run(job: Job, threads: int) -> None:
    process = start(job, threads)
    _, stderr = process.communicate()
    if process.returncode:
        raise failure(job.run_dir, process.returncode, stderr)
