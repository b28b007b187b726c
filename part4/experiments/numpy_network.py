"""Train the NumPy network and the linear classifier on CIFAR-10, from three seeds (question 1.1).

    python -m part4.experiments.numpy_network --jobs 2

A network that beats the linear classifier shows that its gradients are right. Trains with `train_numpy.py`'s defaults.
Writes report/results/part4_numpy.csv, one row for each seed and epoch, and the figure of the same name.
`test_accuracy` and `linear_test_accuracy` are those of the run's best epochs, the same in each of its rows.
"""

from statistics import mean
from typing import Any

from common.command import run_command
from common.experiment import FIGURES, ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Executor, Job
from common.paths import ROOT, short_path
from common.run_folder import read_metrics
from part4.cifar10 import load_images

NAME = "part4_numpy"
SETTINGS, SEEDS = {"dataset": "cifar10"}, (0, 1, 2)
RUNS = ROOT / "runs" / "part4" / "numpy"
MODELS = {"": "NumPy network", "linear_": "linear classifier"}  # by the prefix of their columns


def main() -> None:
    args = ExperimentParser(__doc__).parse_args()
    if not args.draw_only:
        write_results(NAME, train_all(args.executor), seeds=SEEDS)
    rows = read_results(NAME)
    for prefix, model in MODELS.items():
        by_seed = {row["seed"]: float(row[f"{prefix}test_accuracy"]) for row in rows}
        accuracies = list(by_seed.values())
        print(f"{model}, {rows[0]['images']}: test accuracy {mean(accuracies):.4f}, by seed {accuracies}")
    draw(rows)
    print(f"results and figure: report/results/{NAME}.csv, {short_path(FIGURES / NAME)}.pdf")


def train_all(executor: Executor) -> list[dict[str, Any]]:
    """Return one row for each seed and epoch."""
    load_images(SETTINGS["dataset"])  # fills the cache before several runs need it at once
    jobs = [Job("part4/train_numpy.py", RUNS / f"seed{seed}", {**SETTINGS, "seed": seed}) for seed in SEEDS]
    rows = []
    for seed, job, result in zip(SEEDS, jobs, run_jobs(jobs, executor)):
        metrics = read_metrics(job.run_dir / "metrics.csv")
        kept = {key: result[key] for key in ("images", "test_accuracy", "linear_test_accuracy", "seconds")}
        linear_accuracies = dict(metrics["linear_validation_accuracy"])  # by step
        for epoch, (step, accuracy) in enumerate(metrics["validation_accuracy"], start=1):
            accuracies = {"validation_accuracy": accuracy, "linear_validation_accuracy": linear_accuracies[step]}
            rows.append({"seed": seed, "epoch": epoch, **accuracies, **kept})
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw validation accuracy by epoch, one line for each model and seed."""
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
