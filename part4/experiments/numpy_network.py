"""Do the gradients of question 1.1 serve? The NumPy network against a linear classifier, on CIFAR-10, from three seeds.

    python -m part4.experiments.numpy_network --jobs 2

Trains with `train_numpy.py`'s defaults. Writes report/results/part4_numpy.csv, a row an epoch of each seed, and the figure of
the same name; `test_accuracy` and `linear_test_accuracy` are those of the run's best epochs and stand in each of its rows.
"""

from argparse import Namespace
from statistics import mean
from typing import Any

from common.errors import run_command
from common.experiment import FIGURES, Job, experiment_parser, read_results, run_jobs, write_results
from common.machine import ROOT, short_path
from common.run_folder import read_metrics
from part4.cifar10 import load_images

NAME = "part4_numpy"
SETTINGS, SEEDS = {"dataset": "cifar10"}, (0, 1, 2)
RUNS = ROOT / "runs" / "part4" / "numpy"
MODELS = {"": "NumPy network", "linear_": "linear classifier"}  # the prefix of its columns


def main() -> None:
    args = experiment_parser(__doc__).parse_args()
    rows = read_results(NAME) if args.draw_only else train_all(args)
    if not args.draw_only:
        write_results(NAME, rows, seeds=SEEDS)
    for prefix, model in MODELS.items():
        tested = {row["seed"]: float(row[f"{prefix}test_accuracy"]) for row in rows}
        print(f"{model}, {rows[0]['images']}: test accuracy {mean(tested.values()):.4f}, by seed {list(tested.values())}")
    draw(rows)
    print(f"results and figure: report/results/{NAME}.csv, {short_path(FIGURES / NAME)}.pdf")


def train_all(args: Namespace) -> list[dict[str, Any]]:
    load_images(SETTINGS["dataset"])  # into the cache, before several runs want them at once
    jobs = [Job("part4/train_numpy.py", RUNS / f"seed{seed}", {**SETTINGS, "seed": seed}) for seed in SEEDS]
    rows = []
    for seed, job, result in zip(SEEDS, jobs, run_jobs(jobs, args)):
        metrics = read_metrics(job.run_dir / "metrics.csv")
        kept = {key: result[key] for key in ("images", "test_accuracy", "linear_test_accuracy", "seconds")}
        curves = [[value for _, value in metrics[f"{prefix}validation_accuracy"]] for prefix in MODELS]
        for epoch, (network, linear) in enumerate(zip(*curves), start=1):
            accuracies = {"validation_accuracy": network, "linear_validation_accuracy": linear}
            rows.append({"seed": seed, "epoch": epoch, **accuracies, **kept})
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw validation accuracy by epoch, one line a seed."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, (prefix, model) in enumerate(MODELS.items()):
        for seed in SEEDS:
            chosen = [row for row in rows if row["seed"] == seed]
            epochs = [row["epoch"] for row in chosen]
            style = {"color": COLOURS[k], "linestyle": LINE_STYLES[k], "label": model if seed == SEEDS[0] else None}
            axes.plot(epochs, [row[f"{prefix}validation_accuracy"] for row in chosen], **style)
    axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, None))
    axes.legend()
    save_figure(figure, FIGURES / NAME)


if __name__ == "__main__":
    run_command(main)
