"""Six optimizers on the same palindromes, and on a long narrow valley (questions 1.4 and PRML 2.3).

    python -m part1.experiments.optimizers --jobs 2

* Palindromes of 10 digits, the RNN, the same weights and batches for every optimizer. Each gets the learning rate of
  its grid with the lowest mean validation loss over the run, averaged over the seeds.
* f(x, y) = (x^2 + 50 y^2) / 2, whose curvature is 50 times larger across the valley than along it: 40 steps from one
  point, each optimizer with the learning rate of a grid that gives the lowest mean f along the path.

The results are report/results/part1_optimizers.csv (the loss curves) with the whole grid in the .json beside it, and
part1_optimizer_paths.csv; the figures have the same names.
"""

import math
from argparse import Namespace
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

import torch

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.optimizers import OPTIMIZERS
from common.paths import ROOT, short_path
from common.run_folder import read_metrics

CURVES, PATHS = "part1_optimizers", "part1_optimizer_paths"
RUNS = ROOT / "runs" / "part1" / "optimizers"
LEARNING_RATES = {
    "sgd": (0.03, 0.1, 0.3),
    "momentum": (0.003, 0.01, 0.03, 0.1),
    "rmsprop": (3e-4, 1e-3, 3e-3),
    "adam": (3e-4, 1e-3, 3e-3, 1e-2),
    "adagrad": (3e-3, 1e-2, 3e-2),
    "adadelta": (0.3, 1.0, 3.0),
}
SEEDS = (0, 1, 2)
SETTINGS: dict[str, Any] = {"model_type": "RNN", "input_length": 9, "train_steps": 1_000, "eval_every": 50}
CURVATURE = torch.tensor([1.0, 50.0])
START, PATH_STEPS = (-4.0, 1.2), 40
PATH_LEARNING_RATES = [10 ** (k / 4) for k in range(-16, 9)]  # 1e-4 ... 100


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        curves, grid = train_all(args)
        settings = {**SETTINGS, **args.settings}
        write_results(CURVES, curves, args.results, seeds=args.seeds, settings=settings, mean_validation_loss=grid)
        write_results(PATHS, all_paths(args.optimizers), args.results, curvature=CURVATURE.tolist(), start=START)
    curves, paths = read_results(CURVES, args.results), read_results(PATHS, args.results)
    draw_curves(curves, args.figures)
    draw_paths(paths, args.figures)
    for name in dict.fromkeys(row["optimizer"] for row in curves):
        rows = [row for row in curves if row["optimizer"] == name]
        last = [
            max((r for r in rows if r["seed"] == seed), key=lambda r: r["step"]) for seed in {r["seed"] for r in rows}
        ]
        end = [row for row in paths if row["optimizer"] == name][-1]
        steps, loss = mean(row["step"] for row in last), mean(row["validation_loss"] for row in last)
        print(
            f"{name}: learning rate {rows[0]['learning_rate']:g}, validation loss {loss:.3f} after {steps:.0f} steps;"
        )
        print(
            f"    in the valley: learning rate {end['learning_rate']:.2g}, f = {end['f']:.1e} after {PATH_STEPS} steps"
        )
    figures = f"{short_path(args.figures)}/{CURVES}.pdf and {PATHS}.pdf"
    print(f"results and figures: {figures}, {short_path(args.results)}/ likewise")


def train_all(args: Namespace) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Return the validation curves at each optimizer's best learning rate, and every rate's mean validation loss."""
    plan = [(name, lr, seed) for name in args.optimizers for lr in LEARNING_RATES[name] for seed in args.seeds]
    runs = run_sweep({run: training_job(*run) for run in plan}, args)
    losses: dict[tuple[str, float], dict[int, list[tuple[int, float]]]] = {}  # by seed: [(step, loss), ...]
    for (name, lr, seed), (folder, _) in runs.items():
        losses.setdefault((name, lr), {})[seed] = read_metrics(folder / "metrics.csv")["validation_loss"]
    grid: dict[str, dict[float, float]] = {}
    for (name, lr), by_seed in losses.items():
        grid.setdefault(name, {})[lr] = mean(mean_over_run(curve, args.train_steps) for curve in by_seed.values())
    best = {name: min(rates, key=rates.__getitem__) for name, rates in grid.items()}
    rows = [
        {"optimizer": name, "learning_rate": lr, "seed": seed, "step": step, "validation_loss": loss}
        for name, lr in best.items()
        for seed, curve in losses[name, lr].items()
        for step, loss in curve
    ]
    return rows, {name: {f"{lr:g}": loss for lr, loss in rates.items()} for name, rates in grid.items()}


def training_job(name: str, lr: float, seed: int) -> Job:
    arguments = {**SETTINGS, "optimizer": name, "learning_rate": lr, "seed": seed}
    return Job("part1/train.py", RUNS / f"{name}_{lr:g}_seed{seed}", arguments)


def mean_over_run(losses: list[tuple[int, float]], train_steps: int) -> float:
    """Return the mean over all evaluations up to the last possible one; a converged run keeps its last loss."""
    num_evaluations = train_steps // SETTINGS["eval_every"]
    values = [loss for _, loss in losses]
    return mean(values + [values[-1]] * (num_evaluations - len(values)))


def all_paths(optimizers: tuple[str, ...] = tuple(OPTIMIZERS)) -> list[dict[str, Any]]:
    """Return every optimizer's path through the valley at its best learning rate."""
    rows = []
    for name in optimizers:
        candidates = {lr: path(name, lr) for lr in PATH_LEARNING_RATES}
        lr = min(candidates, key=lambda lr: sum(_or_infinity(f) for _, _, f in candidates[lr]))
        rows += [
            {"optimizer": name, "learning_rate": lr, "step": step, "x": x, "y": y, "f": f}
            for step, (x, y, f) in enumerate(candidates[lr])
        ]
    return rows


def path(name: str, learning_rate: float) -> list[tuple[float, float, float]]:
    """Return (x, y, f(x, y)) before the first step and after each."""
    position = torch.tensor(START, requires_grad=True)
    optimizer = OPTIMIZERS[name]([position], lr=learning_rate)
    points = []
    for _ in range(PATH_STEPS + 1):
        f = 0.5 * (CURVATURE * position**2).sum()
        points.append((*position.tolist(), f.item()))
        optimizer.zero_grad()
        f.backward()
        optimizer.step()
    return points


def _or_infinity(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def draw_curves(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the validation loss by step: geometric mean and range of the seeds. A converged run keeps its last loss."""
    from common.figure import COLOURS, LINE_STYLES, draw_means, new_figure, plain_ticks, save_figure

    figure, (axes,) = new_figure(height=2.4)
    steps = sorted({row["step"] for row in rows})
    for k, name in enumerate(dict.fromkeys(row["optimizer"] for row in rows)):
        mine = [row for row in rows if row["optimizer"] == name]
        losses = []
        for seed in {row["seed"] for row in mine}:
            curve = {row["step"]: row["validation_loss"] for row in mine if row["seed"] == seed}
            losses += [(step, curve[min(step, max(curve))]) for step in steps]
        label = title(name, mine[0]["learning_rate"])
        draw_means(axes, losses, geometric_mean, linestyle=LINE_STYLES[k], color=COLOURS[k], label=label)
    axes.set(xlabel="training step", ylabel="validation loss (nats)", yscale="log")
    plain_ticks(axes.yaxis)
    axes.legend(title="optimizer (learning rate)", loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, folder / CURVES)


def draw_paths(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw one panel for each optimizer: level lines of f and the path."""
    from common.figure import COLOURS, new_figure, save_figure

    optimizers = list(dict.fromkeys(row["optimizer"] for row in rows))
    columns = next(columns for columns in (3, 2, 1) if len(optimizers) % columns == 0)  # no panel stays empty
    figure, panels = new_figure(len(optimizers) // columns, columns, height=1.7, sharex=True, sharey=True)
    x, y = torch.linspace(-4.6, 1.6, 200), torch.linspace(-1.4, 1.4, 200)
    f = 0.5 * (CURVATURE[0] * x[None, :] ** 2 + CURVATURE[1] * y[:, None] ** 2)
    for k, (axes, name) in enumerate(zip(panels, optimizers)):
        chosen = [row for row in rows if row["optimizer"] == name]
        axes.contour(x, y, f, levels=[0.1, 1, 4, 9, 16, 25, 36], colors="0.75", linewidths=0.6)
        axes.plot(
            [r["x"] for r in chosen], [r["y"] for r in chosen], "o-", color=COLOURS[k], markersize=2, linewidth=0.9
        )
        axes.plot(0, 0, "k+")
        f_at_the_end = power_of_ten(chosen[-1]["f"])
        axes.set_title(f"{title(name, chosen[0]['learning_rate'])}: $f = {f_at_the_end}$", fontsize=8)
        axes.set(xlim=(-4.6, 1.6), ylim=(-1.4, 1.4))
        axes.grid(False)
    for axes in panels[-columns:]:
        axes.set_xlabel("$x$")
    for axes in panels[::columns]:
        axes.set_ylabel("$y$")
    save_figure(figure, folder / PATHS)


def title(name: str, learning_rate: float) -> str:
    """Return an optimizer's name and learning rate as the figures show them."""
    from common.figure import OPTIMIZER_NAMES

    return f"{OPTIMIZER_NAMES.get(name, name)} ({float(f'{learning_rate:.2g}'):g})"


def power_of_ten(value: float) -> str:
    """Return a positive number of one digit as a formula, without a power of ten where that is short."""
    digit, exponent = f"{value:.0e}".split("e")
    return f"{value:.1g}" if 0.01 <= value < 10 else rf"{digit}\times10^{{{int(exponent)}}}"


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/optimizers")
    parser.add_selection("--optimizers", tuple(OPTIMIZERS), "which optimizers", choices=tuple(OPTIMIZERS))
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    train_steps = SETTINGS["train_steps"]
    parser.add_setting("--train_steps", type=positive_int, default=train_steps, help="largest number of steps")
    return parser


if __name__ == "__main__":
    run_command(main)
