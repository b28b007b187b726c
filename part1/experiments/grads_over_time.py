"""The gradient over time at T = 100, before training and after (question 1.7 of UvA November 2019).

    python -m part1.experiments.grads_over_time --jobs 2

|dL/dh(t)|, as `part1/grads_over_time.py` draws it, for both models in both settings of `accuracy_by_length.py`: the
handout's, whose untrained networks the question asks for, and the tuned ones, with which training succeeds.

The results are report/results/part1_grads_over_time.csv, and part1_grads_over_time_runs.csv, what each run has learnt;
the figure has the name of the former.
"""

from argparse import Namespace
from pathlib import Path
from statistics import mean

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.paths import short_path
from part1.experiments.accuracy_by_length import (
    MODELS,
    add_curve_selections,
    chosen_curves,
    length,
    training_job,
)
from part1.experiments.gradient_flow import gradient_norms, mean_norms

NAME, RUNS_NAME = "part1_grads_over_time", "part1_grads_over_time_runs"
SEEDS = (0, 1, 2)
NUM_PALINDROMES = 500
MOMENTS = {"initial": "untrained", "trained": "after training"}


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        measure(args)
    rows, runs = read_results(NAME, args.results), read_results(RUNS_NAME, args.results)
    curves = {key: mean_norms(rows, *key) for key in dict.fromkeys((r["family"], r["model"], r["T"]) for r in rows)}
    draw(curves, args.figures)
    for (family, model, _), norms in curves.items():
        shares = ", ".join(f"{norms[moment][0] / norms[moment][-1]:.1e} {label}" for moment, label in MOMENTS.items())
        accuracy = mean(run["test_accuracy"] for run in runs if (run["family"], run["model"]) == (family, model))
        print(f"{family} {model}: |dL/dh(1)| / |dL/dh(T-1)| = {shares}, accuracy then {accuracy:.3f}")
    print(f"results and figure: {short_path(args.results / NAME)}*.csv, {short_path(args.figures / NAME)}.pdf")


def measure(args: Namespace) -> None:
    """Complete the runs; write a row for each run, moment and step t, and in the other table a row for each run."""
    plan = [(*curve, args.length, seed) for curve in chosen_curves(args) for seed in args.seeds]
    finished = run_sweep({run: training_job(*run) for run in plan}, args)
    rows, runs = [], []
    for (family, model, T, seed), (folder, result) in finished.items():
        run = {"family": family, "model": model, "T": T, "seed": seed}
        runs.append({**run, **{name: result[name] for name in ("test_accuracy", "converged", "steps", "seconds")}})
        for moment, norms in gradient_norms(folder, NUM_PALINDROMES).items():
            steps = enumerate(norms.tolist(), start=1)
            rows += [{**run, "moment": moment, "t": t, "norm": f"{norm:.5e}"} for t, norm in steps]
    write_results(NAME, rows, args.results, seeds=args.seeds)
    write_results(RUNS_NAME, runs, args.results, seeds=args.seeds, training_seconds=sum(run["seconds"] for run in runs))


def draw(curves: dict[tuple[str, str, int], dict[str, list[float]]], folder: Path) -> None:
    """Draw one panel for each moment; colours tell the models, lines the settings."""
    from common.figure import COLOURS, LINE_STYLES, new_figure, save_figure

    families = list(dict.fromkeys(family for family, _, _ in curves))
    figure, panels = new_figure(1, len(MOMENTS), sharey=True)
    for axes, (moment, title) in zip(panels, MOMENTS.items()):
        for (family, model, _), norms in curves.items():
            style, colour = LINE_STYLES[families.index(family)], COLOURS[MODELS.index(model)]
            marker = "o" if len(norms[moment]) == 1 else None  # a line of one point would not be seen
            t, label = range(1, len(norms[moment]) + 1), f"{model}, {family}"
            axes.plot(t, norms[moment], linestyle=style, color=colour, marker=marker, label=label)
        axes.set(xlabel="step $t$", title=title, yscale="log")
    panels[0].set_ylabel(r"$\|\partial \mathcal{L} / \partial h^{(t)}\|$")
    panels[0].legend()
    save_figure(figure, folder / NAME)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/grads_over_time")
    add_curve_selections(parser)
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    parser.add_sweep_argument("--length", type=length, default=100, help="palindrome length T")
    parser.add_setting("--train_steps", type=positive_int, default=10_000, help="largest number of steps")
    return parser


if __name__ == "__main__":
    run_command(main)
