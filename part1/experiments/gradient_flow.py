"""How far the gradient travels back through time: the norm of dL/dh(t) against t (question 1.1).

    python -m part1.experiments.gradient_flow --jobs 2

The loss L looks at the last step only, so dL/dh(t) is what backpropagation carries from there to step t: for the RNN a
product of T-1-t Jacobians diag(1 - h^2) W_hh. It is shown at initialisation and after training, for both models in both
settings of `accuracy_by_length.py`, whose runs are used where they are finished and trained where not. The result is
report/results/part1_gradient_flow.csv, and the figure of the same name.
"""

import itertools
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.paths import short_path
from part1.experiments.accuracy_by_length import (
    add_curve_selections,
    chosen_curves,
    length,
    training_job,
)
from part1.grads_over_time import load_run, state_gradients

NAME = "part1_gradient_flow"
LENGTHS = (10, 30, 60)
SEEDS = (0, 1, 2)
NUM_PALINDROMES = 500


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        write_results(NAME, measure(args), args.results, seeds=args.seeds)
    rows = read_results(NAME, args.results)
    curves = {key: mean_norms(rows, *key) for key in dict.fromkeys((r["family"], r["model"], r["T"]) for r in rows)}
    draw(curves, args.figures)
    for (family, model, T), mean in curves.items():
        ratios = ", ".join(f"{mean[moment][0] / mean[moment][-1]:.1e} {moment}" for moment in ("initial", "trained"))
        print(f"{family} {model}, T = {T}: |dL/dh(1)| / |dL/dh(T-1)| = {ratios}")
    print(f"results and figure: {short_path(args.figures / NAME)}.pdf, {short_path(args.results / NAME)}.csv")


def measure(args: Namespace) -> list[dict[str, Any]]:
    """Return one row for each family, model, length, seed, moment and step t."""
    plan = [(*curve, T, seed) for curve in chosen_curves(args) for T in args.lengths for seed in args.seeds]
    rows = []
    for (family, name, T, seed), (folder, _) in run_sweep({run: training_job(*run) for run in plan}, args).items():
        for moment, norms in gradient_norms(folder, NUM_PALINDROMES).items():
            rows += [
                {"family": family, "model": name, "T": T, "seed": seed, "moment": moment, "t": t, "norm": f"{norm:.5e}"}
                for t, norm in enumerate(norms.tolist(), start=1)
            ]
    return rows


def gradient_norms(run_dir: Path, num_palindromes: int) -> dict[str, Tensor]:
    """Return |dL/dh(t)| of a finished run, before and after training, means over palindromes: (T-1,) each."""
    models, palindromes = load_run(run_dir, num_palindromes)
    return {moment: state_gradients(model, palindromes).norm(dim=2).mean(dim=1) for moment, model in models.items()}


def mean_norms(rows: list[dict[str, Any]], family: str, model: str, T: int) -> dict[str, list[float]]:
    """Return the geometric mean over seeds for t = 1 ... T-1, at both moments."""
    curves = {}
    for moment in ("initial", "trained"):
        chosen = [r for r in rows if (r["family"], r["model"], r["T"], r["moment"]) == (family, model, T, moment)]
        norms = torch.tensor([[r["norm"] for r in chosen if r["t"] == t] for t in range(1, T)], dtype=torch.float64)
        curves[moment] = norms.log().mean(dim=1).exp().tolist()
    return curves


def draw(curves: dict[tuple[str, str, int], dict[str, list[float]]], folder: Path) -> None:
    """Draw one panel for each setting and model: full lines after training, dotted ones before."""
    from common.figure import COLOURS, new_figure, save_figure

    settings = list(dict.fromkeys((family, model) for family, model, _ in curves))
    colours = dict(zip(sorted({T for _, _, T in curves}), itertools.cycle(COLOURS)))
    columns = 1 if len(settings) % 2 else 2  # no panel stays empty
    figure, panels = new_figure(len(settings) // columns, columns, sharex=True)
    for axes, (family, model) in zip(panels, settings):
        for T, colour in colours.items():
            for moment, style in (("initial", ":"), ("trained", "-")):
                norms = curves.get((family, model, T), {}).get(moment, [])
                style += "o" if len(norms) == 1 else ""  # a line of one point would not be seen
                label = f"$T = {T}$" if moment == "trained" else None
                axes.plot(range(1, len(norms) + 1), norms, style, color=colour, label=label)
        axes.set(yscale="log", title=f"{model}, {family}")
    panels[0].plot([], [], ":", color="0.4", label="before training")
    panels[0].legend()
    for axes in panels[::columns]:
        axes.set_ylabel(r"$\|\partial \mathcal{L} / \partial h^{(t)}\|$")
    for axes in panels[-columns:]:
        axes.set_xlabel("step $t$")
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/gradient_flow")
    add_curve_selections(parser)
    parser.add_selection("--lengths", LENGTHS, "palindrome lengths T", type=length)
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    parser.add_setting("--train_steps", type=positive_int, default=10_000, help="largest number of steps")
    return parser


if __name__ == "__main__":
    run_command(main)
