"""The receptive field of L layers: the Jacobian of a node's output, hop by hop (question 3.1b of UvA spring 2019).

    python -m part3.experiments.receptive_field

In each layer of a GCN a node receives messages from its neighbours, so after L layers it depends on nodes up to L hops
away and on no others: information from 3 hops away needs 3 layers. For all pairs of the karate club's members, L = 1 to
4 layers and ten initialisations, the influence of member j on member i is the norm of ∂ output of i / ∂ features of j,
scaled so that all influences on i add up to 1.

Writes report/results/part3_receptive_field.csv and the figure of the same name.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, write_results
from common.machine import seeded_generator
from common.paths import short_path
from part3.citation import karate_club
from part3.gcn import GCN
from part3.graph import add_self_loops, distances, normalise

NAME = "part3_receptive_field"
LAYERS, NUM_SEEDS, NUM_HIDDEN = (1, 2, 3, 4), 10, 16


def main() -> None:
    args = build_parser().parse_args()
    if args.committed:
        rows = read_results(NAME)
    else:
        rows = [row for num_layers in args.layers for row in measure(num_layers, args.seeds)]
        write_results(NAME, rows, args.results, seeds=args.seeds)
    for num_layers in dict.fromkeys(row["layers"] for row in rows):
        shares = {row["hops"]: f"{100 * row['share']:.3g} %" for row in rows if row["layers"] == num_layers}
        print(f"{num_layers} layers, share of the influence from each distance in hops: {shares}")
    draw(rows, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}.csv, {short_path(args.figures / NAME)}.pdf")


def measure(num_layers: int, seeds: Sequence[int] = range(NUM_SEEDS)) -> list[dict[str, Any]]:
    """Return a row for each distance: the mean influence of one member on another, and the share of the total."""
    club = karate_club()
    A_hat = normalise(add_self_loops(club.A)).to(torch.float64)
    features = club.features.to_dense().double()
    N = len(features)
    hops = torch.stack([distances(club.A, node) for node in range(N)])  # (N, N)
    influence = torch.zeros(N, N, dtype=torch.float64)
    for seed in seeds:
        sizes = [N, *[NUM_HIDDEN] * (num_layers - 1), club.num_classes]
        model = GCN(sizes, generator=seeded_generator(seed, "weights")).double().eval()
        jacobian = torch.autograd.functional.jacobian(lambda H, f=model: f(A_hat, H), features)  # (N, K, N, d)
        norms = jacobian.square().sum(dim=(1, 3)).sqrt()  # (receiver, sender)
        influence += norms / norms.sum(dim=1, keepdim=True) / len(seeds)
    return [
        {
            "layers": num_layers,
            "hops": distance,
            "pairs": int((hops == distance).sum()),
            "influence": float(f"{influence[hops == distance].mean().item():.6g}"),
            "share": float(f"{influence[hops == distance].sum().item() / N:.6g}"),
        }
        for distance in range(int(hops.max()) + 1)
    ]


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the mean influence of one member on another against their distance; exact zeros get a line of their own."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, plain_ticks, save_figure

    floor = min(row["influence"] for row in rows if row["influence"]) / 10
    figure, (axes,) = new_figure()
    styles: list[dict[str, Any]] = [
        {"marker": marker, "linestyle": line, "color": colour}
        for marker, line, colour in zip(MARKERS, LINE_STYLES, COLOURS)
    ]
    for num_layers, style in zip(dict.fromkeys(row["layers"] for row in rows), cycle(styles)):
        mine = [row for row in rows if row["layers"] == num_layers]
        x, y = [row["hops"] for row in mine], [row["influence"] or floor for row in mine]
        axes.plot(x, y, **style, label=f"$L = {num_layers}$")
    axes.axhline(floor, color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate("exactly 0", (0, floor), xytext=(0, 3), textcoords="offset points", color="0.3", fontsize=8)
    axes.set(
        xlabel="distance of two members (hops)", ylabel="influence of one on the other", yscale="log",
        xticks=sorted({row["hops"] for row in rows}),
    )  # fmt: skip
    plain_ticks(axes.yaxis, 1)
    axes.legend(title="layers", loc="upper right")
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part3/receptive_field", jobs=False)
    parser.add_selection("--layers", LAYERS, "numbers of layers", type=positive_int)
    seeds = tuple(range(NUM_SEEDS))
    parser.add_selection("--seeds", seeds, "seeds of the initialisations", type=non_negative_int)
    return parser


if __name__ == "__main__":
    run_command(main)
