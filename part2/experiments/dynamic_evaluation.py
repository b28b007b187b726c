"""What a model gains by learning from a text while it is scored on it (Krause et al. 2018), and loses in cold windows.

    python -m part2.experiments.dynamic_evaluation --jobs 2

Two texts: the tales, with the model of `grimm.py` (train.py's defaults), and Tiny Shakespeare, with the larger one of
`shakespeare.py`; runs that are finished are not repeated. Rate and piece are chosen on validation text, the last tenth
of the training part, with a model that has been trained on the nine tenths before it. With this choice the held-out
tenth is read, once, by the model that was trained on the whole training part. Results, each a CSV under report/results/
with a .json beside it:

* part2_dynamic_evaluation: nats a held-out character: with the state carried through the whole text (static), in cold
  windows of 256 characters, as nanoGPT evaluates, and by dynamic evaluation.
* part2_dynamic_evaluation_choice: nats a validation character, of each rate and piece; rate 0 is static.
"""

import copy
from argparse import Namespace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.command import positive_int, run_command
from common.data import write_atomically
from common.errors import CommandError
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from part2.dataset import HELD_OUT, Corpus, decode, find_text
from part2.download import save_book
from part2.dynamic_evaluation import EPSILON, WINDOW, cold_losses, dynamic_losses, mean_square_gradients, static_losses
from part2.experiments import grimm, shakespeare
from part2.model import TextGenerationModel, load_model

NAME = "part2_dynamic_evaluation"
RUNS = ROOT / "runs" / "part2" / "dynamic_evaluation"
TEXTS = ("tales", "shakespeare")
RATES, PIECES = (3e-5, 1e-4, 3e-4), (20, 100)
DECAY = 1e-3


class Reader(NamedTuple):
    """A trained model, the text it was trained on, and what was held out, with the character before it."""

    model: TextGenerationModel
    training: Tensor
    held_out: Tensor


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        measure(args)
    for row in read_results(NAME, args.results):
        setting = f" (rate {row['rate']:g}, pieces of {row['piece']})" if row["evaluation"] == "dynamic" else ""
        print(f"{row['text']}, {row['evaluation']}{setting}: {row['held_out_loss']:.4f} nats a character")
    print(f"results: {short_path(args.results / NAME)}*.csv")


def measure(args: Namespace) -> None:
    """Run what is not finished yet, choose the setting, read the held-out texts, and write the results."""
    jobs = {(text, part): job for text in args.texts for part, job in training_jobs(text, args).items()}
    folders = {run: folder for run, (folder, _) in run_sweep(jobs, args).items()}
    if missing := [short_path(jobs[run].run_dir) for run in jobs if run not in folders]:
        raise CommandError(f"the run in {missing[0]} is not finished: start this without --draw_only first")
    rows, choices = [], []
    for text in args.texts:
        grid = choice(reader(folders[text, "validation"], jobs[text, "validation"].arguments["txt_file"]), text)
        best = min(grid, key=lambda row: float(row["validation_loss"]))
        whole = reader(folders[text, "held out"], jobs[text, "held out"].arguments["txt_file"])
        rows += evaluations(whole, text, best["rate"], best["piece"])
        choices += grid
    provenance = {"seeds": [0], "decay": DECAY, "epsilon": EPSILON}
    write_results(NAME, rows, args.results, **provenance)
    write_results(f"{NAME}_choice", choices, args.results, **provenance)


def training_jobs(text: str, args: Namespace) -> dict[str, Job]:
    """Return the run on the whole training part, and that on its first nine tenths, by what is held out."""
    if text == "tales":
        job = grimm.training_job("default", 0, args)
    else:
        job = shakespeare.training_job("30 minutes", save_book("shakespeare"))
    part = write_training_part(find_text(job.arguments["txt_file"]), RUNS / f"{text}.txt")
    validation = job._replace(run_dir=RUNS / text, arguments={**job.arguments, "txt_file": str(part)})
    return {"validation": validation, "held out": job}


def write_training_part(text: Path, path: Path) -> Path:
    """Write what training reads of a text, which is all but its last tenth, to `path`; return that."""
    corpus = Corpus(text, HELD_OUT)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, decode(corpus.tokens[: corpus.num_train], corpus.vocabulary).encode())
    return path


def reader(folder: Path, text: str) -> Reader:
    """Return the model of a run and both parts of its text, (N,) character numbers each."""
    corpus = Corpus(find_text(text), HELD_OUT)
    training, held_out = corpus.tokens[: corpus.num_train].astype(np.int64), corpus.tail.astype(np.int64)
    return Reader(load_model(folder)[0], torch.from_numpy(training), torch.from_numpy(held_out))


def choice(reader: Reader, text: str) -> list[dict[str, Any]]:
    """Return one row for each rate and piece, and one without learning."""
    model, training, validation = reader
    mean_squares = mean_square_gradients(model, training)
    rows = [row_of(text, 0, PIECES[-1], validation_loss=static_losses(model, validation))]
    for rate, piece in product(RATES, PIECES):
        losses = dynamic_losses(copy.deepcopy(model), validation, mean_squares, rate, DECAY, piece)
        rows.append(row_of(text, rate, piece, validation_loss=losses))
    return rows


def evaluations(reader: Reader, text: str, rate: float, piece: int) -> list[dict[str, Any]]:
    """Return one row for each way of reading the held-out text."""
    model, training, held_out = reader
    mean_squares = mean_square_gradients(model, training)
    ways = {"static": static_losses(model, held_out), f"cold windows of {WINDOW}": cold_losses(model, held_out)}
    rows = [row_of(text, "", "", evaluation=way, held_out_loss=losses) for way, losses in ways.items()]
    losses = dynamic_losses(copy.deepcopy(model), held_out, mean_squares, rate, DECAY, piece)
    return [*rows, row_of(text, rate, piece, evaluation="dynamic", held_out_loss=losses)]


def row_of(text: str, rate: float | str, piece: int | str, **more: str | Tensor) -> dict[str, Any]:
    """Return a row of a table; of losses their mean."""
    means = {name: f"{value.mean():.5f}" if isinstance(value, Tensor) else value for name, value in more.items()}
    return {"text": text, "rate": rate, "piece": piece, **means}


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part2/dynamic_evaluation")
    parser.add_selection("--texts", TEXTS, "which texts", choices=TEXTS)
    parser.add_setting("--train_steps", type=positive_int, help="number of steps (default: those of the two studies)")
    return parser


if __name__ == "__main__":
    run_command(main)
