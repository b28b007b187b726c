"""A run is a folder: config.json, metrics.csv, TensorBoard events, checkpoint.pt, result.json and a plot of its curves.

The checkpoint decides where a run is. It is replaced atomically, and a resumed run drops what the logs hold beyond it,
so that a run that was killed at any moment ends with the same folder as one that was not. The one before it is kept, in
case the file gets damaged. One process at a time has the folder (the file .lock), and a new run wants an empty one. If
several processes train together, only process 0 opens, reads and writes the folder.
"""

import csv
import errno
import io
import json
import os
import platform
import shlex
import shutil
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from common.command import program
from common.data import check_replaceable, load_tensors, save_tensors, write_atomically
from common.distributed import (
    broadcast_from_rank_zero,
    launcher,
    rank_zero_only,
    store_run_folder,
    stored_run_folder,
)
from common.errors import CommandError, InputError
from common.machine import provenance
from common.paths import ROOT, readable, short_path

# Arguments that may differ when a run is resumed, since none of them changes a step. (A data folder may have moved; the
# script itself must check that its content is still the same.)
FREE_ARGUMENTS = {"run_dir", "resume", "device", "data_dir"}
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system says that has none
CHECKPOINT, PREVIOUS, LOCK = "checkpoint.pt", "checkpoint.previous.pt", ".lock"


class RunFolder:
    """The folder of a new or resumed run. The constructor finds it and reads its checkpoint; `with` makes it.

    Args:
        args: the script's arguments. `run_dir` is the folder (None: a free one of this name in the repository, below
            runs/ and the script's own folder); `resume` asks for the run that is there.
        script: the script that trains, as in "part1/train.py".
        name: what it trains.
        columns: the columns of metrics.csv after "step".
        free_arguments: the script's own arguments that may differ when the run is resumed.

    Attributes:
        path: the folder.
        columns: all columns of metrics.csv.
        arguments: the arguments that may not differ when the run is resumed.
        checkpoint: the content of checkpoint.pt if the run is resumed, else None.
        metadata: constants for config.json (so JSON must be able to hold them) and every checkpoint; to be set before
            the `with` block.
        saved_step: the step of checkpoint.pt; 0 before the first checkpoint.

    Raises:
        CommandError: the folder holds another run or anything else, nothing that can be resumed, or a run that another
            process trains.
    """

    def __init__(
        self,
        args: Namespace,
        script: str,
        name: str,
        columns: tuple[str, ...],
        free_arguments: tuple[str, ...] = (),
    ):
        self.script = script
        name = f"{Path(script).parent}/{name}"
        free = FREE_ARGUMENTS.union(free_arguments)
        self._all_arguments = vars(args)
        self.arguments = {key: value for key, value in self._all_arguments.items() if key not in free}
        self.columns = ("step", *columns)
        self.metadata: dict[str, Any] = {}
        self.path, self.checkpoint = broadcast_from_rank_zero(lambda: self._find(args.run_dir, args.resume, name))
        self.saved_step = self.checkpoint["step"] if self.checkpoint else 0
        self._num_rows = 0  # of metrics.csv

    def __str__(self) -> str:
        return short_path(self.path)

    def __enter__(self) -> "RunFolder":
        self._open()
        return self

    @rank_zero_only
    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._file.close()
            self._tensorboard.close()
        except OSError as closing_error:
            error = error or closing_error
        self._lock.release()
        if isinstance(error, OSError):
            kept = "no checkpoint had been written yet"
            if self.saved_step:
                kept = f"the checkpoint of step {self.saved_step:,} is whole, --resume goes on from it"
            where = error.filename or self.path
            raise CommandError(f"{short_path(where)} cannot be written: {error.strerror or error}; {kept}") from None

    def recorded(self, name: str) -> Any:
        """Return the checkpoint's entry `name` if the run is resumed and has it; else None."""
        return self.checkpoint.get(name) if self.checkpoint else None

    def keep(self, name: str, value: Any) -> Any:
        """Record a constant in `metadata` and return it: `value`, or what a resumed run was begun with.

        For what must not change when a run goes on: the data's checksum, or a default that is a share of `train_steps`.
        """
        self.metadata[name] = value if self.recorded(name) is None else self.recorded(name)
        return self.metadata[name]

    @rank_zero_only
    def log(self, step: int, **values: float) -> None:
        """Add one row to metrics.csv and to TensorBoard; columns without a value stay empty."""
        self._writer.writerow({"step": step, **{name: repr(value) for name, value in values.items()}})
        self._num_rows += 1
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    @rank_zero_only
    def log_text(self, step: int, tag: str, text: str) -> None:
        """Add a Markdown text to TensorBoard."""
        self._tensorboard.add_text(tag, text, step)

    @rank_zero_only
    def log_embedding(self, step: int, vectors: Tensor, names: list[str]) -> None:
        """Add (K, d) vectors and their K names to TensorBoard's projector."""
        shutil.rmtree(self.path / f"{step:05d}", ignore_errors=True)  # left behind by a run that was killed here
        self._tensorboard.add_embedding(vectors, names, global_step=step)

    def save_checkpoint(self, step: int, **state: Any) -> None:
        """Replace checkpoint.pt once the logs up to this step are on disk; all processes wait until it is written."""

        def write() -> int:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._tensorboard.flush()
            content = {"metrics_rows": self._num_rows, **state}
            if (self.path / CHECKPOINT).exists():
                os.replace(self.path / CHECKPOINT, self.path / PREVIOUS)  # a kill here is resumed from it
            self._write_state(CHECKPOINT, step, content)
            return step

        self.saved_step = broadcast_from_rank_zero(write)

    @rank_zero_only
    def save_best(self, step: int, **state: Any) -> None:
        """Replace best.pt, for scripts whose last weights need not be their best."""
        self._write_state("best.pt", step, state)

    def load_best(self) -> dict[str, Any]:
        """Return the content of best.pt."""
        return broadcast_from_rank_zero(lambda: load_checkpoint(self.path / "best.pt"))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, which marks the run as finished."""
        self.write_json("result.json", result)

    @rank_zero_only
    def write_json(self, name: str, content: Any) -> None:
        """Replace the file `name` of the folder."""
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # File names may hold bytes that are no text, which JSON writes with a backslash.
        write_atomically(self.path / name, text.encode(errors="backslashreplace"))

    def read_metrics(self) -> dict[str, list[tuple[int, float]]]:
        """Return the (step, value) pairs of every column of metrics.csv."""
        self._file.flush()
        return read_metrics(self.path / "metrics.csv")

    @rank_zero_only
    def draw_curves(self, held_out: str, last_step: int | None = None, noise: str | None = None) -> None:
        """Draw curves.png and curves.pdf, up to a step; see `common.figure.draw_curves` for the other arguments."""
        from common.figure import draw_curves  # Matplotlib takes a second to import

        metrics = self.read_metrics()
        if last_step is not None:
            for name, pairs in metrics.items():
                metrics[name] = [(step, value) for step, value in pairs if step <= last_step]
        draw_curves(metrics, held_out, self.path / "curves", noise)

    def resume_command(self) -> str:
        """Return the command line that continues this run."""
        words = [word for word in [*program(), *sys.argv[1:]] if word != "--resume"]
        if not any(word.split("=")[0] in ("--run_dir", "--summary_path") for word in words):
            words += ["--run_dir", str(self)]
        return " ".join([launcher(), *map(shlex.quote, words), "--resume"])

    @rank_zero_only
    def _open(self) -> None:
        if not self._resume:
            try:
                self.path.mkdir(parents=True, exist_ok=not self._path_was_free)
            except FileExistsError:
                raise CommandError(f"another run has taken {self} in the meantime: start this one again") from None
            self._take_lock()
            self._check_empty()  # again: another run may have come and gone
        store_run_folder(self.path)
        (self.path / "result.json").unlink(missing_ok=True)  # a resumed run is not finished
        if not self.checkpoint:
            config = {"script": self.script, "arguments": self._all_arguments, **self.metadata, **provenance()}
            self.write_json("config.json", config)
        self._open_logs(self.saved_step)

    def _find(self, run_dir: str | None, resume: bool, name: str) -> tuple[Path, dict[str, Any] | None]:
        """Choose the folder; return it and the checkpoint to continue from."""
        if stored := stored_run_folder():  # torchrun replaces a lost process of this run
            run_dir, resume = stored, True
        self._resume = resume
        self.path = Path(run_dir) if run_dir else _default_path(name, resume)
        self._path_was_free = not (resume or run_dir)
        try:
            os.path.abspath(self.path).encode()
        except UnicodeEncodeError:
            raise CommandError(f"{self} cannot be a run folder: TensorBoard wants a name in UTF-8") from None
        if resume:
            return self.path, self._load_checkpoint()
        if run_dir:
            self._check_empty()
        return self.path, None

    def _check_empty(self) -> None:
        """Raise a CommandError where a new run would find something in its folder."""
        if self.path.exists() and not self.path.is_dir():
            raise CommandError(f"{self} is no folder: choose another --run_dir")
        found = sorted(path.name for path in self.path.iterdir() if path.name != LOCK) if self.path.is_dir() else []
        if found and (CHECKPOINT in found or _was_begun(self.path)):
            raise CommandError(f"{self} already holds a run: add --resume to continue it, or choose another --run_dir")
        if found:
            raise CommandError(f"{self} is not empty (it holds {readable(found[0])}): choose another --run_dir")

    def _take_lock(self) -> None:
        """Lock the folder until the block, or the process, has ended; on a file system without locks do nothing.

        Raises:
            CommandError: another process has it.
        """
        path = self.path / LOCK
        check_replaceable(path)
        holder = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
        self._lock = FileLock(path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            path.write_text(f"{holder}\n", encoding="utf-8")  # filelock before version 4 has emptied it
            in_use = f"{self} is in use by {holder or 'another process'}"
            raise CommandError(f"{in_use}: wait until that has ended, or choose another --run_dir") from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
        path.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")

    def _load_checkpoint(self) -> dict[str, Any] | None:
        path, previous = self.path / CHECKPOINT, self.path / PREVIOUS
        found = path.exists() or previous.exists()
        if not found and not (self.path.is_dir() and _was_begun(self.path)):
            raise CommandError(f"{self} holds no run that could be resumed: start one without --resume")
        self._take_lock()
        if not found:
            return None  # killed before its first checkpoint: start again
        try:
            checkpoint = load_checkpoint(path if path.exists() else previous)
        except InputError as error:
            if not path.exists() or not previous.exists():
                raise
            raise CommandError(
                f"{error}; the checkpoint before it is kept: delete {short_path(path)}, and --resume goes on from that"
            ) from None
        if "state" not in checkpoint:
            raise CommandError(f"{self} holds a run of an earlier version, which cannot be resumed: start a new one")
        if checkpoint.get("script", self.script) != self.script:
            raise CommandError(f"{self} holds a run of {checkpoint['script']}, not of {self.script}")
        theirs = checkpoint["arguments"]
        for key in sorted(theirs.keys() | self.arguments.keys()):
            then, now = theirs.get(key), self.arguments.get(key)
            if then != now:
                trained = f"without --{key}, not with" if then is None else f"with --{key} {then}, not"
                raise CommandError(
                    f"{self} was trained {trained} {'without' if now is None else now}: "
                    "resume it with its own arguments, or choose another --run_dir"
                )
        return checkpoint

    def _write_state(self, name: str, step: int, state: dict[str, Any]) -> None:
        about = {"script": self.script, "step": step, "arguments": self.arguments}
        save_tensors(self.path / name, {**about, **self.metadata, **state})

    def _open_logs(self, last_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        path = self.path / "metrics.csv"
        check_replaceable(path)
        rows = [row for row in _whole_rows(path, self.columns) if int(row["step"]) <= last_step] if last_step else []
        self._num_rows = len(rows)
        if (lost := (self.recorded("metrics_rows") or 0) - len(rows)) > 0:
            print(f"{short_path(path)} has lost {lost:,} rows: the curves will have gaps", file=sys.stderr)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue().encode())
        self._file = open(path, "a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, self.columns)
        self._wait_for_a_later_second()
        self._tensorboard = SummaryWriter(str(self.path), purge_step=last_step + 1)

    def _wait_for_a_later_second(self) -> None:
        """TensorBoard reads event files in the order of their names, which begin with the second of their creation."""
        seconds = {file.name.split(".")[3] for file in self.path.glob("events.out.tfevents.*")}
        while str(int(time.time())) in seconds:
            time.sleep(0.02)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Raises:
        ValueError: the file is damaged, or not a checkpoint of this project.
    """
    try:
        checkpoint = load_tensors(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises many types for damaged and foreign files
        raise InputError(f"{short_path(path)} is damaged or not a checkpoint ({type(error).__name__})") from None
    kinds = {"step": int, "arguments": dict}
    is_ours = isinstance(checkpoint, dict) and all(type(checkpoint.get(key)) is kind for key, kind in kinds.items())
    if not is_ours or checkpoint["step"] < 0 or not all(isinstance(name, str) for name in checkpoint["arguments"]):
        raise InputError(f"{short_path(path)} is not a checkpoint of this project")
    return checkpoint


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) pairs of every column of a metrics.csv."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        pairs: dict[str, list[tuple[int, float]]] = {name: [] for name in reader.fieldnames or () if name != "step"}
        for row in reader:
            for name in pairs:
                if row[name]:
                    pairs[name].append((int(row["step"]), float(row[name])))
    return pairs


def _whole_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv of which nothing is missing; a kill, or a hand, may have cut one."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(line.replace("\0", "") for line in file))
    whole = [row for row in rows[1:] if len(row) == len(columns) and row[0].isdecimal() and all(map(_is_value, row))]
    return [dict(zip(columns, row)) for row in whole] if rows and rows[0] == list(columns) else []


def _is_value(text: str) -> bool:
    """Whether this can stand in a metrics.csv: a number, or nothing."""
    with suppress(ValueError):
        float(text or 0)
        return True
    return False


def _was_begun(path: Path) -> bool:
    """Return whether a run was begun in a folder without a checkpoint: it has our config.json or no finished file."""
    config = path / "config.json"
    if not config.exists():
        return all(file.match(".*.tmp") or file.name == LOCK for file in path.iterdir())
    try:
        return {"arguments", "command"} <= json.loads(config.read_text(encoding="utf-8")).keys()
    except (ValueError, AttributeError):  # not JSON, or not a dictionary
        return False


def _default_path(name: str, resume: bool) -> Path:
    """Return the last existing `runs/<name>[-k]` to resume, or the first free one for a new run."""
    path, last = ROOT / "runs" / name, None
    number = 1
    while path.exists():
        last = path
        number += 1
        path = ROOT / "runs" / f"{name}-{number}"
    if not resume:
        return path
    if last is None:
        raise CommandError(f"{short_path(path)} does not exist: there is no run to resume")
    return last
