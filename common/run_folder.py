"""A run is a folder: config.json, metrics.csv, TensorBoard events, checkpoint.pt, result.json and a figure of its curves.

The checkpoint is the truth. It is replaced atomically, and on resume whatever the logs say about later steps is dropped, so
a run that is killed at any moment leaves the same folder in the end as one that was not. Of several processes that train
together the first alone opens, reads and writes it.
"""

import csv
import io
import json
import os
import shlex
import shutil
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.distributed import by_first, from_first, launcher, remember_run, remembered_run
from common.errors import CommandError
from common.machine import ROOT, provenance, short_path

# Arguments that may differ between a run and its resumption: none of them changes a step. (A text or data folder may have
# moved; whether its content is still the same, the part itself must check.)
FREE_ARGUMENTS = {
    "run_dir",
    "resume",
    "device",
    "train_steps",
    "num_epochs",
    "runs",
    "txt_file",
    "poems",
    "smiles_csv",
    "data_dir",
}


class RunFolder:
    """One run's folder, new or resumed.

    Args:
        args: the script's arguments; reads `run_dir` (None chooses a free `runs/<name>` under the repository) and `resume`.
        name: "<part>/<what it trains>".
        columns: of metrics.csv, after "step".

    Attributes:
        path: the folder.
        checkpoint: what `save_checkpoint` was given last, for a resumed run; else None.
        saved_step: the step of checkpoint.pt, 0 while there is none.

    Raises:
        CommandError: the folder holds another run, or nothing that can be resumed.
    """

    def __init__(self, args: Namespace, name: str, columns: tuple[str, ...]):
        self.arguments = {key: value for key, value in vars(args).items() if key not in FREE_ARGUMENTS}
        self.columns = ("step", *columns)
        self.path, self.checkpoint = from_first(lambda: self._open(args, name))
        self.saved_step = self.checkpoint["step"] if self.checkpoint else 0

    def __str__(self) -> str:
        return short_path(self.path)

    def __enter__(self) -> "RunFolder":
        return self

    @by_first
    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._file.close()
            self._tensorboard.close()
        except OSError as closing_error:
            error = error or closing_error
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise CommandError(
                f"{self} cannot be written: {reason}; its last checkpoint is whole, --resume goes on from it"
            ) from None

    @by_first
    def log(self, step: int, **values: float) -> None:
        """Add one row to metrics.csv and to TensorBoard; a column that is not given stays empty."""
        self._writer.writerow({"step": step, **{name: repr(value) for name, value in values.items()}})
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    @by_first
    def log_text(self, step: int, tag: str, text: str) -> None:
        """Add a text, in Markdown, to TensorBoard."""
        self._tensorboard.add_text(tag, text, step)

    @by_first
    def log_embedding(self, step: int, vectors: Tensor, names: list[str]) -> None:
        """Add (K, d) vectors and their K names to TensorBoard's projector."""
        shutil.rmtree(self.path / f"{step:05d}", ignore_errors=True)  # what a run that was killed here has left
        self._tensorboard.add_embedding(vectors, names, global_step=step)

    def save_checkpoint(self, step: int, **state: Any) -> None:
        """Replace checkpoint.pt, after the logs up to this step are on disk; no process goes on before that."""

        def write() -> int:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._tensorboard.flush()
            self._write_state("checkpoint.pt", step, state)
            return step

        self.saved_step = from_first(write)

    @by_first
    def save_best(self, step: int, **state: Any) -> None:
        """Replace best.pt: what later work loads, where the last weights are not the best."""
        self._write_state("best.pt", step, state)

    def load_best(self) -> dict[str, Any]:
        """Return what `save_best` was given last."""
        return from_first(lambda: load_checkpoint(self.path / "best.pt"))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json; its presence says that the run is finished."""
        self.write_json("result.json", result)

    @by_first
    def write_json(self, name: str, content: Any) -> None:
        """Replace a file of the folder."""
        write_atomically(self.path / name, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def diverged(self, step: int, reason: str) -> CommandError:
        """Return the error that ends a run whose loss is no number any more."""
        kept = f"the checkpoint of step {self.saved_step:,} in {self} is kept"
        kept = kept if self.saved_step else "no checkpoint had been written yet"
        return CommandError(f"training diverged at step {step:,}: {reason}; {kept}; try a lower --learning_rate", exit_code=1)

    def read_metrics(self) -> dict[str, list[tuple[int, float]]]:
        """Return the (step, value) pairs of every column of metrics.csv."""
        self._file.flush()
        return read_metrics(self.path / "metrics.csv")

    def resume_command(self) -> str:
        """Return the command line that continues this run."""
        words = [word for word in sys.argv if word != "--resume"]
        if not any(word.split("=")[0] in ("--run_dir", "--summary_path") for word in words):
            words += ["--run_dir", str(self)]
        return " ".join([launcher(), *map(shlex.quote, words), "--resume"])

    def _open(self, args: Namespace, name: str) -> tuple[Path, dict[str, Any] | None]:
        """Choose and prepare the folder; return it, and the checkpoint to go on from."""
        remembered = remembered_run()
        resume, run_dir = args.resume or bool(remembered), remembered or args.run_dir
        self.path = Path(run_dir) if run_dir else _default_path(name, resume)
        checkpoint = self._load_checkpoint() if resume else None
        if not resume and (self.path / "checkpoint.pt").exists():
            raise CommandError(f"{self} already holds a run: add --resume to continue it, or choose another --run_dir")
        self.path.mkdir(parents=True, exist_ok=True)
        remember_run(self.path)
        (self.path / "result.json").unlink(missing_ok=True)  # what a resumed run adds comes before its result
        if not checkpoint:
            self.write_json("config.json", {"arguments": vars(args), **provenance()})
        self._open_logs(checkpoint["step"] if checkpoint else 0)
        return self.path, checkpoint

    def _load_checkpoint(self) -> dict[str, Any] | None:
        path = self.path / "checkpoint.pt"
        if not path.exists():
            ours = [".*.tmp", "config.json", "metrics.csv", "events.out.tfevents.*", "samples.json", "best.pt"]
            if self.path.is_dir() and all(any(file.match(pattern) for pattern in ours) for file in self.path.iterdir()):
                return None  # killed before its first checkpoint: start again
            raise CommandError(f"{self} holds no run that could be resumed: leave --resume away to start one")
        checkpoint = load_checkpoint(path)
        theirs = checkpoint["arguments"]
        for key in sorted(theirs.keys() | self.arguments.keys()):
            if theirs.get(key) != self.arguments.get(key):
                raise CommandError(
                    f"{self} was trained with --{key} {theirs.get(key)}, not {self.arguments.get(key)}: "
                    "resume it with its own arguments, or choose another --run_dir"
                )
        return checkpoint

    def _write_state(self, name: str, step: int, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({"step": step, "arguments": self.arguments, **state}, buffer)
        write_atomically(self.path / name, buffer.getvalue())

    def _open_logs(self, last_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of import time, needed only once a run starts

        path = self.path / "metrics.csv"
        rows = []
        if last_step:
            with open(path, newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= last_step]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue().encode())
        self._file = open(path, "a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, self.columns)
        self._tensorboard = SummaryWriter(str(self.path), purge_step=last_step + 1)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's contents, on the CPU.

    Raises:
        CommandError: the file is damaged, or not a checkpoint of this project.
    """
    content = path.read_bytes()
    try:
        if bad := zipfile.ZipFile(io.BytesIO(content)).testzip():  # torch.load itself does not compare the checksums
            raise ValueError(f"checksum of {bad}")
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged and foreign files
        raise CommandError(f"{short_path(path)} is damaged or not a checkpoint ({type(error).__name__})") from None
    if not isinstance(checkpoint, dict) or not {"step", "arguments"} <= checkpoint.keys():
        raise CommandError(f"{short_path(path)} is not a checkpoint of this project")
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


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one move: whatever happens, `path` holds either its old or its new content."""
    temporary = path.with_name(f".{path.name}.tmp")  # a fixed name: what a kill leaves behind, the next write replaces
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _default_path(name: str, resume: bool) -> Path:
    """Return the last existing `runs/<name>[-k]` to resume, or the first free one for a new run."""
    path, last, k = ROOT / "runs" / name, None, 1
    while path.exists():
        last, k = path, k + 1
        path = ROOT / "runs" / f"{name}-{k}"
    if not resume:
        return path
    if last is None:
        raise CommandError(f"{short_path(path)} does not exist: there is no run to resume")
    return last
