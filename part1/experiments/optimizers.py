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
from statistics import mean
from typing import Any

import torch

from common.command import run_command
from common.experiment import FIGURES, ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Executor, Job
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
SETTINGS = {"model_type": "RNN", "input_length": 9, "train_steps": 1_000, "eval_every": 50}
CURVATURE = torch.tensor([1.0, 50.0])
START, PATH_STEPS = (-4.0, 1.2), 40
PATH_LEARNING_RATES = [10 ** (k / 4) for k in range(-16, 9)]  # 1e-4 ... 100


def main() -> None:
    args = ExperimentParser(__doc__).parse_args()
    if not args.draw_only:
        curves, grid = train_all(args.executor)
        write_results(CURVES, curves, seeds=SEEDS, settings=SETTINGS, mean_validation_loss=grid)
        write_results(PATHS, all_paths(), curvature=CURVATURE.tolist(), start=START)
    curves, paths = read_results(CURVES), read_results(PATHS)
    draw_curves(curves)
    draw_paths(paths)
    for name in OPTIMIZERS:
        rows = [row for row in curves if row["optimizer"] == name]
        last = [max((r for r in rows if r["seed"] == seed), key=lambda r: r["step"]) for seed in SEEDS]
        end = [row for row in paths if row["optimizer"] == name][-1]
        steps, loss = mean(row["step"] for row in last), mean(row["validation_loss"] for row in last)
        print(
            f"{name}: learning rate {rows[0]['learning_rate']:g}, validation loss {loss:.3f} after {steps:.0f} steps;"
        )
        print(
            f"    in the valley: learning rate {end['learning_rate']:.2g}, f = {end['f']:.1e} after {PATH_STEPS} steps"
        )
    print(f"results and figures: {short_path(FIGURES)}/{CURVES}.pdf and {PATHS}.pdf, report/results/ likewise")


def train_all(executor: Executor) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Return the validation curves at each optimizer's best learning rate, and every rate's mean validation loss."""
    plan = [(name, lr, seed) for name, rates in LEARNING_RATES.items() for lr in rates for seed in SEEDS]
    jobs = [
        Job(
            "part1/train.py",
            RUNS / f"{name}_{lr:g}_seed{seed}",
            {**SETTINGS, "optimizer": name, "learning_rate": lr, "seed": seed},
        )
        for name, lr, seed in plan
    ]
    run_jobs(jobs, executor)
    losses = {
        run: read_metrics(job.run_dir / "metrics.csv")["validation_loss"] for run, job in zip(plan, jobs)
    }  # [(step, loss), ...]
    grid = {
        name: {f"{lr:g}": mean(mean_over_run(losses[name, lr, seed]) for seed in SEEDS) for lr in rates}
        for name, rates in LEARNING_RATES.items()
    }
    best = {name: min(rates, key=lambda lr, name=name: grid[name][f"{lr:g}"]) for name, rates in LEARNING_RATES.items()}
    rows = [
        {"optimizer": name, "learning_rate": lr, "seed": seed, "step": step, "validation_loss": loss}
        for name, lr, seed in plan
        if lr == best[name]
        for step, loss in losses[name, lr, seed]
    ]
    return rows, grid


def mean_over_run(losses: list[tuple[int, float]]) -> float:
    """Return the mean over all evaluations up to the last possible one; a converged run keeps its last loss."""
    num_evaluations = SETTINGS["train_steps"] // SETTINGS["eval_every"]
    values = [loss for _, loss in losses]
    return mean(values + [values[-1]] * (num_evaluations - len(values)))


def all_paths() -> list[dict[str, Any]]:
    """Return every optimizer's path through the valley at its best learning rate."""
    rows = []
    for name in OPTIMIZERS:
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


def draw_curves(rows: list[dict[str, Any]]) -> None:
    """Draw every seed's validation loss against the step; a curve that ends early has converged."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, name in enumerate(OPTIMIZERS):
        for seed in SEEDS:
            chosen = [row for row in rows if (row["optimizer"], row["seed"]) == (name, seed)]
            label = f"{name} ({chosen[0]['learning_rate']:g})" if seed == SEEDS[0] else None
            steps, losses = [row["step"] for row in chosen], [row["validation_loss"] for row in chosen]
            axes.plot(steps, losses, linestyle=LINE_STYLES[k], color=COLOURS[k], linewidth=0.9, label=label)
            if steps[-1] < SETTINGS["train_steps"]:
                axes.plot(steps[-1], losses[-1], "o", color=COLOURS[k])
    axes.set(xlabel="training step", ylabel="validation loss (nats)", yscale="log")
    axes.legend(title="optimizer (learning rate)", loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, FIGURES / CURVES)


def draw_paths(rows: list[dict[str, Any]]) -> None:
    """Draw one panel for each optimizer: level lines of f and the path."""
    from common.figure import COLOURS, new_figure, save_figure

    figure, panels = new_figure(2, 3, height=1.7, sharex=True, sharey=True)
    x, y = torch.linspace(-4.6, 1.6, 200), torch.linspace(-1.4, 1.4, 200)
    f = 0.5 * (CURVATURE[0] * x[None, :] ** 2 + CURVATURE[1] * y[:, None] ** 2)
    for k, (axes, name) in enumerate(zip(panels, OPTIMIZERS)):
        chosen = [row for row in rows if row["optimizer"] == name]
        axes.contour(x, y, f, levels=[0.1, 1, 4, 9, 16, 25, 36], colors="0.75", linewidths=0.6)
        axes.plot(
            [r["x"] for r in chosen], [r["y"] for r in chosen], "o-", color=COLOURS[k], markersize=2, linewidth=0.9
        )
        axes.plot(0, 0, "k+")
        axes.set(
            title=f"{name} ({chosen[0]['learning_rate']:.2g}): $f$ = {chosen[-1]['f']:.0e}",
            xlim=(-4.6, 1.6),
            ylim=(-1.4, 1.4),
        )
        axes.grid(False)
    for axes in panels[3:]:
        axes.set_xlabel("$x$")
    for axes in panels[::3]:
        axes.set_ylabel("$y$")
    save_figure(figure, FIGURES / PATHS)


if __name__ == "__main__":
    run_command(main)
