"""How low the held-out loss on tiny Shakespeare gets in 8 and in 30 minutes on two cores.

    python -m part2.experiments.shakespeare

The first 90 % of the characters are trained on, the last 10 % held out, as nanoGPT does (its README: 1.88 nats a
character in about three minutes of a laptop's processor, 1.4697 in about three minutes of an A100). Two runs of
`train.py`, one after the other so that each has both cores; time counts everything, evaluations and checkpoints
included. The result is report/results/part2_shakespeare.csv, and the figure of the same name.
part2_shakespeare_words.csv says what the words cost that occur in the held-out part only.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from common.command import run_command
from common.experiment import FIGURES, ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Executor, Job
from common.paths import ROOT, short_path
from common.run_folder import read_metrics
from part2.dataset import IGNORED, Corpus, held_out_batches
from part2.download import save_book
from part2.model import load_model

NAME = "part2_shakespeare"
SETTINGS = {
    "stateful": True,
    "precision": "bf16",
    "embedding_size": 128,
    "lstm_hidden_dim": 512,
    "seq_length": 64,
    "schedule": "cosine",
    "max_norm": 1.0,
    "seed": 0,
}
SMALL = {"lstm_num_layers": 1, "dropout_keep_prob": 0.6, "batch_size": 64, "learning_rate": 3e-3, "train_steps": 4_000}
LARGE = {"lstm_num_layers": 2, "dropout_keep_prob": 0.6, "batch_size": 64, "learning_rate": 2e-3, "train_steps": 3_500}
RUNS = {"8 minutes": SMALL, "30 minutes": LARGE}
NANOGPT = {"laptop": 1.88, "A100": 1.4697}  # nats a character, its README


def main() -> None:
    args = ExperimentParser(__doc__).parse_args()
    if not args.draw_only:
        text = save_book("shakespeare")
        settings = {name: {**SETTINGS, **RUNS[name]} for name in RUNS}
        write_results(NAME, measure(text, args.executor), seeds=[0], settings=settings)
        write_results(f"{NAME}_words", costs_of_words(text), seeds=[0])
    rows = read_results(NAME)
    draw(rows)
    for name in RUNS:
        best = min((row for row in rows if row["run"] == name), key=lambda row: row["held_out_loss"])
        last = [row for row in rows if row["run"] == name][-1]
        print(f"{name}: {best['held_out_loss']:.4f} nats a character, {last['minutes']:.1f} minutes in all")
    for row in read_results(f"{NAME}_words"):
        share = f"{row['share_of_characters']:.3f} of the characters, {row['loss']:.3f} nats each"
        print(f"{row['run']}, {row['words']}: {share}, {row['contribution']:.3f} of the loss")
    print(f"results and figure: {short_path(FIGURES / NAME)}.pdf, report/results/{NAME}.csv")


def run_folder(name: str) -> Path:
    return ROOT / "runs" / "part2" / f"shakespeare {name}".replace(" ", "_")


def measure(text: Path, executor: Executor) -> list[dict[str, Any]]:
    """Return one row for each evaluation of each run."""
    rows = []
    for name, settings in RUNS.items():
        run_jobs([Job("part2/train.py", run_folder(name), {"txt_file": str(text), **SETTINGS, **settings})], executor)
        metrics = read_metrics(run_folder(name) / "metrics.csv")
        seconds = dict(metrics["seconds"])
        rows += [
            {"run": name, "step": step, "minutes": round(seconds[step] / 60, 3), "held_out_loss": loss}
            for step, loss in metrics["held_out_loss"]
        ]
    return rows


@torch.no_grad()
def costs_of_words(text: Path) -> list[dict[str, Any]]:
    """Return what each run's loss consists of: held-out words that the training part does not have, and the rest."""
    corpus, content = Corpus(text, held_out=0.1), text.read_text(encoding="utf-8")
    known = set(re.findall(r"[a-z']+", content[: corpus.num_train].lower()))
    tail = content[corpus.num_train :]
    unseen = torch.zeros(len(tail), dtype=torch.bool)
    for word in re.finditer(r"[a-z']+", tail.lower()):
        unseen[word.start() : word.end()] = word.group() not in known
    rows = []
    for name in RUNS:
        (model, _), state, losses = load_model(run_folder(name)), None, []
        for inputs, targets, fresh in held_out_batches(corpus):
            logits, state = model.run(inputs, None if fresh else state)
            losses.append(
                F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
            )  # (T, B)
        losses = torch.cat(losses).t().flatten()[: len(tail)]  # stream after stream: the order of the text
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


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw the held-out loss of both runs against time."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, name in enumerate(RUNS):
        chosen = [row for row in rows if row["run"] == name]
        label = f"{RUNS[name]['lstm_num_layers']} x {SETTINGS['lstm_hidden_dim']} units: "
        label += f"{min(row['held_out_loss'] for row in chosen):.3f}"
        minutes, losses = [row["minutes"] for row in chosen], [row["held_out_loss"] for row in chosen]
        axes.plot(minutes, losses, "o", linestyle=LINE_STYLES[k], color=COLOURS[k], label=label)
    axes.axhline(NANOGPT["A100"], color="0.4", linestyle=":", label=f"nanoGPT on an A100: {NANOGPT['A100']}")
    axes.set(xlabel="minutes", ylabel="held-out loss (nats a character)", ylim=(1.38, 1.75))
    axes.legend()
    save_figure(figure, FIGURES / NAME)


if __name__ == "__main__":
    run_command(main)
