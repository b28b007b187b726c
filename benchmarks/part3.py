"""Speed of part 3 beside what a user would take instead; every ratio comes from one run on one machine.

    python benchmarks/part3.py

* An epoch of node classification, a training step and an evaluation: ours; PyTorch Geometric's layers as its example for
  Planetoid uses them, with dense features; and plain dense matrices. Medians over interleaved repeats. The citation graphs are
  those in the data folder.
* The accuracy that both reach on Cora in the same training.
* How time and memory of an epoch grow with the graph: synthetic ones of average degree 10, each in a process of its own.

Prints a table and writes report/results/benchmark_part3.csv.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.timing import interleaved_medians, report
from common.errors import ArgumentParser, CommandError, positive_int, run_command
from common.experiment import write_results
from common.machine import ROOT, seeded_generator
from part3.citation import LabelledGraph, load_graph
from part3.gat import GAT
from part3.gcn import GCN
from part3.graph import SparseMatrix, add_self_loops, adjacency, normalise

SIZES = (1_000, 10_000, 100_000, 1_000_000)  # nodes of the synthetic graphs
AVERAGE_DEGREE, NUM_WORDS, WORDS_A_NODE, NUM_CLASSES = 10, 1_000, 10, 10
SEEDS, EPOCHS = range(10), 200


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=positive_int, default=30, help="of each epoch")
    parser.add_argument("--grow_to", type=int, help="measure one synthetic graph of so many nodes, and print it as JSON")
    args = parser.parse_args()
    if args.grow_to:
        print(json.dumps(synthetic_epoch(args.grow_to)))
        return
    rows = growth() + citation_epochs(args.repeats) + accuracies()
    path = write_results("benchmark_part3", rows, seeds=list(SEEDS))
    print(f"written to {path.relative_to(ROOT)}")


def citation_epochs(repeats: int) -> list[dict]:
    rows = []
    for name in ("cora", "citeseer"):
        graph = load_graph(name)
        for model, hidden in (("GCN", 16), ("GAT", 8)):
            variants = {
                variant: epoch(forward, graph)
                for variant, forward in forwards(graph, model, hidden).items()
                if model == "GCN" or variant != "dense matrices"
            }
            rows += report(f"{model}, epoch on {name}", "ms", interleaved_medians(variants, repeats), "PyTorch Geometric")
    return rows


def forwards(graph: LabelledGraph, model: str, hidden: int) -> dict[str, nn.Module]:
    """Return modules that take nothing and give the (N, K) logits of the same network, by three routes."""
    A_hat = normalise(add_self_loops(graph.A))
    d, K = graph.features.shape[1], graph.num_classes
    ours = GCN([d, hidden, K]) if model == "GCN" else GAT([d, hidden, K])
    return {
        "ours": Bound(ours, A_hat, graph.features),
        "PyTorch Geometric": Geometric(graph, model, hidden),
        "dense matrices": Dense(A_hat.to_dense(), graph.features.to_dense(), hidden, K),
    }


class Bound(nn.Module):
    """Our model together with its input."""

    def __init__(self, model: nn.Module, A: SparseMatrix, features: SparseMatrix):
        super().__init__()
        self.model, self.A, self.features = model, A, features

    def forward(self) -> Tensor:
        return self.model(self.A, self.features)


class Geometric(nn.Module):
    """The library's layers in the place of ours; the normalised adjacency is cached, the features are dense."""

    def __init__(self, graph: LabelledGraph, model: str, hidden: int):
        super().__init__()
        try:
            from torch_geometric.nn import GATConv, GCNConv
        except ImportError:
            raise CommandError('PyTorch Geometric is not installed: pip install -e ".[molecules]"') from None
        d, K = graph.features.shape[1], graph.num_classes
        if model == "GCN":
            self.first, self.second = GCNConv(d, hidden, cached=True), GCNConv(hidden, K, cached=True)
            self.dropout, self.activation = 0.5, F.relu
        else:
            self.first, self.second = GATConv(d, hidden, 8, dropout=0.6), GATConv(8 * hidden, K, dropout=0.6)
            self.dropout, self.activation = 0.6, F.elu
        self.x, self.edge_index = graph.features.to_dense(), torch.stack([graph.A.columns, graph.A.rows])

    def forward(self) -> Tensor:
        h = F.dropout(self.x, self.dropout, self.training)
        h = self.activation(self.first(h, self.edge_index))
        return self.second(F.dropout(h, self.dropout, self.training), self.edge_index)


class Dense(nn.Module):
    """Equation 18 with dense matrices throughout."""

    def __init__(self, A_hat: Tensor, x: Tensor, hidden: int, K: int):
        super().__init__()
        self.A_hat, self.x = A_hat, x
        self.first, self.second = nn.Linear(x.shape[1], hidden), nn.Linear(hidden, K)

    def forward(self) -> Tensor:
        h = self.A_hat @ self.first(F.dropout(self.x, 0.5, self.training))
        return self.A_hat @ self.second(F.dropout(F.relu(h), 0.5, self.training))


def epoch(model: nn.Module, graph: LabelledGraph) -> Callable[[], None]:
    """Return a function that takes one training step and evaluates once, as Kipf and Welling train."""
    first, second = model.model.layers if isinstance(model, Bound) else (model.first, model.second)
    groups = [{"params": first.parameters(), "weight_decay": 5e-4}, {"params": second.parameters()}]
    optimizer = torch.optim.Adam(groups, lr=0.01)

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model()[graph.train], graph.labels[graph.train]).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            model.predicted = model().argmax(dim=1)

    return run


def accuracies() -> list[dict]:
    """Train the GCN on Cora for 200 epochs from ten seeds; the last weights are tested."""
    graph = load_graph("cora")
    found: dict[str, list[float]] = {"ours": [], "PyTorch Geometric": []}
    for seed in SEEDS:
        torch.manual_seed(seed)
        variants = forwards(graph, "GCN", 16)
        for name, values in found.items():
            run = epoch(variants[name], graph)
            for _ in range(EPOCHS):
                run()
            correct = variants[name].predicted[graph.test] == graph.labels[graph.test]
            values.append(100 * correct.double().mean().item())
    means = {name: mean(values) for name, values in found.items()}
    return report(f"GCN, accuracy on cora after {EPOCHS} epochs, mean of {len(SEEDS)}", "%", means, "PyTorch Geometric")


def growth() -> list[dict]:
    rows = []
    for num_nodes in SIZES:
        command = [sys.executable, str(Path(__file__).resolve()), "--grow_to", str(num_nodes)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        benchmark = f"GCN, synthetic graph of {num_nodes:,} nodes, {found['edges']:,} edges"
        values = [
            ("time", found["milliseconds"], "ms"),
            ("time an edge", 1e6 * found["milliseconds"] / found["edges"], "ns"),
            ("memory", found["megabytes"], "MB"),
            ("memory an edge", 2**20 * found["megabytes"] / found["edges"], "bytes"),
        ]
        print(f"{benchmark}: " + ", ".join(f"{name} {value:.4g} {unit}" for name, value, unit in values))
        rows += [
            {"benchmark": benchmark, "variant": name, "value": f"{value:.5g}", "unit": unit, "ratio": ""}
            for name, value, unit in values
        ]
    return rows


def synthetic_epoch(num_nodes: int) -> dict[str, float]:
    """Return the median time of an epoch on a random graph, and the memory that it and its graph take at their peak."""
    synthetic_graph_epoch(100)()  # what a process needs for any graph
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = synthetic_graph_epoch(num_nodes)
    times = []
    for _ in range(3 + max(5, 100_000 // num_nodes)):
        started = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - started))
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"edges": num_nodes * AVERAGE_DEGREE // 2, "milliseconds": median(times[3:]), "megabytes": megabytes}


def synthetic_graph_epoch(num_nodes: int) -> Callable[[], None]:
    """Return an epoch of the GCN on a random graph with random bags of words."""
    generator = seeded_generator(0, "graph")
    edges = torch.randint(num_nodes, (2, num_nodes * AVERAGE_DEGREE // 2), generator=generator)
    words = torch.randint(NUM_WORDS, (num_nodes * WORDS_A_NODE,), generator=generator)
    of_node = torch.arange(num_nodes).repeat_interleave(WORDS_A_NODE)
    graph = LabelledGraph(
        "synthetic",
        adjacency(edges, num_nodes),
        SparseMatrix(of_node, words, torch.full((len(words),), 1 / WORDS_A_NODE), (num_nodes, NUM_WORDS)),
        torch.randint(NUM_CLASSES, (num_nodes,), generator=generator),
        NUM_CLASSES,
        *[torch.arange(0, num_nodes, 10)] * 3,
    )
    return epoch(Bound(GCN([NUM_WORDS, 16, NUM_CLASSES]), normalise(add_self_loops(graph.A)), graph.features), graph)


if __name__ == "__main__":
    run_command(main)
