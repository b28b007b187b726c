"""Look at graphs in a browser: learnt features in two dimensions, neighbours, attention; and news that travels by hops.

    python part3/train.py --run_dir runs/club
    python part3/train.py --dataset cora --model gat --run_dir runs/gat
    python part3/explore.py --checkpoint runs/club runs/gat

The page needs no server or network. Attention is that of the first layer, the mean over its heads.
"""

import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch

from common.command import ArgumentParser, non_empty, run_command
from common.data import input_file
from common.errors import InputError, reason_of
from common.page import write_page
from common.paths import short_path
from common.run_folder import load_checkpoint
from part3.citation import LabelledGraph, load_graph
from part3.gat import GAT, GATLayer
from part3.graph import SparseMatrix
from part3.networks import Network, build_model, principal_components, propagation_matrix
from part3.tables import read_graph

TOPICS = {  # by Planetoid's numbers: which is which follows from how many papers each topic has
    "cora": [
        "theory",
        "reinforcement learning",
        "genetic algorithms",
        "neural networks",
        "probabilistic methods",
        "case-based reasoning",
        "rule learning",
    ]
}


def main() -> None:
    args = build_parser().parse_args()
    graphs = [graph_data(Path(run)) for run in args.checkpoint]
    page = Path(args.page) if args.page else Path(args.checkpoint[0]) / "explore.html"
    write_page(page, Path(__file__).with_name("explore.html"), {"graphs": graphs})
    print(f"{short_path(page)}: open it in a browser")


@torch.no_grad()
def graph_data(run: Path) -> dict[str, Any]:
    """Return what the page needs of one run: where each node is drawn, what is said of it, and its edges."""
    model, A, graph, name = load_run(run)
    model.eval()
    probability, predicted = model(A, graph.features).softmax(dim=1).max(dim=1)
    places = principal_components(model.embed(A, graph.features))
    split = ["" for _ in graph.labels]
    for part in ("train", "validation", "test"):
        for node in getattr(graph, part).tolist():
            split[node] = part
    edges = graph.A
    return {
        "name": graph.name,
        "model": name,
        "classes": TOPICS.get(graph.name, graph.classes),
        "ids": graph.ids,
        "x": rounded(places[:, 0]),
        "y": rounded(places[:, 1]),
        "labels": graph.labels.tolist(),
        "predicted": predicted.tolist(),
        "probability": rounded(probability),
        "split": split,
        "receivers": edges.rows.tolist(),
        "senders": edges.columns.tolist(),
        "attention": rounded(attention(model, A, graph.features, edges)) if isinstance(model, GAT) else None,
    }


def attention(model: GAT, A: SparseMatrix, features: SparseMatrix, edges: SparseMatrix) -> torch.Tensor:
    """Return the first layer's weight of each edge, (E,), the mean over its heads; A has self-loops besides."""
    layer = model.layers[0]
    assert isinstance(layer, GATLayer)
    WH = (features @ layer.W).unflatten(1, (layer.heads, -1))  # (N, K, n)
    alpha = layer.attention(A, WH).mean(dim=1)
    return alpha[A.rows != A.columns]


def rounded(values: torch.Tensor) -> list[float]:
    """Return numbers as short as a page needs them."""
    return [float(f"{value:.4g}") for value in values.tolist()]


def load_run(run: Path) -> tuple[Network, SparseMatrix, LabelledGraph, str]:
    """Return a run's model, the matrix that it takes, its graph, and the model's name.

    Raises:
        FileNotFoundError: the folder has no checkpoint, or the graph's tables are gone.
        ValueError: the checkpoint is not that of a run of part3/train.py on this graph.
    """
    path = run / "checkpoint.pt"
    checkpoint = load_checkpoint(input_file(path, "the checkpoint of a run of part3/train.py"))
    try:
        arguments = json.loads((run / "config.json").read_text(encoding="utf-8"))["arguments"]
        name = arguments["model"]
        if arguments["nodes"]:
            graph = read_graph(arguments["nodes"], arguments["edges"], arguments["directed"], arguments["seed"])
        else:
            graph = load_graph(arguments["dataset"], arguments["data_dir"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{short_path(run)} is no run of part3/train.py ({reason_of(error)})") from None
    if graph.checksum() != checkpoint.get("graph"):
        raise InputError(f"{short_path(run)} was trained on another graph than the one that is there now")
    sizes = [graph.features.shape[1], *[arguments["num_hidden"]] * (arguments["num_layers"] - 1), graph.num_classes]
    try:
        model = build_model(name, sizes, 0.0, arguments["heads"], arguments["output_heads"])
        model.load_state_dict(checkpoint["model"])
    except Exception as error:  # nearly any type, where somebody has made the file by hand
        raise InputError(f"{short_path(path)} holds no model that fits together ({reason_of(error)})") from None
    return model, propagation_matrix(graph.A, name, arguments["normalisation"]), graph, name


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", nargs="+", type=non_empty, required=True, help="run folders of part3/train.py")
    add("--page", type=non_empty, help="file to write (default: explore.html in the first run folder)")
    return parser


if __name__ == "__main__":
    run_command(main)
