"""Node classification on Cora and CiteSeer, 100 runs a setting, beside the published numbers.

    python -m part3.experiments.citation --jobs 2

GCN, GAT and the MLP without edges, on the public split and on random ones. It may be interrupted at any time: finished
runs are kept. Writes report/results/part3_citation.csv, one row a run, and the figure of the same name.
"""

from itertools import product
from statistics import mean, stdev
from typing import Any

from common.command import run_command
from common.experiment import FIGURES, ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Executor, Job
from common.paths import ROOT, short_path

NAME = "part3_citation"
RUNS, NUM_RUNS = ROOT / "runs" / "part3" / "citation", 100
DATASETS, MODELS, SPLITS = ("cora", "citeseer"), ("mlp", "gcn", "gat"), ("public", "random")
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
    args = ExperimentParser(__doc__).parse_args()
    if args.draw_only:
        rows = read_results(NAME)
    else:
        rows, seconds = train_all(args.executor)
        write_results(NAME, rows, seeds=list(range(NUM_RUNS)), training_seconds=seconds)
    print("per cent of the test nodes, mean and standard deviation over runs")
    for setting, accuracies in by_setting(rows).items():
        spread = f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f} ({len(accuracies)} runs)"
        published = f"; published {PUBLISHED[setting]}" if setting in PUBLISHED else ""
        print(f"{', '.join(setting)}: {spread}{published}")
    draw(rows)
    print(f"results and figure: report/results/{NAME}.csv, {short_path(FIGURES / NAME)}.pdf")


def train_all(executor: Executor) -> tuple[list[dict[str, Any]], float]:
    """Return a row for each run, and the seconds that all of them took."""
    settings = [(dataset, split, model) for model in MODELS for split in SPLITS for dataset in DATASETS]
    results = run_jobs([training_job(*setting) for setting in settings], executor)
    rows = []
    for (dataset, split, model), result in zip(settings, results):
        for seed in range(NUM_RUNS):
            row = {"dataset": dataset, "split": split, "model": model, "seed": seed}
            row |= {"accuracy": result["accuracies"][seed], "epochs": result["epochs"][seed]}
            rows.append(row)
    return rows, sum(result["seconds"] for result in results)


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


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw one panel a data set: every run's distribution, its mean, and the published number."""
    from common.figure import COLOURS, new_figure, save_figure

    figure, panels = new_figure(1, 2, height=2.6)
    settings = by_setting(rows)
    for axes, dataset in zip(panels, DATASETS):
        labels = []
        for k, (split, model) in enumerate(product(SPLITS, MODELS)):
            accuracies = settings[dataset, split, model]
            colour = COLOURS[SPLITS.index(split)]
            (violin,) = axes.violinplot(accuracies, [k], widths=0.8, showextrema=False)["bodies"]
            violin.set(facecolor=colour, alpha=0.3)
            axes.plot(k, mean(accuracies), "o", color=colour, label=f"{split} split, mean" if model == "mlp" else None)
            if (dataset, split, model) in PUBLISHED:
                label = "published" if k == 0 else None
                axes.plot(k, PUBLISHED[dataset, split, model], "_", color="black", markersize=14, label=label)
            labels.append(model.upper())
        axes.set(title={"cora": "Cora", "citeseer": "CiteSeer"}[dataset], xticks=range(len(labels)), xticklabels=labels)
    panels[0].set_ylabel("test accuracy (%), 100 runs")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, FIGURES / NAME)


if __name__ == "__main__":
    run_command(main)
