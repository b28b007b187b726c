"""What depth does to a GCN, and a way out (question 3.1b of UvA November 2019 and UvA 2020).

    python -m part3.experiments.depth --jobs 2

GCN and GCNII (part3/gcnii.py) with 2 to 32 layers on Cora. Beside the test accuracy it measures how alike the nodes
have become: the mean cosine distance, 1 - cos of the angle, of all pairs of nodes' last hidden features, before and
after training. The training nodes' accuracy tells whether a network could be trained at all.

Writes report/results/part3_depth.csv, one row a run, and the figure of the same name. It may be interrupted at any
time: finished runs are kept.
"""

from argparse import Namespace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.machine import seeded_generator
from common.paths import ROOT, short_path
from common.run_folder import load_checkpoint
from part3.citation import CITATION_GRAPHS, LabelledGraph, load_graph
from part3.gcn import GCN
from part3.gcnii import GCNII
from part3.graph import SparseMatrix, add_self_loops, normalise

NAME = "part3_depth"
RUNS = ROOT / "runs" / "part3" / "depth"
MODELS, LAYERS, SEEDS, NUM_HIDDEN = ("gcn", "gcnii"), (2, 4, 8, 16, 32), (0, 1, 2), 32


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        write_results(NAME, measure(args), args.results, seeds=args.seeds, settings=args.settings)
    rows = read_results(NAME, args.results)
    for model in dict.fromkeys(row["model"] for row in rows):
        for column in ("accuracy", "training_accuracy", "distance_initial", "distance_trained"):
            means = {layers: f"{value:.3g}" for layers, value in means_by_layers(rows, model, column).items()}
            print(f"{model}, {column} by number of layers: {means}")
    draw(rows, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}.csv, {short_path(args.figures / NAME)}.pdf")


def measure(args: Namespace) -> list[dict[str, Any]]:
    """Return a row for each run."""
    plan = [(model, layers, seed) for model in args.models for layers in args.layers for seed in args.seeds]
    graph = load_graph(args.dataset)
    A_hat = normalise(add_self_loops(graph.A))
    rows = []
    runs = run_sweep({run: training_job(args.dataset, *run) for run in plan}, args)
    for (model, layers, seed), (folder, result) in runs.items():
        row = {"model": model, "layers": layers, "seed": seed, "accuracy": result["test_accuracy"]}
        rows.append(row | {"epochs": result["epochs"][0]} | of_features(folder, graph, A_hat))
    return rows


def training_job(dataset: str, model: str, num_layers: int, seed: int) -> Job:
    arguments = {"dataset": dataset, "model": model, "num_layers": num_layers, "num_hidden": NUM_HIDDEN, "seed": seed}
    return Job("part3/train.py", RUNS / f"{dataset}_{model}_{num_layers}_seed{seed}", arguments)


@torch.no_grad()
def of_features(folder: Path, graph: LabelledGraph, A_hat: SparseMatrix) -> dict[str, str]:
    """Return a finished run's accuracy on the training nodes, and the distance of nodes before and after training."""
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    settings = checkpoint["arguments"]
    d, n, K, num_layers = graph.features.shape[1], settings["num_hidden"], graph.num_classes, settings["num_layers"]
    gcn = settings["model"] == "gcn"
    model = GCN([d, *[n] * (num_layers - 1), K]) if gcn else GCNII(d, n, K, num_layers)
    model.reset_parameters(seeded_generator(settings["seed"], "weights"))
    model.eval()
    found = {"distance_initial": f"{mean_distance(model.embed(A_hat, graph.features)):.6g}"}
    model.load_state_dict(checkpoint["model"])
    found["distance_trained"] = f"{mean_distance(model.embed(A_hat, graph.features)):.6g}"
    correct = model(A_hat, graph.features).argmax(dim=1) == graph.labels
    return found | {"training_accuracy": f"{correct[graph.train].double().mean().item():.6g}"}


def mean_distance(H: Tensor | SparseMatrix) -> float:
    """Return the mean of 1 - cos(h_i, h_j) over all pairs of different nodes, from their (N, n) features.

    Nodes whose features are all zero have no direction and are left out; if fewer than two are left, the mean is 0.
    """
    H = H.to_dense() if isinstance(H, SparseMatrix) else H  # of a GCN with one layer
    h = F.normalize(H.double()[(H != 0).any(dim=1)], dim=1)
    N = len(h)
    if N < 2:
        return 0.0
    return 1 - (h.sum(dim=0).square().sum().item() - N) / (N * (N - 1))  # |Σ h_i|² = N + Σ_{i≠j} cos(h_i, h_j)


def means_by_layers(rows: list[dict[str, Any]], model: str, column: str) -> dict[int, float]:
    """Return the mean over seeds of a column, for each number of layers."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["model"] == model:
            values.setdefault(row["layers"], []).append(row[column])
    return {layers: mean(of_seeds) for layers, of_seeds in values.items()}


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw test accuracy, and the distance of nodes, against the number of layers: means as lines, runs as dots."""
    from common.figure import COLOURS, MARKERS, new_figure, plain_ticks, save_figure

    figure, (left, right) = new_figure(1, 2)
    for model, colour, marker in zip(dict.fromkeys(row["model"] for row in rows), COLOURS, MARKERS):
        x, y = zip(*means_by_layers(rows, model, "accuracy").items())
        left.plot(x, y, marker=marker, color=colour, label=model.upper())
        runs = [(row["layers"], row["accuracy"]) for row in rows if row["model"] == model]
        left.plot(*zip(*runs), ".", color=colour, alpha=0.4)
        for moment, style in (("initial", ":"), ("trained", "-")):
            x, y = zip(*means_by_layers(rows, model, f"distance_{moment}").items())
            when = "before" if moment == "initial" else "after"
            label = f"{model.upper()}, {when} training"
            right.plot(x, y, style, marker=marker, color=colour, label=label)
    layers = sorted({row["layers"] for row in rows})
    for axes, name in ((left, "test accuracy"), (right, "mean cosine distance of nodes")):
        axes.set_xscale("log", base=2)
        axes.set(xlabel="number of layers", ylabel=name, xticks=layers, xticklabels=layers)
    if min(row["distance_initial"] for row in rows) > 0:
        right.set_yscale("log")
        plain_ticks(right.yaxis)
    left.legend()
    right.legend()
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part3/depth")
    parser.add_selection("--models", MODELS, "which networks", choices=MODELS)
    parser.add_selection("--layers", LAYERS, "numbers of layers", type=positive_int)
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    graphs = ("karate", *CITATION_GRAPHS)
    parser.add_sweep_argument("--dataset", choices=graphs, default="cora", help="the graph")
    parser.add_setting("--epochs", type=positive_int, default=200, help="maximum number of epochs")
    return parser


if __name__ == "__main__":
    run_command(main)
