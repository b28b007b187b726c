"""Accuracy versus palindrome length, over models and seeds (questions 1.3 and 1.6).

    python -m part1.experiments.accuracy_by_length --jobs 2
    python -m part1.experiments.accuracy_by_length --lengths 5 10 15 --seeds 0 --train_steps 200    a sweep of your own

T is the palindrome's length: the network reads T-1 digits and names the last. Two families of curves:

* handout: every setting the handout's default: digits as numbers, RMSprop at 1e-3, at most 10,000 steps.
* tuned: the same equations with one-hot digits, Adam and an initialisation made to remember: a rotation for the RNN,
  which also gets tighter clipping, since one spike of the gradient can undo the rotation; chrono for the LSTM.

It can be interrupted at any time: finished runs are kept, the others resumed. The result is
report/results/part1_accuracy_by_length.csv, one row for each run, and the figure of the same name; those of a sweep of
your own are with its runs, in runs/part1/accuracy_by_length/.
"""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from statistics import mean
from typing import Any

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path

RUNS = ROOT / "runs" / "part1" / "accuracy_by_length"
NAME = "part1_accuracy_by_length"
MODELS = ("RNN", "LSTM")
SETTINGS = {
    ("handout", "RNN"): {},
    ("handout", "LSTM"): {},
    ("tuned", "RNN"): {
        "input_dim": 10,
        "init": "orthogonal",
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "max_norm": 1.0,
    },
    ("tuned", "LSTM"): {"input_dim": 10, "init": "chrono", "optimizer": "adam", "learning_rate": 2e-3},
}
LENGTHS = {
    "handout": (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60),
    "tuned": (5, 10, 20, 30, 40, 50, 60, 80, 100),
}
# Where a curve falls, it is measured at more lengths and with more seeds.
FALLING = {("handout", "RNN"): (17, 20, 22, 25, 30), ("handout", "LSTM"): (25, 27, 30)}
NUM_SEEDS, NUM_SEEDS_FALLING = 3, 5
# From this length on, where the default training does not start, a run is given up after 3,000 steps without progress.
LONG, PATIENCE = 30, 3_000
COLUMNS = (
    "test_accuracy",
    "last_10_batches_accuracy",
    "converged",
    "steps",
    "seconds",
    "test_sequences",
    "test_is_disjoint_from_training",
)


def main() -> None:
    args = build_parser().parse_args()
    if args.committed:
        rows = read_results(NAME)
    else:
        rows = sweep(chosen_plan(args), args)
        seeds, seconds = sorted({row["seed"] for row in rows}), sum(row["seconds"] for row in rows)
        write_results(NAME, rows, args.results, seeds=seeds, training_seconds=seconds)
    for (family, model), lengths in by_curve(rows).items():
        means = ", ".join(f"{T}: {mean(lengths[T]):.3f}" for T in sorted(lengths))
        print(f"{family} {model}, mean accuracy by length: {means}")
    draw(rows, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}.csv, {short_path(args.figures / NAME)}.pdf")


def full_plan() -> list[tuple[str, str, int, int]]:
    """Return (family, model, T, seed) of every run of the whole sweep."""
    return chosen_plan(build_parser().parse_args(["--draw_only"]))


def chosen_plan(args: Namespace) -> list[tuple[str, str, int, int]]:
    """Return (family, model, T, seed) of every run: seed by seed, short lengths first, so whole curves show early."""
    plan = []
    for family, model in chosen_curves(args):
        falling = FALLING.get((family, model), ())
        for T in args.lengths or sorted({*LENGTHS[family], *falling}):
            seeds = args.seeds or range(NUM_SEEDS_FALLING if T in falling else NUM_SEEDS)
            plan += [(family, model, T, seed) for seed in seeds]
    return sorted(plan, key=lambda run: (run[3], run[2]))


def chosen_curves(args: Namespace) -> list[tuple[str, str]]:
    """Return the chosen keys of SETTINGS, (family, model)."""
    return [curve for curve in SETTINGS if curve[0] in args.families and curve[1] in args.models]


def sweep(plan: list[tuple[str, str, int, int]], args: Namespace) -> list[dict[str, Any]]:
    """Run what is not finished yet, and return one row for each run."""
    runs = run_sweep({run: training_job(*run) for run in plan}, args)
    rows = [
        {"family": family, "model": model, "T": T, "seed": seed, **{name: result[name] for name in COLUMNS}}
        for (family, model, T, seed), (_, result) in runs.items()
    ]
    return sorted(rows, key=lambda row: (row["family"], row["model"], row["T"], row["seed"]))


def training_job(family: str, model: str, T: int, seed: int) -> Job:
    """Return the training run behind one point of a curve."""
    arguments = {"model_type": model, "input_length": T - 1, "seed": seed, "patience": PATIENCE if T >= LONG else 0}
    return Job("part1/train.py", RUNS / family / f"{model}_T{T}_seed{seed}", {**arguments, **SETTINGS[family, model]})


def by_curve(
    rows: list[dict[str, Any]], names: tuple[str, ...] = ("family", "model")
) -> dict[tuple[str, ...], dict[int, list[float]]]:
    """Return the test accuracies of all seeds, for each curve and length: {(family, model): {T: [accuracy, ...]}}."""
    curves: dict[tuple[str, ...], dict[int, list[float]]] = {}
    for row in rows:
        lengths = curves.setdefault(tuple(row[name] for name in names), {})
        lengths.setdefault(row["T"], []).append(row["test_accuracy"])
    return curves


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw one panel for each family: the mean over seeds, the range of the seeds as a band, every run as a dot."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, save_figure

    curves = by_curve(rows)
    families = [family for family in LENGTHS if any(key[0] == family for key in curves)]
    figure, panels = new_figure(1, len(families), sharey=True)
    for axes, family in zip(panels, families):
        for k, model in enumerate(MODELS):
            if (family, model) in curves:
                draw_curve(axes, curves[family, model], LINE_STYLES[k], COLOURS[k], MARKERS[k], model)
        axes.axhline(0.1, color="0.5", linewidth=0.8, linestyle=":", label="guessing")
        axes.set(xlabel="palindrome length $T$", title=family)
        axes.locator_params(axis="x", integer=True)
    panels[0].set_ylabel("test accuracy")
    panels[0].legend()
    save_figure(figure, folder / NAME)


def draw_curve(axes: Any, lengths: dict[int, list[float]], style: Any, colour: str, marker: str, label: str) -> None:
    """Draw accuracies by length, {T: [accuracy of each seed]}: the mean as a line, the range as a band, every run.

    Solid lines are broad, so that one is seen below a dashed line at the same place.
    """
    from common.figure import draw_means

    broad = style == "-"
    runs = [(T, accuracy) for T in sorted(lengths) for accuracy in lengths[T]]
    draw_means(axes, runs, linestyle=style, color=colour, linewidth=2.4 if broad else 1.2, label=label)
    size = 4 if broad else 2
    axes.plot(*zip(*runs), marker, color=colour, markersize=size, alpha=0.6)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/accuracy_by_length")
    add_curve_selections(parser)
    parser.add_selection("--lengths", None, "palindrome lengths T (default: those of each curve)", type=length)
    seeds = f"seeds (default: {NUM_SEEDS} for each length, {NUM_SEEDS_FALLING} where a curve falls)"
    parser.add_selection("--seeds", None, seeds, type=non_negative_int)
    parser.add_setting("--train_steps", type=positive_int, default=10_000, help="largest number of steps")
    return parser


def add_curve_selections(parser: ExperimentParser) -> None:
    parser.add_selection("--families", tuple(LENGTHS), "which settings", choices=tuple(LENGTHS))
    parser.add_selection("--models", MODELS, "which networks", choices=MODELS)


def length(text: str) -> int:
    """Argument type: a palindrome's length T, at least 2: one digit that is read, and the target."""
    value = int(text)
    if value < 2:
        raise ArgumentTypeError(f"must be at least 2, not {text}")
    return value


if __name__ == "__main__":
    run_command(main)
