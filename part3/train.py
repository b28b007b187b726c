"""Classify the nodes of a graph of which only a few have a label.

    python part3/train.py                                            the karate club, in seconds
    python part3/train.py --dataset cora --model gcn --runs 100      Kipf and Welling's table
    python part3/train.py --dataset cora --model gat --runs 100      Veličković et al.'s
    python part3/train.py --dataset cora --model gcnii --num_layers 32      a deep network (Chen et al. 2020)
    python part3/train.py --dataset cora --model attention           the layers of part3/graph_cnn.py; or convolution
    python part3/train.py --nodes nodes.csv --edges edges.csv        your own graph: see part3/tables.py

Every step sees the whole graph; the loss is the cross-entropy of the training nodes, with dropout on, which validation
has off. The weights are kept at each epoch at which both loss and accuracy on the validation nodes are the best so far,
and the weights kept last are tested. Training stops when neither has been the best so far for `patience` epochs. (The
karate club has no validation nodes: the last weights are tested.) Run k starts from seed + k; with `--split random` it
also draws its own training, validation and test nodes. What the last run's weights say of each node is written to the
run folder's predictions.csv, and a small graph is drawn. The defaults are those of the papers.
"""

import copy
import math
import sys
import warnings
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.command import (
    ArgumentParser,
    add_run_arguments,
    fraction,
    non_empty,
    non_negative_float,
    positive_float,
    positive_int,
    run_command,
    seed_number,
)
from common.errors import CommandError
from common.machine import get_device, seeded_generator
from common.paths import readable
from common.run_folder import RunFolder
from common.training import LoopState, Training, default_interval
from part3.citation import CITATION_GRAPHS, LabelledGraph, load_graph, random_split
from part3.graph import SparseMatrix
from part3.networks import LAYERS, Network, build_model, principal_components, propagation_matrix
from part3.tables import read_graph, write_predictions

# Kipf and Welling (2017), section 5.2, and Veličković et al. (2018), section 3.3; the others learn as the GCN does.
GCN_DEFAULTS = {"num_hidden": 16, "dropout": 0.5, "weight_decay": 5e-4, "learning_rate": 0.01, "epochs": 200}
GAT_DEFAULTS = {"num_hidden": 8, "dropout": 0.6, "weight_decay": 5e-4, "learning_rate": 0.005, "epochs": 1000}
DEFAULTS = dict.fromkeys(("gcn", "gat", "mlp", "gcnii", *LAYERS), GCN_DEFAULTS) | {"gat": GAT_DEFAULTS}
PUBMED_GAT_DEFAULTS = {"weight_decay": 1e-3, "learning_rate": 0.01, "output_heads": 8}
MAX_DRAWN, MAX_NAMED = 300, 60  # nodes of a graph that is drawn, and of one that is drawn with names
COLUMNS = ("run", "epoch", "loss", "accuracy", "validation_loss", "validation_accuracy")


@dataclass
class State(LoopState):
    """The finished runs, in order."""

    accuracies: list[float] = field(default_factory=list)  # on the test nodes
    epochs: list[int] = field(default_factory=list)


@dataclass
class EarlyStopping:
    """The best validation of a run so far (Veličković et al. 2018, section 3.3)."""

    lowest_loss: float = math.inf
    highest_accuracy: float = 0.0
    epochs_since: int = 0  # epochs since either was the best

    def note_validation(self, loss: float, accuracy: float) -> bool:
        """Note an epoch's validation, and return whether both loss and accuracy are the best so far."""
        best_loss, best_accuracy = loss <= self.lowest_loss, accuracy >= self.highest_accuracy
        self.lowest_loss, self.highest_accuracy = min(self.lowest_loss, loss), max(self.highest_accuracy, accuracy)
        self.epochs_since = 0 if best_loss or best_accuracy else self.epochs_since + 1
        return best_loss and best_accuracy


def main() -> None:
    train(parse_arguments())


def train(args: Namespace) -> None:
    # Data and model
    device, graph = get_device(args.device), chosen_graph(args)
    A = propagation_matrix(graph.A, args.model, args.normalisation).to(device)
    features, labels = graph.features.to(device), graph.labels.to(device)
    sizes = [features.shape[1], *[args.num_hidden] * (args.num_layers - 1), graph.num_classes]
    model = build_model(args.model, sizes, args.dropout, args.heads, args.output_heads).to(device)

    name = f"{args.dataset or graph.name}_{args.model}_seed{args.seed}"
    run = RunFolder(args, "part3/train.py", name, COLUMNS, free_arguments=("runs", "nodes", "edges"))
    checksum = graph.checksum()
    if run.keep("graph", checksum) != checksum:
        raise CommandError(f"{run} was trained on another graph: resume it with its own")
    state = State()
    with Training(run, args.runs * args.epochs, state, graph.name, model=model) as training:
        for k in range(len(state.accuracies), args.runs):
            # Run k: split, weights and optimizer, all from its own seed
            split = split_of_run(graph, args.split, args.seed + k)
            torch.manual_seed(args.seed + k)  # dropout
            model.reset_parameters(seeded_generator(args.seed + k, "weights"))
            optimizer = torch.optim.Adam(model.parameter_groups(args.weight_decay), lr=args.learning_rate)
            stopping, kept = EarlyStopping(), None

            for epoch in range(1, args.epochs + 1):
                state.step = k * args.epochs + epoch

                # Forward, loss, backward, step
                logits = model(A, features)[split.train]  # (nodes, K)
                loss = F.cross_entropy(logits, labels[split.train])
                optimizer.zero_grad()
                loss.backward()
                training.check_finite(**{f"loss_of_run_{k + 1}": loss.item()})
                optimizer.step()

                # Evaluate
                accuracy = (logits.argmax(dim=1) == labels[split.train]).double().mean().item()
                values = {"run": k + 1, "epoch": epoch, "loss": loss.item(), "accuracy": accuracy}
                if len(split.validation):
                    validation_loss, validation_accuracy = evaluate(model, A, features, labels, split.validation)
                    values |= {"validation_loss": validation_loss, "validation_accuracy": validation_accuracy}
                    if stopping.note_validation(validation_loss, validation_accuracy):
                        kept = copy.deepcopy(model.state_dict())
                ended = epoch == args.epochs or stopping.epochs_since >= args.patience
                if ended or epoch % args.print_every == 0:
                    run.log(state.step, **values)
                if training.signal_number:
                    again = f"start this run again, after the finished ones, with: {run.resume_command()}"
                    raise CommandError(f"stopped in run {k + 1}, epoch {epoch}; {again}", 128 + training.signal_number)
                if ended:
                    break

            # Test the weights that were kept
            model.load_state_dict(kept or model.state_dict())
            _, test_accuracy = evaluate(model, A, features, labels, split.test)
            state.accuracies.append(test_accuracy)
            state.epochs.append(epoch)
            state.step = (k + 1) * args.epochs
            training.show(accuracy=f"{mean(state.accuracies):.4f}")
            training.end_step({}, log=False, checkpoint=True)

        # Result
        last = split_of_run(graph, args.split, args.seed + len(state.accuracies) - 1)
        write_predictions(run.path / "predictions.csv", last, predict(model, A, features))
        result = {
            "test_accuracy": mean(state.accuracies),
            "confidence_interval": confidence_interval(state.accuracies),
            "accuracies": state.accuracies,
            "epochs": state.epochs,
            "seconds": round(state.seconds, 2),
        }
        run.write_result(result)
        run.draw_curves("validation", args.epochs, noise="dropout" if args.dropout else None)  # of the first run
        if len(graph.labels) <= MAX_DRAWN:
            figure = "club" if args.dataset == "karate" else "graph"
            draw_graph(model.cpu(), A.to(torch.device("cpu")), last, run.path / figure)
    describe(args.model, graph, state, str(run))


def describe(model: str, graph: LabelledGraph, state: State, run: str) -> None:
    num_runs, interval = len(state.accuracies), confidence_interval(state.accuracies)
    spread = "" if interval is None else f", the mean of {num_runs} runs, 95 % interval ± {interval:.4f}"
    print(
        f"{graph.name}, {model}: accuracy {mean(state.accuracies):.4f} on {len(graph.test):,} test nodes, from "
        f"{len(graph.train):,} training nodes{spread}; {mean(state.epochs):.0f} epochs, "
        f"{state.seconds / num_runs:.1f} s a run; run folder {run}"
    )


@torch.no_grad()
def evaluate(
    model: nn.Module, A: SparseMatrix, features: SparseMatrix, labels: Tensor, nodes: Tensor
) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy over some nodes."""
    model.eval()
    logits = model(A, features)[nodes]
    model.train()
    correct = logits.argmax(dim=1) == labels[nodes]
    return F.cross_entropy(logits, labels[nodes]).item(), correct.double().mean().item()


@torch.no_grad()
def predict(model: nn.Module, A: SparseMatrix, features: SparseMatrix) -> Tensor:
    """Return (N, K), the probability of each class for every node."""
    model.eval()
    return model(A, features).softmax(dim=1).cpu()


def chosen_graph(args: Namespace) -> LabelledGraph:
    """Return the graph that the arguments name: two tables, or a data set."""
    if args.nodes:
        return read_graph(args.nodes, args.edges, args.directed, args.seed)
    return load_graph(args.dataset, args.data_dir)


def split_of_run(graph: LabelledGraph, kind: str, seed: int) -> LabelledGraph:
    """Return the graph with the training, validation and test nodes of the run that starts from a seed."""
    return random_split(graph, seed) if kind == "random" else graph


def confidence_interval(accuracies: list[float]) -> float | None:
    """Return the half width of the mean's 95 % interval, 1.96 standard errors; None for a single run."""
    return 1.96 * stdev(accuracies) / math.sqrt(len(accuracies)) if len(accuracies) > 1 else None


@torch.no_grad()
def draw_graph(model: Network, A: SparseMatrix, graph: LabelledGraph, path: Path) -> None:
    """Draw the nodes at the first two principal components of their learnt features, with their edges."""
    from matplotlib.collections import LineCollection

    from common.figure import COLOURS, MARKERS, new_figure, save_figure

    model.eval()
    places = principal_components(model.embed(A, graph.features))
    x, y = places.t()
    predicted = model(A, graph.features).argmax(dim=1)

    figure, (axes,) = new_figure(height=3.6)
    lines = torch.stack([places[graph.A.rows], places[graph.A.columns]], dim=1)  # (E, 2, 2)
    axes.add_collection(LineCollection(list(lines.numpy()), colors="0.85", linewidths=0.5, zorder=1))
    club = path.name == "club"
    for k, name in enumerate(graph.classes):
        members, colour, marker = graph.labels == k, COLOURS[k % 7], MARKERS[(k + k // 7) % 7]
        label = f"went with {name}" if club else f"class {plain(name)}"
        axes.scatter(x[members], y[members], s=50, color=colour, marker=marker, label=label, zorder=2)
    unknown = graph.labels < 0
    if unknown.any():
        axes.scatter(x[unknown], y[unknown], s=20, color="0.6", label="class not known", zorder=2)
    wrong, label = (predicted != graph.labels) & ~unknown, f"put {'on the wrong side' if club else 'in another class'}"
    axes.scatter(x[wrong], y[wrong], s=160, facecolor="none", edgecolor="black", label=label, zorder=2)
    # The stars of a club of two leaders hide their class; those of other graphs lie inside its marker
    size, edge, width = (160, "black", 1.0) if club else (30, "white", 0.5)
    known_x, known_y = places[graph.train].t()
    star = axes.scatter(known_x, known_y, s=size, marker="*", color="black", label="label known", zorder=3)
    star.set(edgecolor=edge, linewidth=width)
    for node, name in enumerate(graph.ids if len(graph.ids) <= MAX_NAMED else ()):
        axes.annotate(plain(name), (x[node], y[node]), xytext=(5, 4), textcoords="offset points", fontsize=6)
    axes.set(xlabel="first principal component of the learnt features", ylabel="second")
    if club:
        axes.legend(loc="best")
    else:
        figure.legend(loc="outside right upper", ncols=1 + len(graph.classes) // 14)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the fonts lack
        save_figure(figure, path)


def plain(name: str) -> str:
    """Return a name as a figure shows it: short, and without formulas."""
    return readable(name[:20] + ("..." if len(name) > 20 else "")).replace("$", r"\$")


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", choices=("karate", *CITATION_GRAPHS), default="karate", help="the graph")
    add(
        "--nodes", type=non_empty, help="your own graph's nodes, a CSV table with columns id, label, split and features"
    )
    add("--edges", type=non_empty, help="your own graph's edges, a CSV table with columns source and target")
    add("--directed", action="store_true", help="edges of your own graph lead from source to target only")
    add("--model", choices=DEFAULTS, default="gcn", help="the network; sets the defaults below; mlp: gcn without edges")
    add(
        "--split",
        choices=("public", "random"),
        default="public",
        help="random: a new split for each run; public: the data's own, or for a table without one 60 %% of the "
        "labelled nodes of each class for training, 20 %% for validation and 20 %% for the test, drawn from the seed",
    )
    add("--runs", type=positive_int, default=1, help="number of trainings, each from its own seed")
    add("--num_hidden", type=positive_int, help="features of a node between layers; gat: of each head")
    add("--num_layers", type=positive_int, default=2, help="number of layers: how many hops information travels")
    add("--heads", type=positive_int, default=8, help="gat: number of heads of all layers but the last")
    add("--output_heads", type=positive_int, default=1, help="gat: number of heads of the last layer, averaged")
    normalisations = ("symmetric", "random_walk")
    add("--normalisation", choices=normalisations, default="symmetric", help="gcn, gcnii: how A is normalised")
    add("--dropout", type=fraction, help="dropout rate of each layer's input; gat: also of attention and messages")
    add("--weight_decay", type=non_negative_float, help="weight decay of the first layer; gat, gcnii: of all layers")
    add("--learning_rate", "--lr", type=positive_float, help="learning rate of Adam")
    add("--epochs", type=positive_int, help="maximum number of epochs of a run, one step each")
    add(
        "--patience",
        type=positive_int,
        default=100,
        help="stop a run after this many epochs without a better validation loss or accuracy",
    )
    add("--seed", type=seed_number, default=0, help="seed of the first run's weights, dropout and random split")
    add("--print_every", type=positive_int, help="epochs between two logged ones; default a twentieth, at most 10")
    add("--data_dir", type=non_empty, help="folder of the data sets; default $DATA_DIR, else data/")
    add_run_arguments(parser, "part3")
    parser.set_defaults(**GCN_DEFAULTS)  # what --help shows
    return parser


def parse_arguments() -> Namespace:
    parser = build_parser()
    chosen, _ = parser.parse_known_args()
    parser.set_defaults(**DEFAULTS[chosen.model])
    if (chosen.dataset, chosen.model) == ("pubmed", "gat"):
        parser.set_defaults(**PUBMED_GAT_DEFAULTS)
    own_graph = chosen.nodes or chosen.edges
    if own_graph:
        parser.set_defaults(dataset=None)
    args = parser.parse_args()
    if own_graph and args.dataset:
        parser.error(f"--nodes and --edges are a graph of their own: leave out --dataset {args.dataset}")
    if own_graph and not (args.nodes and args.edges):
        parser.error(f"--{'nodes' if args.nodes else 'edges'} also needs --{'edges' if args.nodes else 'nodes'}")
    if args.directed and not own_graph:
        parser.error("--directed is for a graph of --nodes and --edges")
    args.print_every = args.print_every or default_interval(args.epochs, 10)
    return args


if __name__ == "__main__":
    run_command(main)
