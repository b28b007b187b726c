"""Node classification on Cora and CiteSeer, 100 runs a setting, beside the published numbers.

    python -m part3.experiments.citation --jobs 2

GCN, GAT and the MLP without edges, on the public split and on random ones. It may be interrupted at any time: finished
runs are kept. Writes report/results/part3_citation.csv, one row a run, and the figure of the same name.
"""

from argparse import Namespace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from common.command import positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from part3.citation import CITATION_GRAPHS

NAME = "part3_citation"
RUNS, NUM_RUNS = ROOT / "runs" / "part3" / "citation", 100
DATASETS, MODELS, SPLITS = ("cora", "citeseer"), ("mlp", "gcn", "gat"), ("public", "random")
TITLES = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
# Test accuracy in per cent: Kipf and Welling (2017), table 2; for GAT, Veličković et al. (2018), table 2.
PUBLISHED = {
    ("cora", "public", "mlp"): 55.1,
    ("cora", "public", "gcn"): 81.5,
    ("cora", "public", "gat"): 83.0,
    ("cora", "random", "gcn"): 80.1,
    ("citeseer", "public", "mlp"): 46.5,
    ("citeseer", "public", "gcn"): 70.3,
    ("citeseer", "public", "gat"): 72.5,
    ("citeseer", "random", "gcn"): 67.9,
}


def main() -> None:
    args = build_parser().parse_args()
    if args.committed:
        rows = read_results(NAME)
    else:
        rows, seconds = train_all(args)
        write_results(NAME, rows, args.results, seeds=list(range(args.runs)), training_seconds=seconds)
    print("per cent of the test nodes, mean and standard deviation over runs")
    for setting, accuracies in by_setting(rows).items():
        deviation = f" ± {stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        spread = f"{mean(accuracies):.2f}{deviation} ({len(accuracies)} runs)"
        published = f"; published {PUBLISHED[setting]}" if setting in PUBLISHED else ""
        print(f"{', '.join(setting)}: {spread}{published}")
    draw(rows, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}.csv, {short_path(args.figures / NAME)}.pdf")


def train_all(args: Namespace) -> tuple[list[dict[str, Any]], float]:
    """Return a row for each run, and the seconds that all of them took."""
    settings = [(dataset, split, model) for model in args.models for split in args.splits for dataset in args.datasets]
    trainings = run_sweep({setting: training_job(*setting) for setting in settings}, args)
    rows = []
    for (dataset, split, model), (_, result) in trainings.items():
        for seed, (accuracy, epochs) in enumerate(zip(result["accuracies"], result["epochs"])):
            row = {"dataset": dataset, "split": split, "model": model, "seed": seed}
            rows.append(row | {"accuracy": accuracy, "epochs": epochs})
    return rows, sum(result["seconds"] for _, result in trainings.values())


def training_job(dataset: str, split: str, model: str) -> Job:
    """Return the training behind one setting."""
    arguments = {"dataset": dataset, "split": split, "model": model, "runs": NUM_RUNS}
    return Job("part3/train.py", RUNS / f"{dataset}_{split}_{model}", arguments)


def by_setting(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[float]]:
    """Return the test accuracies of all runs in per cent: {(dataset, split, model): [accuracy, ...]}."""
    settings: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        settings.setdefault((row["dataset"], row["split"], row["model"]), []).append(100 * row["accuracy"])
    return settings


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw one panel a data set: every run's distribution, its mean, and the published number."""
    from common.figure import COLOURS, new_figure, save_figure

    settings = by_setting(rows)
    datasets = [dataset for dataset in CITATION_GRAPHS if any(dataset == setting[0] for setting in settings)]
    figure, panels = new_figure(1, len(datasets), height=2.6)
    for axes, dataset in zip(panels, datasets):
        keys = [(split, model) for split in SPLITS for model in MODELS if (dataset, split, model) in settings]
        labelled = set()
        for k, (split, model) in enumerate(keys):
            accuracies = settings[dataset, split, model]
            colour = COLOURS[SPLITS.index(split)]
            violin: dict[str, Any] = axes.violinplot(accuracies, [k], widths=0.8, showextrema=False)
            violin["bodies"][0].set(facecolor=colour, alpha=0.3)
            label = f"{split} split, mean"
            axes.plot(k, mean(accuracies), "o", color=colour, label=None if label in labelled else label)
            labelled.add(label)
            if (dataset, split, model) in PUBLISHED:
                name = None if "published" in labelled else "published"
                axes.plot(k, PUBLISHED[dataset, split, model], "_", color="black", markersize=14, label=name)
                labelled.add("published")
        labels = [model.upper() for _, model in keys]
        axes.set(title=TITLES[dataset], xticks=range(len(labels)), xticklabels=labels)
    panels[0].set_ylabel(f"test accuracy (%), {max(map(len, settings.values()))} runs")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part3/citation")
    parser.add_selection("--datasets", DATASETS, "which graphs", choices=CITATION_GRAPHS)
    parser.add_selection("--models", MODELS, "which networks", choices=MODELS)
    parser.add_selection("--splits", SPLITS, "which splits", choices=SPLITS)
    runs = "number of trainings in each setting, from the seeds 0, 1, ..."
    parser.add_setting("--runs", type=positive_int, default=NUM_RUNS, help=runs)
    parser.add_setting("--epochs", type=positive_int, help="maximum number of epochs (default: 200; gat: 1000)")
    return parser


if __name__ == "__main__":
    run_command(main)
