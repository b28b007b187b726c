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
import math
from argparse import Namespace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from common.command import non_negative_int, positive_int, run_command
from common.data import write_atomically
from common.errors import CommandError
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
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
INIT_NAMES = {"uniform": "uniform", "zeros": "zeros", "normal": "$N(0, 1)$", "xavier": "Xavier"}
STUDIES = ("optimizers", "inits", "tang")
TANG = {"poems": "tang", "precision": "bf16", "seed": 0}


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        poems = write_poems(args.num_poems)
        if set(args.studies) != {"tang"}:
            compare(poems, args)
        if "tang" in args.studies:
            train_on_tang(poems, args)
    for name, kind in (("optimizers", "optimizer"), ("inits", "init")):
        if name in args.studies:
            rows = read_results(f"part2_poems_{name}", args.results)
            draw(rows, kind, args.figures / f"part2_poems_{name}")
            describe(rows, kind)
    if "tang" in args.studies:
        draw_perplexity(read_results("part2_poems_tang", args.results), args.figures / "part2_poems_tang")
    print(f"results and figures: {short_path(args.figures)}/part2_poems_*.pdf, {short_path(args.results)}/ likewise")


def describe(rows: list[dict[str, Any]], kind: str) -> None:
    for choice in dict.fromkeys(row[kind] for row in rows):
        chosen = [row for row in rows if row[kind] == choice]
        epochs = max(row["epoch"] for row in chosen)
        last = [row["held_out_loss"] for row in chosen if row["epoch"] == epochs]
        spread = f"{mean(last):.3f} ({min(last):.3f} to {max(last):.3f})"
        print(f"{choice} ({chosen[0]['learning_rate']:g}): held-out loss {spread}")


def write_poems(num_poems: int) -> Path:
    """Write the poems of the comparison: the first of the collection, in an order drawn from a seed."""
    poems = read_poems("tang")
    if not 2 <= num_poems <= len(poems):  # one is held out
        raise CommandError(f"argument --num_poems: must be from 2 to {len(poems)}, the Tang poems, not {num_poems}")
    order = torch.randperm(len(poems), generator=seeded_generator(0, "poems")).tolist()
    content = [{"paragraphs": [poems[index]]} for index in order[:num_poems]]
    path = RUNS / ("poems.json" if num_poems == NUM_POEMS else f"poems_{num_poems}.json")
    RUNS.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, ensure_ascii=False).encode())
    return path


def compare(poems: Path, args: Namespace) -> None:
    """Write the curves of every optimizer at its best learning rate, and of every initialisation."""
    optimizers = args.optimizers if "optimizers" in args.studies else ("adam",)
    if "inits" in args.studies and "adam" not in optimizers:
        optimizers = (*optimizers, "adam")  # the initialisations are compared with Adam
    rates, grid = best_rates(poems, optimizers, args)
    settings = {**SETTINGS, "poems": f"{args.num_poems} Tang poems", **args.settings}
    described = {"seeds": args.seeds, "settings": settings, "held_out_loss": grid}
    if "optimizers" in args.studies:
        plan = [(name, rates[name], "uniform") for name in args.optimizers if name in rates]
        write_results("part2_poems_optimizers", curves(poems, plan, args), args.results, **described)
    if "inits" in args.studies and "adam" in rates:
        plan = [("adam", rates["adam"], init) for init in args.inits]
        write_results("part2_poems_inits", curves(poems, plan, args), args.results, **described)


def job(poems: Path, optimizer: str, learning_rate: float, init: str, seed: int) -> Job:
    name = f"{optimizer}_{learning_rate:g}_{init}_seed{seed}{ending(poems)}"
    arguments = {**SETTINGS, "optimizer": optimizer, "learning_rate": learning_rate, "init": init, "seed": seed}
    return Job("part2/train.py", RUNS / name, {**arguments, "poems": str(poems)})


def ending(poems: Path) -> str:
    """Return how the names of runs on these poems end."""
    return "" if poems.stem == "poems" else f"_num_{poems.stem}"


def best_rates(
    poems: Path, optimizers: tuple[str, ...], args: Namespace
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return each optimizer's best learning rate, and the last held-out loss at every rate, both of the first seed."""
    plan = [(name, rate) for name in optimizers for rate in LEARNING_RATES[name]]
    runs = run_sweep({(name, rate): job(poems, name, rate, "uniform", args.seeds[0]) for name, rate in plan}, args)
    losses: dict[str, dict[float, float]] = {}
    for (name, rate), (folder, _) in runs.items():
        losses.setdefault(name, {})[rate] = read_metrics(folder / "metrics.csv")["held_out_loss"][-1][1]
    grid = {name: {f"{rate:g}": loss for rate, loss in rates.items()} for name, rates in losses.items()}
    return {name: min(rates, key=rates.__getitem__) for name, rates in losses.items()}, grid


def curves(poems: Path, settings: list[tuple[str, float, str]], args: Namespace) -> list[dict[str, Any]]:
    """Return one row for each epoch of each seed of each (optimizer, learning rate, initialisation)."""
    plan = [(*setting, seed) for setting in settings for seed in args.seeds]
    return [
        {"optimizer": name, "learning_rate": rate, "init": init, "seed": seed, "epoch": epoch, "held_out_loss": loss}
        for (name, rate, init, seed), (folder, _) in run_sweep({run: job(poems, *run) for run in plan}, args).items()
        for epoch, (_, loss) in enumerate(read_metrics(folder / "metrics.csv")["held_out_loss"], start=1)
    ]


def train_on_tang(poems: Path, args: Namespace) -> None:
    """Write the curve of the run on all poems, or on those that --num_poems asks for, and the poems that it writes."""
    arguments = TANG if args.num_poems == NUM_POEMS else {**TANG, "poems": str(poems)}
    runs = run_sweep({"tang": Job("part2/train.py", RUNS / f"tang{ending(poems)}", arguments)}, args)
    folder, result = runs["tang"]
    losses = read_metrics(folder / "metrics.csv")["held_out_loss"]
    rows = [{"epoch": k, "step": step, "held_out_loss": loss} for k, (step, loss) in enumerate(losses, start=1)]
    write_results("part2_poems_tang", rows, args.results, seeds=[0], result=result)
    write_results("part2_poems", verses(folder), args.results, seeds=[0])


def verses(folder: Path) -> list[dict[str, Any]]:
    """Return a poem for each first character, greedily and at two temperatures."""
    model, checkpoint = load_model(folder)
    rows = []
    vocabulary = checkpoint["vocabulary"]
    for first in [first for first in FIRST_CHARACTERS if first in vocabulary] or vocabulary[-1:]:
        for tau in (0, 0.5, 0.8):
            prompt = torch.tensor([encode(first, vocabulary)])
            numbers = model.complete(prompt, 60, tau, seeded_generator(0, f"{first} {tau:g}"))[:, 0]
            poem = decode(numbers, vocabulary).split(END)[0]
            rows.append({"first": first, "temperature": tau, "poem": poem})
    return rows


def draw(rows: list[dict[str, Any]], kind: str, path: Path) -> None:
    """Draw the held-out loss by epoch: mean and range of the seeds."""
    from common.figure import COLOURS, LINE_STYLES, OPTIMIZER_NAMES, draw_means, new_figure, plain_ticks, save_figure

    figure, (axes,) = new_figure(height=2.2 if kind == "optimizer" else 1.9)
    for k, choice in enumerate(dict.fromkeys(row[kind] for row in rows)):
        mine = [row for row in rows if row[kind] == choice]
        losses = [(row["epoch"], row["held_out_loss"]) for row in mine]
        label = INIT_NAMES[choice] if kind == "init" else OPTIMIZER_NAMES.get(choice, choice)
        label = f"{label} ({mine[0]['learning_rate']:g})" if kind == "optimizer" else label
        draw_means(axes, losses, linestyle=LINE_STYLES[k], color=COLOURS[k], label=label)
    axes.set(xlabel="epoch", ylabel="held-out loss (nats)")
    if kind == "init":
        axes.set_yscale("log")
        plain_ticks(axes.yaxis, 1, 2, 4, 6, 8)
    title = "initialisation" if kind == "init" else "optimizer (learning rate)"
    axes.legend(title=title, loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, path)


def draw_perplexity(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the held-out perplexity against the epoch, and a dot at the lowest."""
    from common.figure import COLOURS, new_figure, save_figure

    figure, (axes,) = new_figure(height=1.5)
    epochs, perplexities = [row["epoch"] for row in rows], [math.exp(row["held_out_loss"]) for row in rows]
    lowest = min(perplexities)
    axes.plot(epochs, perplexities, color=COLOURS[0])
    axes.plot(epochs[perplexities.index(lowest)], lowest, "o", color=COLOURS[1], label="lowest: these weights are kept")
    axes.set(xlabel="epoch", ylabel="held-out perplexity", ylim=(0, None), xticks=epochs)
    axes.legend()
    save_figure(figure, path)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part2/poems")
    studies = "optimizers and inits compare, tang is the one run on all poems"
    parser.add_selection("--studies", STUDIES, studies, choices=STUDIES)
    optimizers = tuple(LEARNING_RATES)
    parser.add_selection("--optimizers", optimizers, "which optimizers", choices=optimizers)
    parser.add_selection("--inits", tuple(INITS), "which initialisations", choices=tuple(INITS))
    parser.add_selection("--seeds", SEEDS, "seeds of the comparisons", type=non_negative_int)
    epochs = f"passes over the poems (default: {SETTINGS['num_epochs']}; tang: at most 40)"
    parser.add_setting("--epochs", "--num_epochs", dest="num_epochs", type=positive_int, help=epochs)
    num_poems = f"poems of every run (default: {NUM_POEMS}; tang: all)"
    parser.add_sweep_argument("--num_poems", type=positive_int, default=NUM_POEMS, help=num_poems)
    return parser


if __name__ == "__main__":
    run_command(main)
