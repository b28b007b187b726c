"""Experiments are many runs: start them side by side, skip what is finished, gather the results into one file."""

import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from common.errors import ArgumentParser, CommandError, positive_int
from common.machine import ROOT, provenance, short_path
from common.run_folder import write_atomically

RESULTS, FIGURES = ROOT / "report" / "results", ROOT / "report" / "figures"


class Job(NamedTuple):
    """One training run: `script` (relative to the repository) with `arguments` (True: a flag), in the folder `run_dir`."""

    script: str
    run_dir: Path
    arguments: dict[str, Any]


def experiment_parser(description: str) -> ArgumentParser:
    """Return a parser with the two arguments that every experiment has: `jobs` and `draw_only`."""
    parser = ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--jobs", type=positive_int, default=1, help="runs at a time")
    parser.add_argument("--draw_only", action="store_true", help="draw the figures from the committed results")
    return parser


def run_jobs(jobs: list[Job], num_parallel: int) -> list[dict[str, Any]]:
    """Bring every job to its end, `num_parallel` at a time, and return each run's result.json, in the jobs' order.

    A finished run is not repeated and an interrupted one is resumed. The cores are shared out among the parallel runs.

    Raises:
        CommandError: a run failed, or its folder holds a run with other arguments.
    """
    results = [_finished_result(job) for job in jobs]
    to_do = [index for index, result in enumerate(results) if result is None]
    with (
        ThreadPoolExecutor(num_parallel) as pool,
        tqdm(total=len(jobs), initial=len(jobs) - len(to_do), unit="run", disable=None) as progress,
    ):
        futures = {pool.submit(_run, jobs[index], num_parallel): index for index in to_do}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress.update()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # those under way end by themselves; Ctrl-C has reached them too
            raise
    return results


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


def _run(job: Job, num_parallel: int) -> dict[str, Any]:
    flags = [[f"--{name}"] if value is True else [f"--{name}", str(value)] for name, value in job.arguments.items()]
    resume = ["--resume"] if job.run_dir.exists() else []
    threads = str(max(1, (os.cpu_count() or 1) // num_parallel))
    done = subprocess.run(
        [sys.executable, str(ROOT / job.script), *chain(*flags), "--run_dir", str(job.run_dir), *resume],
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandError(f"the run in {short_path(job.run_dir)} ended with exit code {done.returncode}: {reason}")
    return json.loads((job.run_dir / "result.json").read_text(encoding="utf-8"))


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
