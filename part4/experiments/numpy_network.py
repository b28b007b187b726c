"""Train the NumPy network and the linear classifier on CIFAR-10, from three seeds (question 1.1).

    python -m part4.experiments.numpy_network --jobs 2

A network that beats the linear classifier shows that its gradients are right. Trains with `train_numpy.py`'s defaults.
Writes report/results/part4_numpy.csv, one row for each seed and epoch, and the figure of the same name.
`test_accuracy` and `linear_test_accuracy` are those of the run's best epochs, the same in each of its rows.
"""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from statistics import mean
from typing import Any

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from common.run_folder import read_metrics
from part4.cifar10 import DATASETS, load_images

NAME = "part4_numpy"
SETTINGS, SEEDS = {"dataset": "cifar10"}, (0, 1, 2)
BATCH_SIZE = 128  # the default of both training scripts
RUNS = ROOT / "runs" / "part4" / "numpy"
MODELS = {"": "NumPy network", "linear_": "linear classifier"}  # by the prefix of their columns


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        rows = train_all(args)
        write_results(NAME, rows, args.results, seeds=list(dict.fromkeys(row["seed"] for row in rows)))
    rows = read_results(NAME, args.results)
    for prefix, model in MODELS.items():
        by_seed = {row["seed"]: float(row[f"{prefix}test_accuracy"]) for row in rows}
        accuracies = list(by_seed.values())
        print(f"{model}, {rows[0]['images']}: test accuracy {mean(accuracies):.4f}, by seed {accuracies}")
    draw(rows, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}.csv, {short_path(args.figures / NAME)}.pdf")


def train_all(args: Namespace) -> list[dict[str, Any]]:
    """Return one row for each seed and epoch."""
    load_images(args.dataset, num_train=args.num_train)  # fills the cache before several runs need it at once
    jobs = {seed: Job("part4/train_numpy.py", RUNS / f"seed{seed}", {**SETTINGS, "seed": seed}) for seed in args.seeds}
    rows = []
    for seed, (folder, result) in run_sweep(jobs, args).items():
        metrics = read_metrics(folder / "metrics.csv")
        kept = {key: result[key] for key in ("images", "test_accuracy", "linear_test_accuracy", "seconds")}
        linear_accuracies = dict(metrics["linear_validation_accuracy"])  # by step
        for epoch, (step, accuracy) in enumerate(metrics["validation_accuracy"], start=1):
            accuracies = {"validation_accuracy": accuracy, "linear_validation_accuracy": linear_accuracies[step]}
            rows.append({"seed": seed, "epoch": epoch, **accuracies, **kept})
    return rows


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw validation accuracy by epoch: mean and range of the seeds."""
    from common.figure import COLOURS, LINE_STYLES, draw_means, new_figure, save_figure

    figure, (axes,) = new_figure()
    for k, (prefix, model) in enumerate(MODELS.items()):
        points = [(row["epoch"], row[f"{prefix}validation_accuracy"]) for row in rows]
        draw_means(axes, points, color=COLOURS[k], linestyle=LINE_STYLES[k], label=model)
    axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, None))
    axes.legend()
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part4/numpy")
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    parser.add_setting("--dataset", choices=DATASETS, default=SETTINGS["dataset"], help="synthetic: coloured shapes")
    parser.add_setting("--num_train", type=num_images, help="number of training images (default: all)")
    epochs = {"default": 10, "help": "passes over the training images"}
    parser.add_setting("--epochs", "--num_epochs", dest="num_epochs", type=positive_int, **epochs)
    return parser


def num_images(text: str) -> int:
    """Argument type: a number of training images that fill a batch of the training scripts."""
    value = int(text)
    if value < BATCH_SIZE:
        raise ArgumentTypeError(f"must be at least {BATCH_SIZE}, a batch, not {text}")
    return value


if __name__ == "__main__":
    run_command(main)
