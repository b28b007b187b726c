"""Do attention weights tell bots from people? Measured on a made-up social graph (question 3.4b of UvA 2025).

    python -m part3.experiments.bots

600 people of two opinions, most of whose friends share theirs, and 150 bots, which befriend people at random and show
an opinion at random, and louder. A network of two layers is to name the opinion of people whose opinion is not given.
Either bots look like people in all other features, or one feature gives them away (say, the posts of a day); and either
nobody has told which accounts are bots, or some are labelled, as a third class. `GraphAttention` is compared with
itself at a = 0, where it takes the mean over neighbours.

Measured on the edges that lead to a person, in the first layer: what a bot is given relative to an equal share, the
mean of α_vu |N(v)|; and the probability that an edge from a bot has less of it than one from a friend (0.5: weights
tell nothing, 1: they tell bots apart). Writes report/results/part3_bots.csv and the figure of the same name.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, write_results
from common.machine import seeded_generator
from common.paths import short_path
from part3.graph import SparseMatrix, adjacency
from part3.graph_cnn import GraphAttention, GraphNetwork, edge_index_of

NAME = "part3_bots"
PEOPLE, BOTS, NUM_FEATURES, NUM_HIDDEN, EPOCHS, NUM_SEEDS = 600, 150, 8, 16, 200, 10
FRIENDS, SAME_OPINION, BEFRIENDED = 6, 0.8, 12  # mean number of a person's friends, share of its own; people of a bot
OPINION, LOUD, GIVEN_AWAY = 0.5, 3.0, 3.0  # in standard deviations of the features' noise
KNOWN_PEOPLE, KNOWN_BOTS = 200, 20  # whose labels are given
LOOKS, WEIGHTS = {"like people": 0.0, "different": GIVEN_AWAY}, ("mean", "attention")


def main() -> None:
    args = build_parser().parse_args()
    if not args.draw_only:
        settings = product(LOOKS, (False, True), WEIGHTS, args.seeds)
        write_results(NAME, [measure(*setting, args.epochs) for setting in settings], args.results, seeds=args.seeds)
    rows = read_results(NAME, args.results)
    for setting, chosen in by_setting(rows).items():
        columns = ("accuracy", "share", "told_apart")
        print(", ".join(setting), {column: f"{mean(row[column] for row in chosen):.3f}" for column in columns})
    draw(rows, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}.csv, {short_path(args.figures / NAME)}.pdf")


def measure(looks: str, labelled: bool, weights: str, seed: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train on one graph, and return a row of results."""
    generator = seeded_generator(seed, "bots")
    A, x, labels = social_graph(LOOKS[looks], generator)
    people, bots = torch.randperm(PEOPLE, generator=generator), PEOPLE + torch.randperm(BOTS, generator=generator)
    train, test = people[:KNOWN_PEOPLE], people[KNOWN_PEOPLE:]
    if labelled:
        train = torch.cat([train, bots[:KNOWN_BOTS]])
    network = GraphNetwork(GraphAttention, [NUM_FEATURES, NUM_HIDDEN, 2 + labelled], generator=generator)
    if weights == "mean":
        for layer in network.layers:
            torch.nn.init.zeros_(layer.get_parameter("a")).requires_grad_(False)
    torch.manual_seed(seed)  # dropout
    optimizer = torch.optim.Adam(network.parameter_groups(weight_decay=5e-4), lr=0.01)
    for _ in range(epochs):
        loss = F.cross_entropy(network(A, x)[train], labels[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        opinion = network(A, x)[test, :2].argmax(dim=1)
        _, made_of = network.layers[0](x, edge_index_of(A), debug=True)
    share, told_apart = attention_to_bots(made_of["edge_index"], made_of["attention"])
    accuracy = (opinion == labels[test]).double().mean().item()
    found = {"accuracy": accuracy, "share": share, "told_apart": told_apart}
    row = {"looks": looks, "bots": "labelled" if labelled else "not labelled", "weights": weights, "seed": seed}
    return row | {name: f"{value:.5g}" for name, value in found.items()}


def social_graph(given_away: float, generator: torch.Generator) -> tuple[SparseMatrix, Tensor, Tensor]:
    """Return the adjacency, the (N, 8) features and the labels 0, 1 (a person's opinion) or 2 (a bot); people first.

    Feature 0 shows an opinion, feature 1 is larger by `given_away` for bots, the others are noise.
    """
    opinion = torch.randint(2, (PEOPLE + BOTS,), generator=generator)
    mine = opinion[:PEOPLE]
    share = torch.where(mine[:, None] == mine[None, :], SAME_OPINION, 1 - SAME_OPINION)
    friends = torch.rand(PEOPLE, PEOPLE, generator=generator) < share * 2 * FRIENDS / PEOPLE
    bot = torch.arange(PEOPLE, PEOPLE + BOTS).repeat_interleave(BEFRIENDED)
    befriended = torch.randint(PEOPLE, (len(bot),), generator=generator)
    edges = torch.cat([friends.triu(1).nonzero().t(), torch.stack([bot, befriended])], dim=1)
    is_bot = torch.arange(PEOPLE + BOTS) >= PEOPLE
    x = torch.randn(PEOPLE + BOTS, NUM_FEATURES, generator=generator)
    x[:, 0] += (2 * opinion - 1) * torch.where(is_bot, LOUD, OPINION)
    x[:, 1] += given_away * is_bot
    return adjacency(edges, PEOPLE + BOTS), x, torch.where(is_bot, 2, opinion)


def attention_to_bots(edge_index: Tensor, attention: Tensor) -> tuple[float, float]:
    """Return the mean share of a bot's edge to a person, and how well shares tell such edges from those of friends.

    Args:
        edge_index, attention: (2, E') and (E',), as `GraphAttention` returns them with `debug`.
    """
    sender, receiver = edge_index
    share = attention * receiver.bincount()[receiver]  # 1: an equal share
    to_others = (receiver < PEOPLE) & (sender != receiver)
    of_bots, of_friends = share[to_others & (sender >= PEOPLE)], share[to_others & (sender < PEOPLE)]
    less, equal = of_bots[:, None] < of_friends, of_bots[:, None] == of_friends
    return of_bots.mean().item(), (less.double() + equal.double() / 2).mean().item()


def by_setting(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Return the rows of each (looks, labels of bots, weights)."""
    settings: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        settings.setdefault((row["looks"], row["bots"], row["weights"]), []).append(row)
    return settings


def draw(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Draw what attention gains over equal weights on the same graphs, and a bot's share of it, in each setting."""
    from common.figure import COLOURS, MARKERS, new_figure, save_figure

    settings = by_setting(rows)
    columns = list(dict.fromkeys((looks, bots) for looks, bots, _ in settings))
    gains, shares = [], []
    for setting in columns:
        attention, equal = (settings[(*setting, weights)] for weights in ("attention", "mean"))
        gains.append([100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(attention, equal)])
        shares.append([row["share"] for row in attention])
    figure, (left, right) = new_figure(1, 2)
    for axes, values, line, colour, marker in zip((left, right), (gains, shares), (0, 1), COLOURS, MARKERS):
        for x, of_graphs in enumerate(values):
            axes.plot([x] * len(of_graphs), of_graphs, ".", color=colour, alpha=0.4)
            axes.plot(x, mean(of_graphs), marker, color=colour, markersize=7)
        axes.axhline(line, color="0.5", linewidth=0.8, linestyle=":")
        axes.set(xticks=range(len(columns)), xlim=(-0.5, len(columns) - 0.5))
        axes.set_xticklabels([f"{looks},\n{bots}" for looks, bots in columns], fontsize=7)
    left.set_ylabel("gain over equal weights (points)")
    right.set_ylabel("a bot's share of attention")
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part3/bots", jobs=False)
    seeds = tuple(range(NUM_SEEDS))
    parser.add_selection("--seeds", seeds, "seeds of graph, weights and dropout", type=non_negative_int)
    epochs = f"number of epochs (default: {EPOCHS})"
    parser.add_sweep_argument("--epochs", type=positive_int, default=EPOCHS, help=epochs)
    return parser


if __name__ == "__main__":
    run_command(main)
