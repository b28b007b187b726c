"""Optimizers and initialisations on Tang poems (PRML 2.1 and 2.3), and the poems that result (PRML 2.2).

    python -m part2.experiments.poems --jobs 2

* Six optimizers, each at every learning rate of a grid, for 8 epochs on 3,000 poems. The rate with the lowest held-out
  loss after the last epoch is shown, over three seeds.
* Four initialisations, with Adam at its best rate.
* One run on all poems, with early stopping: the defaults of `train.py --poems tang`, in bf16. From its best weights,
  poems that begin with each of seven characters.

The results are part2_poems_optimizers, part2_poems_inits, part2_poems_tang (the curve) and part2_poems (the verses)
under report/results/.
"""

import json
from statistics import mean
from typing import Any

import torch

from common.command import run_command
from common.data import write_atomically
from common.experiment import FIGURES, ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Executor, Job
from common.machine import seeded_generator
from common.paths import ROOT, short_path
from common.run_folder import read_metrics
from part2.dataset import decode, encode
from part2.model import INITS, load_model
from part2.poems import END, FIRST_CHARACTERS, read_poems

RUNS = ROOT / "runs" / "part2" / "poems"
NUM_POEMS, SEEDS = 3_000, (0, 1, 2)
SETTINGS = {"poems": str(RUNS / "poems.json"), "num_epochs": 8, "batch_size": 64, "patience": 0, "precision": "bf16"}
LEARNING_RATES = {
    "sgd": (1.0, 3.0, 10.0),
    "momentum": (0.3, 1.0, 3.0),
    "rmsprop": (3e-4, 1e-3, 3e-3),
    "adam": (1e-3, 3e-3, 1e-2),
    "adagrad": (0.01, 0.03, 0.1),
    "adadelta": (3.0, 10.0, 30.0),
}
TANG = Job("part2/train.py", RUNS / "tang", {"poems": "tang", "precision": "bf16", "seed": 0})


def main() -> None:
    args = ExperimentParser(__doc__).parse_args()
    if not args.draw_only:
        write_poems()
        rates, grid = best_rates(args.executor)
        described = {
            "seeds": SEEDS,
            "settings": {**SETTINGS, "poems": f"{NUM_POEMS} Tang poems"},
            "held_out_loss": grid,
        }
        rows = curves([(name, rate, "uniform") for name, rate in rates.items()], args.executor)
        write_results("part2_poems_optimizers", rows, **described)
        rows = curves([("adam", rates["adam"], init) for init in INITS], args.executor)
        write_results("part2_poems_inits", rows, **described)
        (result,) = run_jobs([TANG], args.executor)
        losses = read_metrics(TANG.run_dir / "metrics.csv")["held_out_loss"]
        rows = [{"epoch": k, "step": step, "held_out_loss": loss} for k, (step, loss) in enumerate(losses, start=1)]
        write_results("part2_poems_tang", rows, seeds=[0], result=result)
        write_results("part2_poems", verses(), seeds=[0])
    for name, kind in (("part2_poems_optimizers", "optimizer"), ("part2_poems_inits", "init")):
        rows = read_results(name)
        draw(rows, kind, name)
        for choice in dict.fromkeys(row[kind] for row in rows):
            chosen = [row for row in rows if row[kind] == choice]
            last = [row["held_out_loss"] for row in chosen if row["epoch"] == SETTINGS["num_epochs"]]
            spread = f"{mean(last):.3f} ({min(last):.3f} to {max(last):.3f})"
            print(f"{choice} ({chosen[0]['learning_rate']:g}): held-out loss {spread}")
    print(f"results and figures: {short_path(FIGURES)}/part2_poems_*.pdf, report/results/ likewise")


def write_poems() -> None:
    """Write the poems of the comparison: the first of the collection, in an order drawn from a seed."""
    poems = read_poems("tang")
    order = torch.randperm(len(poems), generator=seeded_generator(0, "poems")).tolist()
    content = [{"paragraphs": [poems[index]]} for index in order[:NUM_POEMS]]
    RUNS.mkdir(parents=True, exist_ok=True)
    write_atomically(RUNS / "poems.json", json.dumps(content, ensure_ascii=False).encode())


def job(optimizer: str, learning_rate: float, init: str, seed: int) -> Job:
    arguments = {**SETTINGS, "optimizer": optimizer, "learning_rate": learning_rate, "init": init, "seed": seed}
    return Job("part2/train.py", RUNS / f"{optimizer}_{learning_rate:g}_{init}_seed{seed}", arguments)


def best_rates(executor: Executor) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return each optimizer's best learning rate, and the last held-out loss at every rate, both of the first seed."""
    plan = [(name, rate) for name, rates in LEARNING_RATES.items() for rate in rates]
    jobs = [job(name, rate, "uniform", SEEDS[0]) for name, rate in plan]
    run_jobs(jobs, executor)
    last = {run: read_metrics(job.run_dir / "metrics.csv")["held_out_loss"][-1][1] for run, job in zip(plan, jobs)}
    grid = {name: {f"{rate:g}": last[name, rate] for rate in rates} for name, rates in LEARNING_RATES.items()}
    return {
        name: min(rates, key=lambda rate, name=name: last[name, rate]) for name, rates in LEARNING_RATES.items()
    }, grid


def curves(settings: list[tuple[str, float, str]], executor: Executor) -> list[dict[str, Any]]:
    """Return one row for each epoch of each seed of each (optimizer, learning rate, initialisation)."""
    plan = [(*setting, seed) for setting in settings for seed in SEEDS]
    jobs = [job(*run) for run in plan]
    run_jobs(jobs, executor)
    return [
        {"optimizer": name, "learning_rate": rate, "init": init, "seed": seed, "epoch": epoch, "held_out_loss": loss}
        for (name, rate, init, seed), job in zip(plan, jobs)
        for epoch, (_, loss) in enumerate(read_metrics(job.run_dir / "metrics.csv")["held_out_loss"], start=1)
    ]


def verses() -> list[dict[str, Any]]:
    """Return a poem for each first character, greedily and at two temperatures."""
    model, checkpoint = load_model(TANG.run_dir)
    rows = []
    for first in FIRST_CHARACTERS:
        for tau in (0, 0.5, 0.8):
            prompt = torch.tensor([encode(first, checkpoint["vocabulary"])])
            numbers = model.complete(prompt, 60, tau, seeded_generator(0, f"{first} {tau:g}"))[:, 0]
            poem = decode(numbers, checkpoint["vocabulary"]).split(END)[0]
            rows.append({"first": first, "temperature": tau, "poem": poem})
    return rows


def draw(rows: list[dict[str, Any]], kind: str, name: str) -> None:
    """Draw every seed's held-out loss against the epoch."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, choice in enumerate(dict.fromkeys(row[kind] for row in rows)):
        for seed in SEEDS:
            chosen = [row for row in rows if (row[kind], row["seed"]) == (choice, seed)]
            label = f"{choice} ({chosen[0]['learning_rate']:g})" if seed == SEEDS[0] else None
            epochs, losses = [row["epoch"] for row in chosen], [row["held_out_loss"] for row in chosen]
            axes.plot(epochs, losses, linestyle=LINE_STYLES[k], color=COLOURS[k], linewidth=0.9, label=label)
    axes.set(xlabel="epoch", ylabel="held-out loss (nats a character)", yscale="log" if kind == "init" else "linear")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend(title=f"{kind} (learning rate)", loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, FIGURES / name)


if __name__ == "__main__":
    run_command(main)
