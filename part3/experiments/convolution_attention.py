"""Convolution and attention while they learn (question 3.4e of UvA 2025): two layers of each on Cora.

    python -m part3.experiments.convolution_attention --jobs 2

The layers are `MessageGraphConvolution` and `GraphAttention` of part3/graph_cnn.py; everything else is the same for
both. The curves show every run to its last epoch; the test accuracy is that of the weights that were best in
validation. Writes report/results/part3_convolution_attention.csv, one row a run, part3_convolution_attention_curves.csv
and the figure part3_convolution_attention.
"""

from argparse import Namespace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from common.command import positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from common.run_folder import read_metrics
from part3.citation import load_graph

NAME = "part3_convolution_attention"
RUNS, MODELS, NUM_RUNS, EPOCHS = ROOT / "runs" / "part3" / "convolution_attention", ("convolution", "attention"), 5, 200


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        train_all(args)
    rows, curves = read_results(NAME, args.results), read_results(f"{NAME}_curves", args.results)
    for model in dict.fromkeys(row["model"] for row in rows):
        accuracies = [100 * row["accuracy"] for row in rows if row["model"] == model]
        deviation = f" ± {stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
        print(f"{model}: {mean(accuracies):.1f}{deviation} per cent of the test nodes, {len(accuracies)} runs")
    draw(curves, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}*.csv, {short_path(args.figures / NAME)}.pdf")


def train_all(args: Namespace) -> None:
    """Write the test accuracies, and training and validation accuracy by epoch."""
    rows, curves, A = [], [], load_graph("cora").A
    size = {"nodes": A.shape[0], "edges": len(A.values)}  # what a layer's cost depends on; each direction counts
    for model, (folder, result) in run_sweep({model: training_job(model) for model in args.models}, args).items():
        for seed, accuracy in enumerate(result["accuracies"]):
            rows.append({"model": model, "seed": seed, "accuracy": accuracy} | size)
        columns = ("run", "epoch", "accuracy", "validation_accuracy")
        metrics = read_metrics(folder / "metrics.csv")
        for run, epoch, training, validation in zip(*([value for _, value in metrics[name]] for name in columns)):
            row = {"model": model, "seed": int(run) - 1, "epoch": int(epoch)}
            curves.append(row | {"training": f"{training:.4f}", "validation": f"{validation:.4f}"})
    seeds = list(range(args.runs))
    write_results(NAME, rows, args.results, seeds=seeds)
    write_results(f"{NAME}_curves", curves, args.results, seeds=seeds)


def training_job(model: str) -> Job:
    """Return the training behind one model; its patience has no end, so that all curves have one length."""
    arguments = {"dataset": "cora", "model": model, "runs": NUM_RUNS, "epochs": EPOCHS}
    return Job("part3/train.py", RUNS / model, arguments | {"patience": 1_000_000, "print_every": 4})


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw training and validation accuracy by epoch, a panel each: the mean over runs, and their range."""
    from common.figure import COLOURS, LINE_STYLES, draw_means, new_figure, save_figure

    figure, panels = new_figure(1, 2, sharey=True)
    for axes, part in zip(panels, ("training", "validation")):
        for model, colour, style in zip(dict.fromkeys(row["model"] for row in rows), COLOURS, LINE_STYLES):
            points = [(row["epoch"], 100 * row[part]) for row in rows if row["model"] == model]
            draw_means(axes, points, linestyle=style, color=colour, label=model)
        axes.set(xlabel="epoch", title=f"{part} nodes{', with dropout' if part == 'training' else ''}")
    panels[0].set_ylabel("accuracy (%)")
    panels[1].legend(loc="lower right")
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part3/convolution_attention")
    parser.add_selection("--models", MODELS, "which layers", choices=MODELS)
    runs = "number of trainings of each, from the seeds 0, 1, ..."
    parser.add_setting("--runs", type=positive_int, default=NUM_RUNS, help=runs)
    parser.add_setting("--epochs", type=positive_int, default=EPOCHS, help="number of epochs")
    return parser


if __name__ == "__main__":
    run_command(main)
