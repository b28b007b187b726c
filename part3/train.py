"""Classify the nodes of a graph of which only a few have a label.

    python part3/train.py                                            the karate club, in seconds
    python part3/train.py --dataset cora --model gcn --runs 100      Kipf and Welling's table
    python part3/train.py --dataset cora --model gat --runs 100      Veličković et al.'s

Every step sees the whole graph; the loss is the cross-entropy of the training nodes, with dropout on, which validation
has off. The weights are kept at each epoch at which both loss and accuracy on the validation nodes are the best so far,
and the weights kept last are tested. Training stops when neither has been the best so far for `patience` epochs. (The
karate club has no validation nodes: the last weights are tested.) Run k starts from seed + k; with `--split random` it
also draws its own training, validation and test nodes. The defaults are those of the papers.
"""

import copy
import math
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.command import (
    ArgumentParser,
    add_run_arguments,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.errors import CommandError
from common.machine import get_device, seeded_generator
from common.run_folder import RunFolder
from common.training import LoopState, Training, default_interval
from part3.citation import CITATION_GRAPHS, CLUB_SIZE, LabelledGraph, load_graph, random_split
from part3.gat import GAT
from part3.gcn import GCN
from part3.graph import SparseMatrix, add_self_loops, identity, normalise

# Kipf and Welling (2017), section 5.2, and Veličković et al. (2018), section 3.3; the MLP is the GCN without its edges.
GCN_DEFAULTS = {"num_hidden": 16, "dropout": 0.5, "weight_decay": 5e-4, "learning_rate": 0.01, "epochs": 200}
GAT_DEFAULTS = {"num_hidden": 8, "dropout": 0.6, "weight_decay": 5e-4, "learning_rate": 0.005, "epochs": 1000}
DEFAULTS = {"gcn": GCN_DEFAULTS, "gat": GAT_DEFAULTS, "mlp": GCN_DEFAULTS}
PUBMED_GAT_DEFAULTS = {"weight_decay": 1e-3, "learning_rate": 0.01, "output_heads": 8}
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
    device, graph = get_device(args.device), load_graph(args.dataset, args.data_dir)
    A = propagation_matrix(graph.A, args.model, args.normalisation).to(device)
    features, labels = graph.features.to(device), graph.labels.to(device)
    sizes = [features.shape[1], *[args.num_hidden] * (args.num_layers - 1), graph.num_classes]
    model = build_model(args.model, sizes, args.dropout, args.heads, args.output_heads).to(device)

    run = RunFolder(args, f"part3/{args.dataset}_{args.model}_seed{args.seed}", COLUMNS, free_arguments=("runs",))
    state = State()
    with Training(run, args.runs * args.epochs, state, args.dataset, model=model) as training:
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
        result = {
            "test_accuracy": mean(state.accuracies),
            "confidence_interval": confidence_interval(state.accuracies),
            "accuracies": state.accuracies,
            "epochs": state.epochs,
            "seconds": round(state.seconds, 2),
        }
        run.write_result(result)
        run.draw_curves("validation", args.epochs, noise="dropout" if args.dropout else None)  # of the first run
        if args.dataset == "karate":
            last = split_of_run(graph, args.split, args.seed + len(state.accuracies) - 1)
            draw_club(model.cpu(), A.to(torch.device("cpu")), last, run.path / "club")
    describe(args.dataset, args.model, graph, state, str(run))


def describe(dataset: str, model: str, graph: LabelledGraph, state: State, run: str) -> None:
    num_runs, interval = len(state.accuracies), confidence_interval(state.accuracies)
    spread = "" if interval is None else f", the mean of {num_runs} runs, 95 % interval ± {interval:.4f}"
    print(
        f"{dataset}, {model}: accuracy {mean(state.accuracies):.4f} on {len(graph.test):,} unlabelled nodes, from "
        f"{len(graph.train)} labelled ones{spread}; {mean(state.epochs):.0f} epochs, {state.seconds / num_runs:.1f} s "
        f"a run; run folder {run}"
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


def split_of_run(graph: LabelledGraph, kind: str, seed: int) -> LabelledGraph:
    """Return the graph with the training, validation and test nodes of the run that starts from a seed."""
    return random_split(graph, seed) if kind == "random" else graph


def propagation_matrix(A: SparseMatrix, model: str, normalisation: str) -> SparseMatrix:
    """Return the matrix by which the model multiplies: Â; for the MLP, which uses no edges, the identity."""
    return identity(A.shape[0]) if model == "mlp" else normalise(add_self_loops(A), normalisation)


def build_model(model: str, sizes: list[int], dropout: float, heads: int, output_heads: int) -> GCN | GAT:
    return GAT(sizes, heads, output_heads, dropout) if model == "gat" else GCN(sizes, dropout)


def confidence_interval(accuracies: list[float]) -> float | None:
    """Return the half width of the mean's 95 % interval, 1.96 standard errors; None for a single run."""
    return 1.96 * stdev(accuracies) / math.sqrt(len(accuracies)) if len(accuracies) > 1 else None


@torch.no_grad()
def draw_club(model: GCN | GAT, A: SparseMatrix, graph: LabelledGraph, path: Path) -> None:
    """Draw the members at the first two principal components of their learnt features, with their friendships."""
    from common.figure import COLOURS, MARKERS, new_figure, save_figure

    model.eval()
    embedding = model.embed(A, graph.features)
    embedding = embedding.to_dense() if isinstance(embedding, SparseMatrix) else embedding  # of a model with one layer
    U, S, _ = torch.linalg.svd(embedding - embedding.mean(dim=0), full_matrices=False)
    x, y = (U * S)[:, :2].t()  # principal components
    predicted = model(A, graph.features).argmax(dim=1)

    figure, (axes,) = new_figure(height=3.6)
    for i, j in zip(graph.A.rows.tolist(), graph.A.columns.tolist()):
        axes.plot(x[[i, j]], y[[i, j]], color="0.85", linewidth=0.5, zorder=1)
    for side, name in enumerate(("the instructor", "the administrator")):
        members, colour, marker = graph.labels == side, COLOURS[side], MARKERS[side]
        axes.scatter(x[members], y[members], s=50, color=colour, marker=marker, label=f"went with {name}", zorder=2)
    wrong, label = predicted != graph.labels, "put on the wrong side"
    axes.scatter(x[wrong], y[wrong], s=160, facecolor="none", edgecolor="black", label=label, zorder=2)
    axes.scatter(x[graph.train], y[graph.train], s=160, marker="*", color="black", label="label known", zorder=3)
    for member in range(CLUB_SIZE):
        axes.annotate(str(member + 1), (x[member], y[member]), xytext=(5, 4), textcoords="offset points", fontsize=6)
    axes.set(xlabel="first principal component of the learnt features", ylabel="second")
    axes.legend(loc="best")
    save_figure(figure, path)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", choices=("karate", *CITATION_GRAPHS), default="karate", help="the graph")
    add("--model", choices=DEFAULTS, default="gcn", help="the network; sets the defaults below; mlp: gcn without edges")
    add("--split", choices=("public", "random"), default="public", help="random: a new split for each run")
    add("--runs", type=positive_int, default=1, help="number of trainings, each from its own seed")
    add("--num_hidden", type=positive_int, help="features of a node between layers; gat: of each head")
    add("--num_layers", type=positive_int, default=2, help="number of layers: how many hops information travels")
    add("--heads", type=positive_int, default=8, help="gat: number of heads of all layers but the last")
    add("--output_heads", type=positive_int, default=1, help="gat: number of heads of the last layer, averaged")
    normalisations = ("symmetric", "random_walk")
    add("--normalisation", choices=normalisations, default="symmetric", help="gcn: normalisation of the adjacency")
    add("--dropout", type=fraction, help="dropout rate of each layer's input; gat: also of attention and messages")
    add("--weight_decay", type=non_negative_float, help="weight decay of the first layer; gat: of all layers")
    add("--learning_rate", "--lr", type=positive_float, help="learning rate of Adam")
    add("--epochs", type=positive_int, help="maximum number of epochs of a run, one step each")
    add(
        "--patience",
        type=positive_int,
        default=100,
        help="stop a run after this many epochs without a better validation loss or accuracy",
    )
    add("--seed", type=non_negative_int, default=0, help="seed of the first run's weights, dropout and random split")
    add("--print_every", type=positive_int, help="epochs between two logged ones; default a twentieth, at most 10")
    add("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    add_run_arguments(parser, "part3")
    parser.set_defaults(**GCN_DEFAULTS)  # what --help shows
    return parser


def parse_arguments() -> Namespace:
    parser = build_parser()
    chosen, _ = parser.parse_known_args()
    parser.set_defaults(**DEFAULTS[chosen.model])
    if (chosen.dataset, chosen.model) == ("pubmed", "gat"):
        parser.set_defaults(**PUBMED_GAT_DEFAULTS)
    args = parser.parse_args()
    args.print_every = args.print_every or default_interval(args.epochs, 10)
    return args


if __name__ == "__main__":
    run_command(main)
