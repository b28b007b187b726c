"""What other methods reach on the texts of our LSTM, on the same splits.

    python -m part2.experiments.references

The tales, Tiny Shakespeare and the Tang poems; nats a character of the held-out tenth. Beside the LSTM's numbers, which
are those of the committed results:

* an n-gram model with modified Kneser-Ney smoothing (`part2/ngrams.py`).
* two compressors: by how much the held-out text lengthens the compressed training text. Both learn from the held-out
  text as they go on, and code every character, the first of a poem too. PPM needs `pip install -e ".[references]"`.
* a Transformer (`transformer.py`) with no more parameters than the LSTM, trained with the same optimizer on windows of
  the same length for the same time; one run after the other, each on all cores. As with the LSTM, the loss is the
  lowest of those that were measured during the training.

Orders and the Transformer's learning rate are chosen on validation text, the last tenth of the training part (of the
poems any tenth), after training on the rest; each rate is tried for a quarter of the time. The result is
report/results/part2_references.csv.
"""

import json
import lzma
import math
from argparse import Namespace
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from common.command import positive_float, run_command
from common.data import write_atomically
from common.errors import CommandError
from common.experiment import RESULTS, ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from part2.dataset import HELD_OUT, IGNORED, Corpus, decode, find_text
from part2.download import save_book
from part2.experiments.dynamic_evaluation import write_training_part
from part2.experiments.shakespeare import LARGE, SETTINGS
from part2.model import TextGenerationModel
from part2.ngrams import KneserNey
from part2.poems import END, PoemCorpus, read_poems, split_poems

NAME = "part2_references"
RUNS = ROOT / "runs" / "part2" / "references"
METHODS = ("lstm", "transformer", "kneser-ney", "ppm", "xz")
ORDERS: dict[str, Iterable[int]] = {"kneser-ney": range(2, 11), "ppm": (3, 4, 5, 6, 7, 8, 10, 12, 16)}
RATES, SHARE = (1e-3, 2e-3, 4e-3, 8e-3), 1 / 4  # of the time, for each rate
# The LSTM's sizes, and what the Transformer shares with it; of the tales and the poems the defaults of train.py
LSTMS: dict[str, dict[str, Any]] = {
    "tales": {"embedding_size": 64, "lstm_hidden_dim": 128, "lstm_num_layers": 2},
    "shakespeare": {
        "embedding_size": SETTINGS["embedding_size"],
        "lstm_hidden_dim": SETTINGS["lstm_hidden_dim"],
        "lstm_num_layers": LARGE["lstm_num_layers"],
    },
    "tang": {"embedding_size": 128, "lstm_hidden_dim": 256, "lstm_num_layers": 1},
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "tales": {"seq_length": 30, "batch_size": 64, "max_norm": 5.0, "seed": 0},
    "shakespeare": {
        **{name: SETTINGS[name] for name in ("seq_length", "max_norm", "precision", "seed")},
        "batch_size": LARGE["batch_size"],
        "dropout": 0.1,  # the library's default
    },
    "tang": {"seq_length": 50, "batch_size": 256, "max_norm": 5.0, "precision": "bf16", "seed": 0},
}


class Split(NamedTuple):
    """A text as character numbers, (N,), of which the first `num_train` are trained on.

    scored: (N - num_train,) whether each of the others counts; the first character of a poem does not.
    """

    tokens: np.ndarray
    num_train: int
    scored: np.ndarray
    vocabulary: str


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        measure(args)
    for row in read_results(NAME, args.results):
        print(f"{row['text']}, {row['method']} ({row['setting']}): {row['held_out_loss']:.4f} nats a character")
    print(f"results: {short_path(args.results / NAME)}.csv")


def measure(args: Namespace) -> None:
    """Write the results of every method on every text."""
    if "ppm" in args.methods and not find_spec("pyppmd"):
        raise CommandError('the method ppm needs pyppmd: pip install -e ".[references]"')
    rows = []
    for text in args.texts:
        validation, whole = training_source(text), source(text)
        splits = split(validation), split(whole)
        num_parameters = lstm_parameters(text, len(splits[1].vocabulary))
        for method in args.methods:
            if method == "lstm":
                row = {**lstm(text), "num_parameters": num_parameters}
            elif method == "transformer":
                row = transformer(text, validation, whole, num_parameters, args)
            elif method == "kneser-ney":
                row = best_order(text, method, kneser_ney, *splits)
            elif method == "ppm":
                row = best_order(text, method, ppm, *splits)
            else:
                row = {"setting": "preset 9e", "held_out_loss": compressed(splits[1], xz)}
            row["held_out_loss"] = f"{row['held_out_loss']:.5f}"
            rows.append({"text": text, "method": method, "minutes": "", "num_parameters": "", **row})
    write_results(NAME, rows, args.results, seeds=[0], learning_rates=RATES)


def source(text: str) -> dict[str, str]:
    """Return a text's argument for the training scripts."""
    if text == "tang":
        return {"poems": "tang"}
    return {"txt_file": "assets/grimm.txt" if text == "tales" else str(save_book("shakespeare"))}


def training_source(text: str) -> dict[str, str]:
    """Write the training part of a text to a file; return that as the training scripts' argument."""
    if text == "tang":
        return {"poems": str(write_training_poems(source(text)["poems"], RUNS / "tang.json"))}
    return {"txt_file": str(write_training_part(find_text(source(text)["txt_file"]), RUNS / f"{text}.txt"))}


def write_training_poems(name: str, path: Path) -> Path:
    """Write the training poems of a collection to `path`; return that."""
    content = [{"paragraphs": [poem]} for poem in split_poems(read_poems(name), seed=0)[0]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, ensure_ascii=False).encode())
    return path


def split(source: dict[str, str]) -> Split:
    """Return a text as the training scripts split it; poems stand one after the other, each ended by END."""
    if "txt_file" in source:
        book = Corpus(find_text(source["txt_file"]), HELD_OUT)
        return Split(book.tokens, book.num_train, np.full(book.size - book.num_train, True), book.vocabulary)
    poems = PoemCorpus(source["poems"], TRANSFORMERS["tang"]["seq_length"])
    end = poems.vocabulary.index(END)
    (train, _), (held_out, scored) = (joined(rows, end) for rows in (poems.train, poems.held_out))
    return Split(np.concatenate([train, held_out]), len(train), scored, poems.vocabulary)


def joined(rows: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return poems, one a row, as one sequence, and which of its characters are predicted.

    Those are all but each poem's first, and the END that a poem gets here which was cut before its own.
    """
    was_cut = (rows[:, -1:] != IGNORED) & (rows[:, -1:] != end)
    rows = np.concatenate([rows, np.where(was_cut, end, IGNORED)], axis=1)
    scored = np.full(rows.shape, True)
    scored[:, [0, -1]] = False
    return rows[rows != IGNORED], scored[rows != IGNORED]


def best_order(
    text: str, method: str, loss: Callable[[Split, int], float], validation: Split, held_out: Split
) -> dict[str, Any]:
    """Return the held-out loss of the order that has the lowest on the validation text."""
    orders = tqdm(ORDERS[method], desc=f"{text}: {method}", unit="order", disable=None)
    losses = {order: loss(validation, order) for order in orders}
    best = min(losses, key=losses.__getitem__)
    return {"setting": f"order {best}", "held_out_loss": loss(held_out, best)}


def kneser_ney(split: Split, order: int) -> float:
    """Return the mean loss of an n-gram model, in nats a scored character."""
    model = KneserNey(split.tokens[: split.num_train], order, len(split.vocabulary))
    return float(model.losses(split.tokens, split.num_train)[split.scored].mean())


def ppm(split: Split, order: int) -> float:
    """Return what PPMd (variant I) makes of a text, in nats a character."""
    import pyppmd  # an extra of this repository

    return compressed(split, lambda content: pyppmd.compress(content, max_order=order, mem_size=2**28))


def xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def compressed(split: Split, compress: Callable[[bytes], bytes]) -> float:
    """Return by how much the held-out text lengthens the compressed training text, in nats a character."""
    text = decode(split.tokens, split.vocabulary)
    sizes = [len(compress(part.encode())) for part in (text, text[: split.num_train])]
    return (sizes[0] - sizes[1]) * 8 * math.log(2) / (len(text) - split.num_train)


def transformer(
    text: str, validation: dict[str, str], whole: dict[str, str], num_parameters: int, args: Namespace
) -> dict[str, Any]:
    """Return the loss of a Transformer at the learning rate that has the lowest on the validation text."""
    minutes = args.train_minutes or lstm(text)["minutes"]

    def job(name: str, source: dict[str, str], minutes: float, rate: float) -> Job:
        folder = RUNS / f"{text}_{name}_{rate:g}_{minutes:g}_minutes"
        arguments = {"num_parameters": num_parameters, "minutes": minutes, "learning_rate": rate}
        return Job("part2/experiments/transformer.py", folder, {**source, **TRANSFORMERS[text], **arguments})

    one_by_one = Namespace(**{**vars(args), "executor": args.executor._replace(jobs=1)})
    jobs = {rate: job("validation", validation, round(SHARE * minutes, 3), rate) for rate in RATES}
    tries = run_sweep(jobs, one_by_one)
    best = min(tries, key=lambda rate: tries[rate].result["held_out_loss"])
    result = run_sweep({best: job("held_out", whole, minutes, best)}, one_by_one)[best].result
    return {
        "setting": f"learning rate {best:g}",
        "held_out_loss": result["held_out_loss"],
        "minutes": round(result["seconds"] / 60, 2),
        "num_parameters": result["num_parameters"],
    }


def lstm(text: str) -> dict[str, Any]:
    """Return what the committed results say of our LSTM: of the tales the means over the seeds."""
    if text == "tales":
        rows = [row for row in read_results("part2_grimm_curves") if row["lstm_hidden_dim"] == 128]
        runs = [[row for row in rows if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in rows)]
        minutes = mean(max(row["seconds"] for row in run) for run in runs) / 60
        setting = f"mean of {len(runs)} runs"
    elif text == "shakespeare":
        runs = [[row for row in read_results("part2_shakespeare") if row["run"] == "30 minutes"]]
        minutes, setting = max(row["minutes"] for row in runs[0]), "two layers"
    else:
        runs, about = [read_results("part2_poems_tang")], (RESULTS / "part2_poems_tang.json").read_text("utf-8")
        minutes, setting = json.loads(about)["result"]["seconds"] / 60, "one layer"
    loss = mean(min(row["held_out_loss"] for row in run) for run in runs)
    return {"setting": setting, "held_out_loss": loss, "minutes": round(minutes, 2)}


def lstm_parameters(text: str, vocabulary_size: int) -> int:
    """Return the number of parameters of our LSTM for a text."""
    with torch.device("meta"):
        model = TextGenerationModel(Namespace(vocabulary_size=vocabulary_size, **LSTMS[text]))
    return sum(parameter.numel() for parameter in model.parameters())


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part2/references")
    parser.add_selection("--texts", tuple(LSTMS), "which texts", choices=tuple(LSTMS))
    parser.add_selection("--methods", METHODS, "which methods", choices=METHODS)
    minutes = "minutes of each Transformer (default: the LSTM's, as in its result)"
    parser.add_sweep_argument("--train_minutes", type=positive_float, help=minutes)
    return parser


if __name__ == "__main__":
    run_command(main)
