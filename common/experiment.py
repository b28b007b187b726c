"""Experiments are many runs: start them side by side, skip what is finished, gather the results into one file."""

import csv
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from common.errors import ArgumentParser, CommandError, non_negative_int, positive_int
from common.machine import ROOT, provenance, short_path
from common.run_folder import write_atomically

RESULTS, FIGURES = ROOT / "report" / "results", ROOT / "report" / "figures"
LOGS = ROOT / "runs" / "slurm_logs"  # of jobs on a cluster
SLURM_DEFAULTS = {"partition": None, "gpus": 0, "cpus": 2, "minutes": 240}


class Job(NamedTuple):
    """One training run: `script` (relative to the repository) with `arguments` (True: a flag), in the folder `run_dir`."""

    script: str
    run_dir: Path
    arguments: dict[str, Any]


class ExperimentParser(ArgumentParser):
    """Checks what the arguments of an experiment say of the cluster."""

    def parse_args(self, *words: Any) -> Namespace:
        args = super().parse_args(*words)
        for name, default in SLURM_DEFAULTS.items():
            if getattr(args, name) is None:
                setattr(args, name, default)
            elif args.executor == "local":
                self.error(f"argument --{name}: only with --executor slurm")
        if args.executor == "slurm" and not find_spec("submitit"):
            raise CommandError('--executor slurm needs submitit: pip install -e ".[cluster]"')
        if args.executor == "slurm" and not shutil.which("sbatch"):
            raise CommandError("--executor slurm needs sbatch, which is not here: call it where SLURM takes jobs")
        return args


def experiment_parser(description: str) -> ExperimentParser:
    """Return a parser with the arguments that every experiment has: how to run it, and `draw_only`."""
    parser = ExperimentParser(description=description.split("\n")[0])
    parser.add_argument("--jobs", type=positive_int, default=1, help="runs at a time")
    parser.add_argument("--draw_only", action="store_true", help="draw the figures from the committed results")
    parser.add_argument("--executor", choices=("local", "slurm"), default="local", help="run here, or as jobs on a cluster")
    add = parser.add_argument_group("with --executor slurm, of each run").add_argument
    add("--partition", help="SLURM's partition (default: the cluster's)")
    add("--gpus", type=non_negative_int, help=f"GPUs (default: {SLURM_DEFAULTS['gpus']})")
    add("--cpus", type=positive_int, help=f"CPU cores (default: {SLURM_DEFAULTS['cpus']})")
    add("--minutes", type=positive_int, help=f"until it is queued again and resumed (default: {SLURM_DEFAULTS['minutes']})")
    return parser


def run_jobs(jobs: list[Job], args: Namespace) -> list[dict[str, Any]]:
    """Bring every job to its end, `args.jobs` at a time, and return each run's result.json, in the jobs' order.

    A finished run is not repeated and an interrupted one is resumed. Here, the cores are shared out among the parallel runs;
    on a cluster each has its own.

    Args:
        args: of an `experiment_parser`.

    Raises:
        CommandError: a run failed, or its folder holds a run with other arguments.
    """
    to_do = [job for job in jobs if _finished_result(job) is None]
    if args.executor == "slurm":
        from common.cluster import run_on_slurm

        ended = run_on_slurm(to_do, args)
    else:
        ended = _run_here(to_do, max(1, min(args.jobs, len(jobs))))
    with tqdm(total=len(jobs), initial=len(jobs) - len(to_do), unit="run", disable=None) as progress:
        for _ in ended:
            progress.update()
    return [_finished_result(job) for job in jobs]


def start(job: Job, threads: int) -> "subprocess.Popen[str]":
    """Begin a run, or resume it; its stderr is to be read."""
    flags = [[f"--{name}"] if value is True else [f"--{name}", str(value)] for name, value in job.arguments.items()]
    resume = ["--resume"] if job.run_dir.exists() else []
    libraries = ("OMP", "MKL", "OPENBLAS")
    return subprocess.Popen(
        [sys.executable, str(ROOT / job.script), *chain(*flags), "--run_dir", str(job.run_dir), *resume],
        env={**os.environ, **{f"{library}_NUM_THREADS": str(threads) for library in libraries}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def failure(run_dir: Path, returncode: int, stderr: str) -> CommandError:
    """Return the error that says how a run failed."""
    reason = (stderr.strip().splitlines() or ["no message"])[-1]
    return CommandError(f"the run in {short_path(run_dir)} ended with exit code {returncode}: {reason}")


def write_results(name: str, rows: list[dict[str, Any]], **provenance_extra: Any) -> Path:
    """Write report/results/<name>.csv and beside it <name>.json with the command, versions and hardware behind it."""
    path = RESULTS / f"{name}.csv"
    text = json.dumps({**provenance(), **provenance_extra}, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(path.with_suffix(".json"), text.encode())
    return path


def read_results(name: str) -> list[dict[str, Any]]:
    """Return the rows of report/results/<name>.csv, numbers as numbers.

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


def _finished_result(job: Job) -> dict[str, Any] | None:
    if not (job.run_dir / "result.json").exists():
        return None
    config = json.loads((job.run_dir / "config.json").read_text(encoding="utf-8"))
    for name, value in job.arguments.items():
        if name != "data_dir" and config["arguments"].get(name) != value:
            raise CommandError(
                f"{short_path(job.run_dir)} holds a run with --{name} {config['arguments'].get(name)}, not {value}: "
                "move it away to run this experiment anew"
            )
    return json.loads((job.run_dir / "result.json").read_text(encoding="utf-8"))


def _run_here(jobs: list[Job], num_parallel: int) -> Iterator[None]:
    """Run the jobs, and yield whenever one has ended."""
    if LOGS.exists() and find_spec("submitit"):
        from common.cluster import Unreachable, queued

        with suppress(Unreachable):  # then neither are its jobs at work here
            for run_dir, job in queued(jobs).items():
                raise CommandError(
                    f"SLURM's job {job.job_id} trains in {short_path(run_dir)}: add --executor slurm, or cancel it"
                )
    threads = max(1, (os.cpu_count() or 1) // num_parallel)
    with ThreadPoolExecutor(num_parallel) as pool:
        futures = [pool.submit(_run, job, threads) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # those under way end by themselves; Ctrl-C has reached them too
            raise


def _run(job: Job, threads: int) -> None:
    process = start(job, threads)
    _, stderr = process.communicate()
    if process.returncode:
        raise failure(job.run_dir, process.returncode, stderr)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
