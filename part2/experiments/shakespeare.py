"""How low the held-out loss on tiny Shakespeare gets in 8 and in 30 minutes on two cores.

    python -m part2.experiments.shakespeare

The first 90 % of the characters are trained on, the last 10 % held out, as nanoGPT does (its README: 1.88 nats a
character in about three minutes of a laptop's processor, 1.4697 in about three minutes of an A100). Two runs of
`train.py`, one after the other so that each has both cores; time counts everything, evaluations and checkpoints
included. The result is report/results/part2_shakespeare.csv, and the figure of the same name.
part2_shakespeare_words.csv says what the words cost that occur in the held-out part only.
"""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, FinishedRun, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from common.run_folder import read_metrics
from part2.dataset import IGNORED, Corpus, held_out_batches
from part2.download import save_book
from part2.model import load_model

NAME = "part2_shakespeare"
SETTINGS: dict[str, Any] = {
    "stateful": True,
    "precision": "bf16",
    "embedding_size": 128,
    "lstm_hidden_dim": 512,
    "seq_length": 64,
    "schedule": "cosine",
    "max_norm": 1.0,
    "eval_every": 500,
    "seed": 0,
}
SMALL = {"lstm_num_layers": 1, "dropout_keep_prob": 0.6, "batch_size": 64, "learning_rate": 3e-3, "train_steps": 4_000}
LARGE = {"lstm_num_layers": 2, "dropout_keep_prob": 0.6, "batch_size": 64, "learning_rate": 2e-3, "train_steps": 3_500}
RUNS = {"8 minutes": SMALL, "30 minutes": LARGE}
MODELS = {"small": "8 minutes", "large": "30 minutes"}
NANOGPT = {"laptop": 1.88, "A100": 1.4697}  # nats a character, its README


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        text = save_book("shakespeare")
        runs = train_all(text, args)
        settings = {name: {**SETTINGS, **RUNS[name], **args.settings} for name in runs}
        write_results(NAME, curves(runs), args.results, seeds=[args.seed], settings=settings)
        write_results(f"{NAME}_words", costs_of_words(text, runs), args.results, seeds=[args.seed])
    rows = read_results(NAME, args.results)
    draw(rows, args.figures)
    for name in dict.fromkeys(row["run"] for row in rows):
        best = min((row for row in rows if row["run"] == name), key=lambda row: row["held_out_loss"])
        last = [row for row in rows if row["run"] == name][-1]
        print(f"{name}: {best['held_out_loss']:.4f} nats a character, {last['minutes']:.1f} minutes in all")
    for row in read_results(f"{NAME}_words", args.results):
        share = f"{row['share_of_characters']:.3f} of the characters, {row['loss']:.3f} nats each"
        print(f"{row['run']}, {row['words']}: {share}, {row['contribution']:.3f} of the loss")
    print(f"results and figure: {short_path(args.figures / NAME)}.pdf, {short_path(args.results / NAME)}.csv")


def train_all(text: Path, args: Namespace) -> dict[str, FinishedRun]:
    """Complete the runs one after the other, whatever --jobs says: their minutes are those of both cores."""
    jobs = {name: training_job(name, text) for name in (MODELS[model] for model in args.models)}
    return run_sweep(jobs, Namespace(**{**vars(args), "executor": args.executor._replace(jobs=1)}))


def training_job(name: str, text: Path) -> Job:
    folder = ROOT / "runs" / "part2" / f"shakespeare {name}".replace(" ", "_")
    return Job("part2/train.py", folder, {"txt_file": str(text), **SETTINGS, **RUNS[name]})


def curves(runs: dict[str, FinishedRun]) -> list[dict[str, Any]]:
    """Return one row for each evaluation of each run."""
    rows = []
    for name, (folder, _) in runs.items():
        metrics = read_metrics(folder / "metrics.csv")
        seconds = dict(metrics["seconds"])
        rows += [
            {"run": name, "step": step, "minutes": round(seconds[step] / 60, 3), "held_out_loss": loss}
            for step, loss in metrics["held_out_loss"]
        ]
    return rows


@torch.no_grad()
def costs_of_words(text: Path, runs: dict[str, FinishedRun]) -> list[dict[str, Any]]:
    """Return what each run's loss consists of: held-out words that the training part does not have, and the rest."""
    corpus, content = Corpus(text, held_out=0.1), text.read_text(encoding="utf-8")
    known = set(re.findall(r"[a-z']+", content[: corpus.num_train].lower()))
    tail = content[corpus.num_train :]
    unseen = torch.zeros(len(tail), dtype=torch.bool)
    for word in re.finditer(r"[a-z']+", tail.lower()):
        unseen[word.start() : word.end()] = word.group() not in known
    rows = []
    for name, (folder, _) in runs.items():
        (model, _), state, parts = load_model(folder), None, []
        for inputs, targets, fresh in held_out_batches(corpus):
            logits, state = model.run(inputs, None if fresh else state)
            parts.append(
                F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
            )  # (T, B)
        losses = torch.cat(parts).t().flatten()[: len(tail)]  # stream after stream: the order of the text
        for words, chosen in (("not in the training part", unseen), ("all other characters", ~unseen)):
            share, loss = chosen.float().mean().item(), losses[chosen].mean().item()
            row = {
                "run": name,
                "words": words,
                "share_of_characters": share,
                "loss": loss,
                "contribution": share * loss,
            }
            rows.append({key: f"{value:.5f}" if isinstance(value, float) else value for key, value in row.items()})
    return rows


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the held-out loss of every run against the characters that it has read."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, name in enumerate(dict.fromkeys(row["run"] for row in rows)):
        chosen = [row for row in rows if row["run"] == name]
        label = rf"${RUNS[name]['lstm_num_layers']} \times {SETTINGS['lstm_hidden_dim']}$ units: "
        label += f"{min(row['held_out_loss'] for row in chosen):.3f}"
        characters = RUNS[name]["batch_size"] * SETTINGS["seq_length"] / 1e6
        read, losses = [row["step"] * characters for row in chosen], [row["held_out_loss"] for row in chosen]
        axes.plot(read, losses, "o", linestyle=LINE_STYLES[k], color=COLOURS[k], label=label)
    axes.axhline(NANOGPT["A100"], color="0.4", linestyle=":", label=f"nanoGPT on an A100: {NANOGPT['A100']}")
    axes.set(xlabel="characters read (millions)", ylabel="held-out loss (nats a character)")
    if min(row["held_out_loss"] for row in rows) < 1.7:  # the first steps, far off, are left out
        axes.set_ylim(1.38, 1.75)
    axes.legend()
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part2/shakespeare")
    parser.add_selection(
        "--models", tuple(MODELS), "the small one, for 8 minutes, or the large one", choices=tuple(MODELS)
    )
    parser.add_setting("--seed", type=non_negative_int, default=SETTINGS["seed"], help="seed of every run")
    train_steps = f"number of steps (default: {SMALL['train_steps']} of the small model, {LARGE['train_steps']})"
    parser.add_setting("--train_steps", type=positive_int, help=train_steps)
    return parser


if __name__ == "__main__":
    run_command(main)
