"""Experiments are many runs: start several at a time, skip those that are finished, gather their results in a file."""

import csv
import json
import shutil
from argparse import Action, Namespace
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from common.command import ArgumentParser, non_negative_int, positive_int
from common.data import write_atomically
from common.errors import CommandError
from common.jobs import Executor, Job, finished_result, run_locally
from common.machine import provenance, working_tree
from common.paths import ROOT, short_path

RESULTS, FIGURES = ROOT / "report" / "results", ROOT / "report" / "figures"
SLURM_LOGS = ROOT / "runs" / "slurm_logs"
SLURM_DEFAULTS = {name: Executor._field_defaults[name] for name in ("partition", "gpus", "cpus", "minutes")}


Run = TypeVar("Run")  # what tells the runs of a sweep apart, such as (model, T, seed)


class ExperimentParser(ArgumentParser):
    """A parser for experiments: a sweep of runs, of which the arguments can ask for a part, or for another sweep.

    The whole sweep, with every sweep argument at its default, is the one behind the report: it starts from a clean
    working tree only. Any other sweep leaves its results with its runs, unless `let_parts_add` was called and --add
    given: such a part adds its rows to the report's.

    Args:
        doc: the script's docstring.
        folder: the sweep's folder under runs/.
        jobs: whether there are runs to be started.

    `parse_args` returns, beside the arguments:
        whole: whether this is the whole sweep.
        committed: whether the committed results are to be drawn, and nothing else: the whole sweep with --draw_only.
        add: whether the rows of this part go beside those that are committed.
        settings: the settings that are not at their defaults.
        results, figures: the folders where tables and figures go.
        executor: where the runs are done.
    """

    def __init__(self, doc: str, folder: str, jobs: bool = True):
        super().__init__(doc)
        self.folder, self.jobs = ROOT / "runs" / folder, jobs
        self.selections: dict[str, tuple[Action, Any]] = {}  # with their defaults
        self.settings: list[Action] = []
        self.others: list[Action] = []
        add = self.add_argument
        add(
            "--draw_only",
            action="store_true",
            help="start no run: draw the committed results; of another sweep, what is there",
        )
        add_allow_dirty(self)
        if jobs:
            add("--jobs", type=positive_int, default=1, help="number of runs at a time")
            add("--executor", choices=("local", "slurm"), default="local", help="run here, or as jobs on a cluster")
            add = self.add_argument_group("for each run, with --executor slurm").add_argument
            add("--partition", help="SLURM's partition (default: chosen by SLURM)")
            add("--gpus", type=non_negative_int, help=f"number of GPUs (default: {SLURM_DEFAULTS['gpus']})")
            add("--cpus", type=positive_int, help=f"number of CPU cores (default: {SLURM_DEFAULTS['cpus']})")
            minutes = f"time limit, after which it is requeued and resumed (default: {SLURM_DEFAULTS['minutes']})"
            add("--minutes", type=positive_int, help=minutes)

    def add_selection(self, name: str, default: Any, help: str, **options: Any) -> None:
        """Add an argument that chooses among the runs: a tuple of values, in their order, none twice.

        With the default None, which `help` must explain, the experiment itself chooses.
        """
        if default is not None:
            help += f" (default: {' '.join(map(str, default))})"
        action = self.add_argument(name, nargs="+", help=help, **options)
        self.selections[action.dest] = action, default

    def add_setting(self, *names: str, **options: Any) -> None:
        """Add an argument that every run gets, under the name that the training script has for it.

        `help` must explain the default None, with which the runs do not get the argument.
        """
        self.settings.append(self.add_argument(*names, **options))

    def add_sweep_argument(self, *names: str, **options: Any) -> None:
        """Add any other argument without whose default the sweep is another one."""
        self.others.append(self.add_argument(*names, **options))

    def let_parts_add(self) -> None:
        """Add --add, for a sweep whose runs come from several machines or days: it begins with `rows_to_keep`."""
        help = "do those of the chosen runs that the committed results lack, and add them there"
        self.add_argument("--add", action="store_true", help=help)

    def parse_args(self, *words: Any, **options: Any) -> Any:
        args = super().parse_args(*words, **options)
        for name, (action, default) in self.selections.items():
            values = getattr(args, name)
            key = list(action.choices).index if action.choices else None
            setattr(args, name, default if values is None else tuple(sorted(set(values), key=key)))
        args.settings = _changed(self.settings, args)
        whole_selection = all(getattr(args, name) == default for name, (_, default) in self.selections.items())
        other = args.settings or _changed(self.others, args)
        args.whole = whole_selection and not other
        args.committed = args.whole and args.draw_only
        args.add = getattr(args, "add", False)
        if args.add and (other or args.draw_only):
            self.error(
                "argument --add: only runs with the sweep's own settings can be added, and none with --draw_only"
            )
        reported = args.whole or args.add
        args.results, args.figures = (RESULTS, FIGURES) if reported else (self.folder, self.folder)
        if self.jobs:
            args.executor = self._executor(args)
        if reported and not args.draw_only:
            require_clean_tree(args)
        return args

    def _executor(self, args: Namespace) -> Executor:
        asked = {name: getattr(args, name) for name in SLURM_DEFAULTS if getattr(args, name) is not None}
        if asked and args.executor == "local":
            self.error(f"argument --{next(iter(asked))}: only with --executor slurm")
        if args.executor == "slurm" and not find_spec("submitit"):
            raise CommandError('--executor slurm needs submitit: pip install -e ".[cluster]"')
        if args.executor == "slurm" and not shutil.which("sbatch"):
            raise CommandError(
                "--executor slurm needs sbatch, which is not installed: run it where jobs can be submitted"
            )
        return Executor(args.executor, args.jobs, **asked)


def _changed(actions: list[Action], args: Namespace) -> dict[str, Any]:
    """Return the arguments that are not at their defaults."""
    values = {action.dest: getattr(args, action.dest) for action in actions}
    return {action.dest: values[action.dest] for action in actions if values[action.dest] != action.default}


def add_allow_dirty(parser: ArgumentParser) -> None:
    """Add the argument that `require_clean_tree` asks for."""
    parser.add_argument("--allow_dirty", action="store_true", help="write report/results/ from changed files too")


def require_clean_tree(args: Namespace) -> None:
    """Refuse to start what would write report/results/ in a working tree whose files differ from their commit.

    Raises:
        CommandError: a file is changed, and --allow_dirty was not given.
    """
    _, changed = working_tree()
    if changed and not args.allow_dirty:
        raise CommandError(
            f"{changed[0]} is not as committed, and results must name the commit they come from: commit it first, "
            "or add --allow_dirty"
        )


class FinishedRun(NamedTuple):
    """A run's folder, and the content of its result.json."""

    folder: Path
    result: dict[str, Any]

    @property
    def commit(self) -> str | None:
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["commit"]


def run_sweep(jobs: dict[Run, Job], args: Namespace) -> dict[Run, FinishedRun]:
    """Complete the runs of a sweep, with its settings; with --draw_only, return those that are finished.

    Of --add there may be no run left to do.

    Raises:
        CommandError: a run failed, or its folder holds a run with other arguments; with --draw_only, none is finished.
    """
    if not jobs:
        return {}
    jobs = {run: job.with_settings(args.settings) for run, job in jobs.items()}
    if args.draw_only:
        results = [finished_result(job) for job in jobs.values()]
    else:
        results = run_jobs(list(jobs.values()), args.executor)
    finished = {run: FinishedRun(jobs[run].run_dir, result) for run, result in zip(jobs, results) if result}
    if not finished:
        raise CommandError("no run of this sweep is finished: start it without --draw_only first")
    return finished


def run_jobs(jobs: list[Job], executor: Executor) -> list[dict[str, Any] | None]:
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


def write_results(name: str, rows: list[dict[str, Any]], folder: Path | None = None, **more_provenance: Any) -> Path:
    """Write <name>.csv, and <name>.json with the command, commit, versions and hardware behind it; return the former.

    The folder is report/results/ unless another is given.
    """
    path = (folder or RESULTS) / f"{name}.csv"
    text = json.dumps({**provenance(), **more_provenance}, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(path.with_suffix(".json"), text.encode())
    return path


def read_results(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """Return the rows of <name>.csv in report/results/ or another folder, with numbers as int and float.

    Raises:
        CommandError: the experiment has not been run, or its file is empty.
    """
    path = (folder or RESULTS) / f"{name}.csv"
    if not path.exists():
        raise CommandError(f"{short_path(path)} does not exist: run the experiment without --draw_only first")
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]
    if not rows:
        raise CommandError(f"{short_path(path)} holds no results: run the experiment without --draw_only again")
    return rows


def rows_to_keep(name: str, args: Namespace) -> list[dict[str, Any]]:
    """Return the committed rows of <name>.csv, beside which --add puts others; none without it, or at first."""
    return read_results(name) if args.add and (args.results / f"{name}.csv").exists() else []


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
