"""Speed of part 3 beside what a user would take instead; every ratio comes from one run on one machine.

    python -m benchmarks.part3

* An epoch of node classification, a training step and an evaluation: ours; PyTorch's own sparse products; PyTorch
  Geometric's layers with sparse features, as ours are, and with dense ones, as in its example for Planetoid; and plain
  dense matrices. Medians over interleaved repeats. The citation graphs are those in the data folder.
* The accuracy that both reach on Cora after the same training.
* How time and memory of an epoch grow with the graph: synthetic graphs of average degree 10, each in its own process.

Prints a table and writes report/results/benchmark_part3.csv.
"""

import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from statistics import mean, median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import interleaved_medians, report
from common.command import ArgumentParser, positive_int, run_command
from common.errors import CommandError
from common.experiment import add_allow_dirty, require_clean_tree, write_results
from common.machine import seeded_generator
from common.paths import ROOT, short_path
from part3.citation import LabelledGraph, load_graph
from part3.gat import GAT
from part3.gcn import GCN
from part3.graph import SparseMatrix, add_self_loops, adjacency, normalise

SIZES = (1_000, 10_000, 100_000, 1_000_000)  # nodes of the synthetic graphs
AVERAGE_DEGREE = 10
NUM_WORDS, WORDS_PER_NODE, NUM_CLASSES = 1_000, 10, 10
SEEDS, EPOCHS = range(10), 200


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--repeats", type=positive_int, default=30, help="repeats of each epoch")
    parser.add_argument(
        "--grow_to", type=positive_int, help="measure one synthetic graph with this many nodes and print it as JSON"
    )
    add_allow_dirty(parser)
    args = parser.parse_args()
    if args.grow_to:
        print(json.dumps(synthetic_epoch(args.grow_to)))
        return
    require_clean_tree(args)
    rows = growth() + citation_epochs(args.repeats) + accuracies()
    print(f"written to {short_path(write_results('benchmark_part3', rows, seeds=list(SEEDS)))}")


def citation_epochs(repeats: int) -> list[dict]:
    rows = []
    for name in ("cora", "citeseer"):
        graph = load_graph(name)
        for model, hidden in (("GCN", 16), ("GAT", 8)):
            networks = networks_on(graph, model, hidden)
            variants = {variant: epoch(network, graph) for variant, network in networks.items()}
            milliseconds = interleaved_medians(variants, repeats)
            rows += report(f"{model}, epoch on {name}", "ms", milliseconds, "PyTorch Geometric, sparse features")
    return rows


def networks_on(graph: LabelledGraph, model: str, hidden: int) -> dict[str, nn.Module]:
    """Return the same network in several forms, each a module without arguments that returns the (N, K) logits."""
    A_hat = normalise(add_self_loops(graph.A))
    d, K = graph.features.shape[1], graph.num_classes
    ours = GCN([d, hidden, K]) if model == "GCN" else GAT([d, hidden, K])
    networks = {
        "ours": Bound(ours, A_hat, graph.features),
        "PyTorch Geometric, sparse features": Geometric(graph, csr(graph.features), model, hidden),
        "PyTorch Geometric, dense features": Geometric(graph, graph.features.to_dense(), model, hidden),
    }
    if model == "GCN":
        networks["PyTorch's sparse products"] = Matrices(csr(A_hat), csr(graph.features), hidden, K)
        networks["dense matrices"] = Matrices(A_hat.to_dense(), graph.features.to_dense(), hidden, K)
    return networks


class Bound(nn.Module):
    """Our model together with its input."""

    def __init__(self, model: nn.Module, A: SparseMatrix, features: SparseMatrix):
        super().__init__()
        self.model, self.A, self.features = model, A, features

    def forward(self) -> Tensor:
        return self.model(self.A, self.features)


class Geometric(nn.Module):
    """The library's layers in place of ours; the normalised adjacency is cached."""

    def __init__(self, graph: LabelledGraph, x: Tensor, model: str, hidden: int):
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
        self.x, self.edge_index = x, torch.stack([graph.A.columns, graph.A.rows])

    def forward(self) -> Tensor:
        h = drop(self.x, self.dropout, self.training)
        h = self.activation(self.first(h, self.edge_index))
        return self.second(F.dropout(h, self.dropout, self.training), self.edge_index)


def csr(A: SparseMatrix) -> Tensor:
    """Return the matrix in PyTorch's format of compressed rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that this format is in beta
        return torch.sparse_coo_tensor(torch.stack([A.rows, A.columns]), A.values, A.shape).to_sparse_csr()


def drop(x: Tensor, probability: float, training: bool) -> Tensor:
    """Return x with dropout; of a sparse one, whose other entries are zero, its entries alone."""
    if x.layout != torch.sparse_csr:
        return F.dropout(x, probability, training)
    kept = F.dropout(x.values(), probability, training)
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), kept, size=x.shape)


class Matrices(nn.Module):
    """Equation (18) with PyTorch's matrices, sparse or dense throughout."""

    def __init__(self, A_hat: Tensor, x: Tensor, hidden: int, K: int):
        super().__init__()
        self.A_hat, self.x = A_hat, x
        self.first, self.second = nn.Linear(x.shape[1], hidden), nn.Linear(hidden, K)

    def forward(self) -> Tensor:
        h = self.A_hat @ self.first(drop(self.x, 0.5, self.training))
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
    """Train the GCN on Cora for 200 epochs from ten seeds and test the last weights."""
    graph = load_graph("cora")
    library = "PyTorch Geometric, dense features"
    percent: dict[str, list[float]] = {"ours": [], library: []}
    for seed in SEEDS:
        torch.manual_seed(seed)
        networks = networks_on(graph, "GCN", 16)
        for name, values in percent.items():
            run = epoch(networks[name], graph)
            for _ in range(EPOCHS):
                run()
            correct = networks[name].predicted[graph.test] == graph.labels[graph.test]
            values.append(100 * correct.double().mean().item())
    means = {name: mean(values) for name, values in percent.items()}
    return report(f"GCN, accuracy on cora after {EPOCHS} epochs, mean of {len(SEEDS)}", "%", means, library)


def growth() -> list[dict]:
    rows = []
    for num_nodes in SIZES:
        command = [sys.executable, "-m", "benchmarks.part3", "--grow_to", str(num_nodes)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        measured = json.loads(done.stdout)
        benchmark = f"GCN, synthetic graph of {num_nodes:,} nodes, {measured['edges']:,} edges"
        values = [
            ("time", measured["milliseconds"], "ms"),
            ("time an edge", 1e6 * measured["milliseconds"] / measured["edges"], "ns"),
            ("memory", measured["megabytes"], "MB"),
            ("memory an edge", 2**20 * measured["megabytes"] / measured["edges"], "bytes"),
        ]
        print(f"{benchmark}: " + ", ".join(f"{name} {value:.4g} {unit}" for name, value, unit in values))
        rows += [
            {"benchmark": benchmark, "variant": name, "value": f"{value:.5g}", "unit": unit, "ratio": ""}
            for name, value, unit in values
        ]
    return rows


def synthetic_epoch(num_nodes: int) -> dict[str, float]:
    """Return the median time of an epoch on a random graph, and the peak memory that the graph and the epoch take."""
    synthetic_graph_epoch(100)()  # loads what a process needs for any graph
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
    words = torch.randint(NUM_WORDS, (num_nodes * WORDS_PER_NODE,), generator=generator)
    nodes = torch.arange(num_nodes).repeat_interleave(WORDS_PER_NODE)
    shares = torch.full((len(words),), 1 / WORDS_PER_NODE)
    every_tenth = torch.arange(0, num_nodes, 10)
    graph = LabelledGraph(
        "synthetic",
        A=adjacency(edges, num_nodes),
        features=SparseMatrix(nodes, words, shares, (num_nodes, NUM_WORDS)),
        labels=torch.randint(NUM_CLASSES, (num_nodes,), generator=generator),
        num_classes=NUM_CLASSES,
        train=every_tenth,
        validation=every_tenth,
        test=every_tenth,
    )
    return epoch(Bound(GCN([NUM_WORDS, 16, NUM_CLASSES]), normalise(add_self_loops(graph.A)), graph.features), graph)


if __name__ == "__main__":
    run_command(main)
