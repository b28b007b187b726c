"""GRU, bidirectional and peephole LSTM beside the LSTM, on four data sets (UvA 2020, questions 1.3 and 1.4).

    python -m part1.experiments.variants --jobs 2
    python -m part1.experiments.variants --families handout --datasets bss --models GRU --seeds 0      a part of it

T is the data set's length. Three families of runs:

* handout: each data set with the settings of its group in UvA 2020's table, for all four models, not only the group's;
  T = 6 is added where the handout names it as a check.
* checks: the lengths at which the handout expects perfect accuracy, trained until every validation sequence is right
  three times in a row, or all steps are over.
* longer: one setting for all, made to go further, at lengths that grow until a model no longer learns: one-hot digits
  or embeddings of size 10, 128 hidden units, Adam at 0.001, tighter clipping. Also on palindromes.

It can be interrupted at any time: finished runs are kept, the others resumed. Two cores take
about six hours; with --add a part of the runs goes into the results, beside those that are there. The result is
report/results/part1_variants.csv, one row for each run, and the figures part1_variants.pdf and
part1_variants_longer.pdf; those of a part are with its runs, in runs/part1/variants/.
"""

from argparse import Namespace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, rows_to_keep, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from part1.experiments.accuracy_by_length import by_curve, draw_curve

RUNS = ROOT / "runs" / "part1" / "variants"
NAME = "part1_variants"
MODELS = ("LSTM", "GRU", "biLSTM", "peepLSTM")
TITLES = {
    "randomcomb": "random combinations",
    "bss": "Baum-Sweet",
    "bipalindrome": "binary palindromes",
    "palindromes": "palindromes",
}
COMMON = {"init": "kaiming", "optimizer": "adam", "max_norm": 10.0}
GROUPS_B_C = {**COMMON, "learning_rate": 1e-3, "train_steps": 2_000, "batch_size": 128, "num_hidden": 128}
GROUPS_A_D_E = {**COMMON, "learning_rate": 1e-4, "train_steps": 3_000, "batch_size": 256, "num_hidden": 256}
LONGER = {
    "init": "default",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "max_norm": 1.0,
    "input_dim": 10,
    "num_hidden": 128,
    "batch_size": 128,
    "train_steps": 5_000,
    "patience": 2_000,
}
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("handout", "randomcomb"): GROUPS_B_C,
    ("handout", "bss"): GROUPS_A_D_E,
    ("handout", "bipalindrome"): GROUPS_A_D_E,
    ("checks", "randomcomb"): {**GROUPS_B_C, "converged_accuracy": 1.0},
    ("checks", "bss"): {**GROUPS_A_D_E, "converged_accuracy": 1.0},
    ("checks", "bipalindrome"): {**GROUPS_A_D_E, "converged_accuracy": 1.0},
    **{("longer", dataset): LONGER for dataset in TITLES},
}
LENGTHS = {
    ("handout", "randomcomb"): (5, 6, 10, 15),
    ("handout", "bss"): (4, 5, 6),
    ("handout", "bipalindrome"): (6, 10, 20),
    ("checks", "randomcomb"): (5, 6),
    ("checks", "bss"): (6,),
    ("checks", "bipalindrome"): (6, 10),
    ("longer", "randomcomb"): (10, 20, 30, 40),
    ("longer", "bss"): (6, 8, 10, 12),
    ("longer", "bipalindrome"): (10, 20, 30),
    ("longer", "palindromes"): (10, 20, 40, 80),
}
CHECKS = {  # from a data set and its length to the models of which UvA 2020 expects perfect accuracy there
    ("randomcomb", 5): ("biLSTM",),
    ("randomcomb", 6): ("LSTM",),
    ("bss", 6): ("LSTM", "GRU"),
    ("bipalindrome", 6): ("peepLSTM",),
    ("bipalindrome", 10): ("LSTM",),
}
SEEDS = (0, 1, 2)
CURVE = ("family", "dataset", "model")  # the columns that name one
RUN = (*CURVE, "T", "seed")
COLUMNS = (
    "test_accuracy",
    "largest_class",
    "converged",
    "steps",
    "seconds",
    "test_is_disjoint_from_training",
)


def main() -> None:
    args = build_parser().parse_args()
    if args.committed:
        rows = read_results(NAME)
    else:
        rows = sweep(args)
        seeds, seconds = sorted({row["seed"] for row in rows}), sum(row["seconds"] for row in rows)
        write_results(NAME, rows, args.results, seeds=seeds, training_seconds=seconds)
    for key, lengths in by_curve(rows, CURVE).items():
        print(", ".join(key), end=": ")
        print(", ".join(f"T = {T} {spread(accuracies)}" for T, accuracies in lengths.items()))
    for family in dict.fromkeys(row["family"] for row in rows if row["family"] != "checks"):
        draw([row for row in rows if row["family"] == family], args.figures / figure_name(family))
    print(f"results and figures: {short_path(args.results / NAME)}.csv, {short_path(args.figures / NAME)}*.pdf")


def sweep(args: Namespace) -> list[dict[str, Any]]:
    """Run what is not finished yet, and return one row for each run; with --add also the rows that are committed."""
    rows = rows_to_keep(NAME, args)
    there = {tuple(row[name] for name in RUN) for row in rows}
    plan = {run: training_job(*run) for run in chosen_plan(args) if run not in there}
    for run, finished in run_sweep(plan, args).items():
        columns = {name: finished.result[name] for name in COLUMNS}
        rows.append({**dict(zip(RUN, run)), **columns, "commit": finished.commit})
    return sorted(
        rows, key=lambda row: (row["family"], row["dataset"], MODELS.index(row["model"]), row["T"], row["seed"])
    )


def chosen_plan(args: Namespace) -> list[tuple[str, str, str, int, int]]:
    """Return (family, dataset, model, T, seed) of every run: seed by seed, so that whole curves show early."""
    return [
        (family, dataset, model, T, seed)
        for seed in args.seeds
        for (family, dataset), lengths in LENGTHS.items()
        if family in args.families and dataset in args.datasets
        for T in args.lengths or lengths
        for model in args.models
        if family != "checks" or model in CHECKS.get((dataset, T), ())
    ]


def training_job(family: str, dataset: str, model: str, T: int, seed: int) -> Job:
    """Return the training run behind one point of a curve."""
    arguments = {"dataset": dataset, "model_type": model, "seed": seed}
    arguments["input_length"] = T - 1 if dataset == "palindromes" else T
    folder = RUNS / family / dataset / f"{model}_T{T}_seed{seed}"
    return Job("part1/train.py", folder, {**arguments, **SETTINGS[family, dataset]})


def spread(accuracies: list[float]) -> str:
    """Return mean and standard deviation as text."""
    return f"{mean(accuracies):.3f}" + (f" ± {stdev(accuracies):.3f}" if len(accuracies) > 1 else "")


def figure_name(family: str) -> str:
    return NAME if family == "handout" else f"{NAME}_{family}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw one panel a data set: for each model the mean over seeds, their range, every run; and the largest class."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, save_figure

    curves = by_curve(rows, CURVE)
    datasets = list(dict.fromkeys(dataset for _, dataset, _ in curves))
    num_rows = 2 if len(datasets) == 4 else 1
    figure, panels = new_figure(num_rows, len(datasets) // num_rows, sharey=True)
    for axes, dataset in zip(panels, datasets):
        for (_, of, model), lengths in curves.items():
            if of == dataset:
                k = MODELS.index(model)
                draw_curve(axes, lengths, LINE_STYLES[k], COLOURS[k], MARKERS[k], model)
        guesses = {row["T"]: row["largest_class"] for row in rows if row["dataset"] == dataset}
        points = sorted(guesses.items())
        style = ":o" if len(points) == 1 else ":"  # a line of one point would not be seen
        axes.plot(*zip(*points), style, color="0.5", linewidth=0.8, label="the largest class")
        axes.set(xlabel="length $T$", title=TITLES[dataset], ylim=(-0.03, 1.05))
        axes.locator_params(axis="x", integer=True)
    for axes in panels[:: len(datasets) // num_rows]:
        axes.set_ylabel("test accuracy")
    panels[-1].legend()
    save_figure(figure, path)


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/variants")
    families = tuple(dict.fromkeys(family for family, _ in SETTINGS))
    parser.add_selection("--families", families, "which settings", choices=families)
    parser.add_selection("--datasets", tuple(TITLES), "which data sets", choices=tuple(TITLES))
    parser.add_selection("--models", MODELS, "which networks", choices=MODELS)
    lengths = "lengths T (default: those of each family and data set)"
    parser.add_selection("--lengths", None, lengths, type=positive_int)
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    parser.add_setting("--train_steps", type=positive_int, help="largest number of steps (default: the settings')")
    parser.let_parts_add()
    return parser


if __name__ == "__main__":
    run_command(main)
