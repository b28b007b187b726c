"""Classify the nodes of a graph of which only a few have a label.

    python part3/train.py                                            the karate club, in seconds
    python part3/train.py --dataset cora --model gcn --runs 100      Kipf and Welling's table
    python part3/train.py --dataset cora --model gat --runs 100      Veličković et al.'s

Every step sees the whole graph; the loss is the cross-entropy of the training nodes. The weights are kept at each epoch at
which both loss and accuracy on the validation nodes are the best so far, and tested in the end; training stops `patience`
epochs after either was. (The karate club has no validation nodes: the last weights are tested.) Run k starts from seed + k;
with `--split random` it also draws its own training, validation and test nodes. The defaults are those of the papers.
"""

import copy
import math
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, Namespace
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.errors import (
    ArgumentParser,
    CommandError,
    StopRequest,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.machine import get_device, seeded_generator
from common.run_folder import RunFolder
from part3.citation import CITATION_GRAPHS, CLUB_SIZE, LabelledGraph, load_graph, random_split
from part3.gat import GAT
from part3.gcn import GCN
from part3.graph import SparseMatrix, add_self_loops, identity, normalise

# Kipf and Welling (2017), section 5.2, and Veličković et al. (2018), section 3.3; the MLP is the GCN without its edges.
GCN_DEFAULTS = {
    "num_hidden": 16,
    "dropout": 0.5,
    "weight_decay": 5e-4,
    "learning_rate": 0.01,
    "epochs": 200,
}
GAT_DEFAULTS = {
    "num_hidden": 8,
    "dropout": 0.6,
    "weight_decay": 5e-4,
    "learning_rate": 0.005,
    "epochs": 1000,
}
DEFAULTS = {"gcn": GCN_DEFAULTS, "gat": GAT_DEFAULTS, "mlp": GCN_DEFAULTS}
PUBMED_GAT_DEFAULTS = {"weight_decay": 1e-3, "learning_rate": 0.01, "output_heads": 8}
COLUMNS = ("run", "epoch", "loss", "accuracy", "validation_loss", "validation_accuracy")


def main() -> None:
    train(parse_arguments())


def train(args: Namespace) -> None:
    device = get_device(args.device)
    graph = load_graph(args.dataset, args.data_dir)
    accuracies, epochs, seconds, weights = [], [], 0.0, None

    run = RunFolder(args, f"part3/{args.dataset}_{args.model}_seed{args.seed}", COLUMNS)
    if run.checkpoint:
        accuracies, epochs, seconds, weights = (run.checkpoint[key] for key in ("accuracies", "epochs", "seconds", "model"))

    began = time.perf_counter() - seconds
    progress = tqdm(total=args.runs, initial=len(accuracies), desc=args.dataset, unit="run", disable=None, leave=False)
    with run, progress, StopRequest() as stop:
        while len(accuracies) < args.runs:
            weights, accuracy, num_epochs = train_once(args, graph, len(accuracies), device, run, stop)
            accuracies.append(accuracy)
            epochs.append(num_epochs)
            seconds = time.perf_counter() - began
            run.save_checkpoint(
                len(accuracies) * args.epochs, model=weights, accuracies=accuracies, epochs=epochs, seconds=seconds
            )
            progress.set_postfix(accuracy=f"{mean(accuracies):.4f}")
            progress.update()

        interval = confidence_interval(accuracies)
        run.write_result(
            {
                "test_accuracy": mean(accuracies),
                "confidence_interval": interval,
                "accuracies": accuracies,
                "epochs": epochs,
                "seconds": round(seconds, 2),
            }
        )
        from common.figure import draw_curves  # matplotlib takes a second to import, needed only here

        first_run = {
            name: [(step, value) for step, value in pairs if step <= args.epochs] for name, pairs in run.read_metrics().items()
        }
        draw_curves(first_run, "validation", run.path / "curves")
        if args.dataset == "karate":
            draw_club(args, split_of_run(args, graph, len(accuracies) - 1), weights, run.path / "club")
    spread = f", the mean of {args.runs} runs, 95 % interval ± {interval:.4f}" if interval is not None else ""
    print(
        f"{args.dataset}, {args.model}: accuracy {mean(accuracies):.4f} on {len(graph.test):,} unlabelled nodes, from "
        f"{len(graph.train)} labelled ones{spread}; {mean(epochs):.0f} epochs, {seconds / len(accuracies):.1f} s a run; "
        f"run folder {run}"
    )


def train_once(
    args: Namespace, graph: LabelledGraph, k: int, device: torch.device, run: RunFolder, stop: StopRequest
) -> tuple[dict[str, Tensor], float, int]:
    """Return the weights that the `k`-th run keeps, their test accuracy, and the number of epochs it took."""
    graph = split_of_run(args, graph, k)
    torch.manual_seed(args.seed + k)  # dropout
    A, features, labels = prepare(args, graph).to(device), graph.features.to(device), graph.labels.to(device)
    model = build_model(args, graph, seeded_generator(args.seed + k, "weights")).to(device)
    decayed = model.parameters() if args.model == "gat" else model.layers[0].parameters()  # the papers differ in this
    decayed = list(decayed)
    others = [parameter for parameter in model.parameters() if not any(parameter is other for other in decayed)]
    optimizer = torch.optim.Adam(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others}], lr=args.learning_rate
    )
    lowest_loss, highest_accuracy, epochs_since, kept = math.inf, 0.0, 0, None

    for epoch in range(1, args.epochs + 1):
        logits = model(A, features)[graph.train]  # (nodes, K)
        loss = F.cross_entropy(logits, labels[graph.train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        step = k * args.epochs + epoch
        if not math.isfinite(loss.item()):
            raise run.diverged(step, f"the loss of run {k + 1} is {loss.item():g}")
        values = {
            "run": k + 1,
            "epoch": epoch,
            "loss": loss.item(),
            "accuracy": (logits.argmax(dim=1) == labels[graph.train]).double().mean().item(),
        }
        if len(graph.validation):
            validation_loss, validation_accuracy = evaluate(model, A, features, labels, graph.validation)
            values |= {"validation_loss": validation_loss, "validation_accuracy": validation_accuracy}
            better_loss, better_accuracy = validation_loss <= lowest_loss, validation_accuracy >= highest_accuracy
            if better_loss and better_accuracy:
                kept = copy.deepcopy(model.state_dict())
            lowest_loss, highest_accuracy = min(lowest_loss, validation_loss), max(highest_accuracy, validation_accuracy)
            epochs_since = 0 if better_loss or better_accuracy else epochs_since + 1
        ended = epoch == args.epochs or epochs_since >= args.patience
        if epoch % args.print_every == 0 or ended:
            run.log(step, **values)
        if stop.signal_number:
            raise CommandError(
                f"stopped in run {k + 1}, epoch {epoch}; start this run again, after the finished ones, with: "
                f"{run.resume_command()}",
                128 + stop.signal_number,
            )
        if ended:
            break

    model.load_state_dict(kept or model.state_dict())
    _, accuracy = evaluate(model, A, features, labels, graph.test)
    return {name: weight.cpu() for name, weight in model.state_dict().items()}, accuracy, epoch


@torch.no_grad()
def evaluate(model: nn.Module, A: SparseMatrix, features: SparseMatrix, labels: Tensor, nodes: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy over some nodes."""
    model.eval()
    logits = model(A, features)[nodes]
    model.train()
    correct = logits.argmax(dim=1) == labels[nodes]
    return F.cross_entropy(logits, labels[nodes]).item(), correct.double().mean().item()


def split_of_run(args: Namespace, graph: LabelledGraph, k: int) -> LabelledGraph:
    return random_split(graph, args.seed + k) if args.split == "random" else graph


def prepare(args: Namespace, graph: LabelledGraph) -> SparseMatrix:
    """Return the matrix that the model multiplies with: Â; for the MLP, which hears no neighbour, the identity."""
    if args.model == "mlp":
        return identity(len(graph.labels))
    return normalise(add_self_loops(graph.A), args.normalisation)


def build_model(args: Namespace, graph: LabelledGraph, generator: torch.Generator) -> GCN | GAT:
    sizes = [graph.features.shape[1], *[args.num_hidden] * (args.num_layers - 1), graph.num_classes]
    if args.model == "gat":
        return GAT(sizes, args.heads, args.output_heads, args.dropout, generator)
    return GCN(sizes, args.dropout, generator)


def confidence_interval(accuracies: list[float]) -> float | None:
    """Return the half width of the mean's 95 % interval, 1.96 standard errors; None for a single run."""
    return 1.96 * stdev(accuracies) / math.sqrt(len(accuracies)) if len(accuracies) > 1 else None


@torch.no_grad()
def draw_club(args: Namespace, graph: LabelledGraph, weights: dict[str, Tensor], path: Path) -> None:
    """Draw the members where the two main directions of their learnt features put them, with their friendships."""
    from common.figure import COLOURS, MARKERS, new_figure, save_figure

    model = build_model(args, graph, torch.Generator()).eval()
    model.load_state_dict(weights)
    A = prepare(args, graph)
    embedding = model.embed(A, graph.features)
    embedding = embedding.to_dense() if isinstance(embedding, SparseMatrix) else embedding  # of a model with one layer
    U, S, _ = torch.linalg.svd(embedding - embedding.mean(dim=0), full_matrices=False)
    x, y = (U * S)[:, :2].t()  # principal components
    predicted = model(A, graph.features).argmax(dim=1)

    figure, (axes,) = new_figure(height=3.6)
    for i, j in zip(graph.A.rows.tolist(), graph.A.columns.tolist()):
        axes.plot(x[[i, j]], y[[i, j]], color="0.85", linewidth=0.5, zorder=1)
    for side, name in enumerate(("the instructor", "the administrator")):
        members = graph.labels == side
        axes.scatter(
            x[members], y[members], s=50, color=COLOURS[side], marker=MARKERS[side], label=f"went with {name}", zorder=2
        )
    wrong = predicted != graph.labels
    axes.scatter(x[wrong], y[wrong], s=160, facecolor="none", edgecolor="black", label="put on the wrong side", zorder=2)
    axes.scatter(x[graph.train], y[graph.train], s=160, marker="*", color="black", label="label known", zorder=3)
    for member in range(CLUB_SIZE):
        axes.annotate(str(member + 1), (x[member], y[member]), xytext=(5, 4), textcoords="offset points", fontsize=6)
    axes.set(xlabel="first principal component of the learnt features", ylabel="second")
    axes.legend(loc="best")
    save_figure(figure, path)


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0], formatter_class=ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=("karate", *CITATION_GRAPHS), default="karate", help="the graph")
    add("--model", choices=DEFAULTS, default="gcn", help="mlp is the gcn without edges; it sets the defaults below")
    add("--split", choices=("public", "random"), default="public", help="which nodes have a label")
    add("--runs", type=positive_int, default=1, help="trainings, from as many seeds")
    add("--num_hidden", type=positive_int, help="features of a node, gat: for each head, between layers")
    add("--num_layers", type=positive_int, default=2, help="layers: how many hops information travels")
    add("--heads", type=positive_int, default=8, help="gat: heads of all layers but the last")
    add("--output_heads", type=positive_int, default=1, help="gat: heads of the last layer, averaged")
    add("--normalisation", choices=("symmetric", "random_walk"), default="symmetric", help="gcn: of the adjacency")
    add("--dropout", type=fraction, help="of what enters a layer; gat: also of attention and messages")
    add("--weight_decay", type=non_negative_float, help="of the first layer; gat: of all")
    add("--learning_rate", "--lr", type=positive_float, help="of Adam")
    add("--epochs", type=positive_int, help="at most this many steps")
    add("--patience", type=positive_int, default=100, help="epochs without a better validation loss or accuracy")
    add("--seed", type=non_negative_int, default=0, help="of the first run's weights, dropout and random split")
    add("--print_every", type=positive_int, default=10, help="epochs between two logged ones")
    add("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    add("--run_dir", "--summary_path", help="run folder; by default a new one under runs/part3/")
    add("--resume", action="store_true", help="continue the run in --run_dir, or the last one of this name")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.set_defaults(**GCN_DEFAULTS)  # what --help shows
    chosen, _ = parser.parse_known_args()
    parser.set_defaults(**DEFAULTS[chosen.model])
    if (chosen.dataset, chosen.model) == ("pubmed", "gat"):
        parser.set_defaults(**PUBMED_GAT_DEFAULTS)
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
