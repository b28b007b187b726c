"""Experiments are many runs: start several at a time, skip those that are finished, gather their results in a file."""

import csv
import json
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.command import ArgumentParser, non_negative_int, positive_int
from common.data import write_atomically
from common.errors import CommandError
from common.jobs import Executor, Job, finished_result, run_locally
from common.machine import provenance
from common.paths import ROOT, short_path

RESULTS, FIGURES = ROOT / "report" / "results", ROOT / "report" / "figures"
SLURM_LOGS = ROOT / "runs" / "slurm_logs"
SLURM_DEFAULTS = {name: Executor._field_defaults[name] for name in ("partition", "gpus", "cpus", "minutes")}


class ExperimentParser(ArgumentParser):
    """A parser for experiments: adds `draw_only`, and the arguments that `parse_args` turns into `executor`."""

    def __init__(self, doc: str):
        super().__init__(doc)
        add = self.add_argument
        add("--jobs", type=positive_int, default=1, help="number of runs at a time")
        add("--draw_only", action="store_true", help="only draw the figures, from the committed results")
        add("--executor", choices=("local", "slurm"), default="local", help="run here, or as jobs on a cluster")
        add = self.add_argument_group("for each run, with --executor slurm").add_argument
        add("--partition", help="SLURM's partition (default: chosen by SLURM)")
        add("--gpus", type=non_negative_int, help=f"number of GPUs (default: {SLURM_DEFAULTS['gpus']})")
        add("--cpus", type=positive_int, help=f"number of CPU cores (default: {SLURM_DEFAULTS['cpus']})")
        minutes = f"time limit, after which it is requeued and resumed (default: {SLURM_DEFAULTS['minutes']})"
        add("--minutes", type=positive_int, help=minutes)

    def parse_args(self, *words: Any) -> Namespace:
        args = super().parse_args(*words)
        asked = {name: getattr(args, name) for name in SLURM_DEFAULTS if getattr(args, name) is not None}
        if asked and args.executor == "local":
            self.error(f"argument --{next(iter(asked))}: only with --executor slurm")
        if args.executor == "slurm" and not find_spec("submitit"):
            raise CommandError('--executor slurm needs submitit: pip install -e ".[cluster]"')
        if args.executor == "slurm" and not shutil.which("sbatch"):
            raise CommandError(
                "--executor slurm needs sbatch, which is not installed: run it where jobs can be submitted"
            )
        args.executor = Executor(args.executor, args.jobs, **asked)
        return args


def run_jobs(jobs: list[Job], executor: Executor) -> list[dict[str, Any]]:
    """Complete every job and return each run's result.json, in the order of the jobs.

    Finished runs are not repeated, interrupted ones are resumed.

    Raises:
        CommandError: a run failed, or its folder holds a run with other arguments.
    """
    to_do = [job for job in jobs if finished_result(job) is None]
    with tqdm(total=len(jobs), initial=len(jobs) - len(to_do), unit="run", disable=None) as progress:
        for _ in _run(to_do, executor, min(executor.jobs, len(jobs))):
            progress.update()
    return [finished_result(job) for job in jobs]


def _run(jobs: list[Job], executor: Executor, num_parallel: int) -> Iterator[None]:
    """Run the jobs, and yield whenever one has ended."""
    if executor.name == "slurm":
        from common.slurm import run_on_slurm  # needs submitit

        return run_on_slurm(jobs, executor, SLURM_LOGS)
    if SLURM_LOGS.exists() and find_spec("submitit"):
        from common.slurm import Unreachable, queued

        with suppress(Unreachable):  # where SLURM does not answer, none of its jobs is running
            for run_dir, job in queued(jobs, SLURM_LOGS).items():
                raise CommandError(
                    f"SLURM's job {job.job_id} trains in {short_path(run_dir)}: add --executor slurm, or cancel it"
                )
    return run_locally(jobs, max(1, num_parallel))


def write_results(name: str, rows: list[dict[str, Any]], **more_provenance: Any) -> Path:
    """Write report/results/<name>.csv, and <name>.json with the command, commit, versions and hardware behind it."""
    path = RESULTS / f"{name}.csv"
    text = json.dumps({**provenance(), **more_provenance}, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(path.with_suffix(".json"), text.encode())
    return path


def read_results(name: str) -> list[dict[str, Any]]:
    """Return the rows of report/results/<name>.csv, with numbers as int and float.

    Raises:
        CommandError: the experiment has not been run, or its file is empty.
    """
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        raise CommandError(f"{short_path(path)} does not exist: run the experiment without --draw_only first")
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]
    if not rows:
        raise CommandError(f"{short_path(path)} holds no results: run the experiment without --draw_only again")
    return rows


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
