"""A digit remembered for a thousand steps: questions 1.3 and 1.6, carried on to palindromes of 1,000 digits.

    python -m part1.experiments.long_memory --jobs 2

The equations, 128 hidden units and batches are those of `accuracy_by_length.py`; `train.py --preset long_memory`
changes the rest:

* RNN: W_hh = 2 I makes every unit a switch with two stable states. The first digit sets the switches, later ones cannot
  turn them, and what is left to learn is to read them.
* LSTM: chrono gates and a curriculum: what was learnt on short palindromes carries over to longer ones.

The results are report/results/part1_long_memory.csv, one row for each run, and part1_long_memory_gradients.csv, how
much of the gradient arrives at which step of 1,000; and a figure of each.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from part1.experiments import accuracy_by_length
from part1.experiments.accuracy_by_length import COLUMNS, MODELS, by_curve, draw_curve, length
from part1.experiments.gradient_flow import gradient_norms

RUNS = ROOT / "runs" / "part1" / "long_memory"
NAME, GRADIENTS = "part1_long_memory", "part1_long_memory_gradients"
LENGTHS = (5, 10, 20, 50, 100, 200, 500, 1000)
NUM_SEEDS, NUM_SEEDS_LONGEST = 3, 5
NUM_PALINDROMES = 50  # behind a gradient's norm
# What reports on UvA spring 2019 say of their curves (no tables): the RNN's; the LSTM's, which guesses from 35 on.
PUBLISHED = {"RNN": [(5, 1.0), (10, 1.0), (15, 1.0)], "LSTM": [(20, 0.6), (40, 0.1), (60, 0.1)]}


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        runs = run_sweep({run: training_job(*run) for run in chosen_plan(args)}, args)
        rows = [
            {"model": model, "T": T, "seed": seed, **{name: result[name] for name in COLUMNS}}
            for (model, T, seed), (_, result) in sorted(runs.items())
        ]
        seeds, seconds = sorted({row["seed"] for row in rows}), sum(row["seconds"] for row in rows)
        write_results(NAME, rows, args.results, seeds=seeds, training_seconds=seconds)
        write_results(
            GRADIENTS, gradients({run: folder for run, (folder, _) in runs.items()}), args.results, seeds=seeds
        )
    rows, curves = read_results(NAME, args.results), read_results(GRADIENTS, args.results)
    draw_accuracy(rows, args.figures)
    draw_gradients(curves, args.figures)
    for model in dict.fromkeys(row["model"] for row in curves):
        T = max(row["T"] for row in rows if row["model"] == model)
        longest = [row for row in rows if row["model"] == model and row["T"] == T]
        accuracies = ", ".join(f"{row['test_accuracy']:.4f}" for row in longest)
        minutes = max(row["seconds"] for row in longest) / 60
        print(f"{model}, T = {T:,}: accuracy {accuracies}, each within {minutes:.1f} minutes")
    print(f"results and figures: {short_path(args.results / NAME)}*.csv, {short_path(args.figures / NAME)}*.pdf")


def full_plan() -> list[tuple[str, int, int]]:
    """Return (model, T, seed) of every run of the whole sweep."""
    return chosen_plan(build_parser().parse_args(["--draw_only"]))


def chosen_plan(args: Namespace) -> list[tuple[str, int, int]]:
    """Return (model, T, seed) of every run, the longest first, so that none is left to run alone."""
    return [
        (model, T, seed)
        for T in reversed(args.lengths)
        for model in args.models[::-1]
        for seed in args.seeds or range(NUM_SEEDS_LONGEST if T == LENGTHS[-1] else NUM_SEEDS)
    ]


def training_job(model: str, T: int, seed: int) -> Job:
    arguments = {"model_type": model, "input_length": T - 1, "seed": seed, "preset": "long_memory"}
    return Job("part1/train.py", RUNS / f"{model}_T{T}_seed{seed}", arguments)


def gradients(folders: dict[tuple[str, int, int], Path]) -> list[dict[str, Any]]:
    """Return one row for each model, moment and step t: the mean of |dL/dh(t)| over the seeds of its longest runs."""
    rows = []
    for model in MODELS:
        lengths = [T for run_model, T, _ in folders if run_model == model]
        if not lengths:
            continue
        T = max(lengths)
        seeds = sorted(seed for run_model, run_T, seed in folders if (run_model, run_T) == (model, T))
        runs = [gradient_norms(folders[model, T, seed], NUM_PALINDROMES) for seed in seeds]
        for moment in ("initial", "trained"):
            norms = sum((run[moment] for run in runs), torch.zeros(())) / len(runs)
            rows += [
                {"model": model, "T": T, "moment": moment, "t": t, "norm": f"{norm:.5e}"}
                for t, norm in enumerate(norms.tolist(), start=1)
            ]
    return rows


def draw_accuracy(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw one panel for each model: the handout's settings, the published curves, and ours up to T = 1,000."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, save_figure

    handout = [row for row in read_results(accuracy_by_length.NAME) if row["family"] == "handout"]
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    figure, panels = new_figure(1, len(models), sharey=True)
    for axes, model in zip(panels, models):
        families = (("handout's settings", handout), ("long memory", [{**row, "family": NAME} for row in rows]))
        for k, (label, runs) in enumerate(families):
            lengths = by_curve(runs)[runs[0]["family"], model]
            draw_curve(axes, lengths, LINE_STYLES[1 - k], COLOURS[k], MARKERS[k], label)
        axes.plot(*zip(*PUBLISHED[model]), "x", color="0.3", markersize=6, label="a student's report")
        axes.axhline(0.1, color="0.5", linewidth=0.8, linestyle=":", label="guessing")
        axes.set(xscale="log", xlabel="palindrome length $T$", title=model, ylim=(0, 1.05))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
    panels[0].set_ylabel("test accuracy")
    panels[-1].legend(loc="center right")
    save_figure(figure, folder / NAME)


def draw_gradients(curves: list[dict[str, Any]], folder: Path) -> None:
    """Draw one panel for each model: dotted before training, full lines after, as far as float64 reaches."""
    from matplotlib.ticker import LogLocator, NullLocator

    from common.figure import COLOURS, new_figure, save_figure

    models = list(dict.fromkeys(row["model"] for row in curves))
    figure, panels = new_figure(1, len(models))
    for axes, model in zip(panels, models):
        chosen = [row for row in curves if row["model"] == model]
        for moment, style in (("initial", ":"), ("trained", "-")):
            points = [(row["t"], row["norm"]) for row in chosen if row["moment"] == moment and row["norm"] > 0]
            style += "o" if len(points) == 1 else ""  # a line of one point would not be seen
            label = "before training" if moment == "initial" else "after training"
            axes.plot(*zip(*points), style, color=COLOURS[MODELS.index(model)], label=label)
        axes.set(xlim=(0, chosen[0]["T"]), yscale="log", xlabel="step $t$", title=model)
        if min(row["norm"] for row in chosen if row["norm"] > 0) < 1e-100:
            axes.yaxis.set_major_locator(LogLocator(base=1e50))
            axes.yaxis.set_minor_locator(NullLocator())
    panels[0].set_ylabel(r"$\|\partial \mathcal{L} / \partial h^{(t)}\|$")
    panels[0].legend()
    save_figure(figure, folder / GRADIENTS)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/long_memory")
    parser.add_selection("--models", MODELS, "which networks", choices=MODELS)
    parser.add_selection("--lengths", LENGTHS, "palindrome lengths T", type=length)
    seeds = f"seeds (default: {NUM_SEEDS} for each length, {NUM_SEEDS_LONGEST} for {LENGTHS[-1]:,})"
    parser.add_selection("--seeds", None, seeds, type=non_negative_int)
    parser.add_setting("--train_steps", type=positive_int, default=10_000, help="largest number of steps")
    return parser


if __name__ == "__main__":
    run_command(main)
