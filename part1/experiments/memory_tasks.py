"""Memory beyond palindromes: which recurrent network learns to copy, to add and to recall, and over how many steps?

    python -m part1.experiments.memory_tasks --task copy adding recall --jobs 2
    python -m part1.experiments.memory_tasks --task recall --models GRU_chrono --seeds 0      a part of it

The tasks and the curriculum are those of `part1/memory_tasks.py`: T begins at 10 and grows as it is mastered, up to
1,000 steps, of adding 750. Every model has 128 hidden units, Adam at 0.003 and one million steps read in batches of 32;
they differ in the recurrence and its initialisation alone.

It can be interrupted at any time: finished runs are kept, the others resumed. With --add a part of the runs goes into
the results, beside those that are there. The results are report/results/part1_memory_tasks.csv, one row for each run,
and part1_memory_tasks_curves.csv, T and the validation loss, as a share of that without memory, by steps read; and a
figure. Those of a part are with its runs, in runs/part1/memory_tasks/.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from common.command import non_negative_int, positive_int, run_command
from common.experiment import ExperimentParser, read_results, rows_to_keep, run_sweep, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from common.run_folder import read_metrics
from part1.memory_tasks import evaluations

RUNS = ROOT / "runs" / "part1" / "memory_tasks"
NAME, CURVES = "part1_memory_tasks", "part1_memory_tasks_curves"
LENGTHS = {"copy": 1000, "adding": 750, "recall": 1000}
INITS = {
    "RNN": ("default", "orthogonal", "identity", "bistable"),
    "LSTM": ("default", "chrono"),
    "GRU": ("default", "chrono"),
}
MODELS = tuple(f"{model_type}_{init}" for model_type, inits in INITS.items() for init in inits)
SEEDS = (0, 1)
BUDGET = 1_000_000  # steps read
NUM_POINTS = 100  # of a curve, about
RUN = ("task", "model", "T", "seed")
COLUMNS = (
    "solved",
    "longest_mastered",
    "steps_read",
    "test_loss",
    "baseline",
    "test_accuracy",
    "seconds",
)

Rows = list[dict[str, Any]]


def main() -> None:
    args = build_parser().parse_args()
    if not args.committed:
        rows, curves = sweep(args)
        seeds, seconds = sorted({row["seed"] for row in rows}), sum(row["seconds"] for row in rows)
        write_results(NAME, rows, args.results, seeds=seeds, training_seconds=seconds)
        write_results(CURVES, curves, args.results, seeds=seeds)
    rows, curves = read_results(NAME, args.results), read_results(CURVES, args.results)
    for row in rows:
        end = "solved" if row["solved"] == "True" else f"not solved, longest T mastered {row['longest_mastered']:,}"
        print(
            f"{row['task']}, {row['model']}, T = {row['T']:,}, seed {row['seed']}: "
            f"{end}, after {row['steps_read']:,} steps read"
        )
    draw(rows, curves, args.figures)
    print(f"results and figure: {short_path(args.results / NAME)}*.csv, {short_path(args.figures / NAME)}.pdf")


def sweep(args: Namespace) -> tuple[Rows, Rows]:
    """Run what is not finished yet; return one row for each run, and the curves. With --add also what is committed."""
    rows, curves = rows_to_keep(NAME, args), rows_to_keep(CURVES, args)
    there = {tuple(row[name] for name in RUN) for row in rows}
    plan = {run: training_job(*run) for run in chosen_plan(args) if run not in there}
    for run, finished in run_sweep(plan, args).items():
        about = dict(zip(RUN, run))
        rows.append({**about, **{name: finished.result[name] for name in COLUMNS}, "commit": finished.commit})
        curves += [{**about, **point} for point in curve_of(finished.folder, args.budget)]
    return sorted(rows, key=place), sorted(curves, key=lambda point: (*place(point), point["steps_read"]))


def place(row: dict[str, Any]) -> tuple[int, ...]:
    """Return what orders the rows."""
    return [*LENGTHS].index(row["task"]), MODELS.index(row["model"]), row["T"], row["seed"]


def chosen_plan(args: Namespace) -> list[tuple[str, str, int, int]]:
    """Return (task, model, T, seed) of every run: seed by seed, so that the whole picture shows early."""
    return [
        (task, model, args.length or LENGTHS[task], seed)
        for seed in args.seeds
        for task in args.task
        for model in args.models
    ]


def training_job(task: str, model: str, T: int, seed: int) -> Job:
    model_type, init = model.split("_")
    arguments = {"task": task, "model_type": model_type, "init": init, "length": T, "budget": BUDGET, "seed": seed}
    return Job("part1/memory_tasks.py", RUNS / task / f"{model}_seed{seed}", arguments)


def curve_of(folder: Path, budget: int) -> Rows:
    """Return points of a run's curve: the last evaluation at every T, and about a hundred of the others."""
    points = evaluations(read_metrics(folder / "metrics.csv"))
    kept, last_kept = [], 0
    for (steps_read, length, loss), following in zip(points, [*points[1:], None]):
        if following is None or following[1] != length or steps_read - last_kept >= budget / NUM_POINTS:
            kept.append({"steps_read": steps_read, "length": length, "relative_loss": f"{loss:.4g}"})
            last_kept = steps_read
    return kept


def draw(rows: Rows, curves: Rows, folder: Path) -> None:
    """Draw two panels for each task: the longest T mastered, by model, filled if that is all; and T by steps read."""
    from common.figure import new_figure, save_figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    figure, panels = new_figure(2, len(tasks), sharey="row")
    for task, top, bottom in zip(tasks, panels[: len(tasks)], panels[len(tasks) :]):
        mine = [row for row in rows if row["task"] == task]
        T = max(row["T"] for row in mine)
        nothing = min(T, 10) / 1.5  # where a run is drawn that has mastered no T
        for row in mine:
            colour, style, marker = look_of(row["model"])
            face = colour if row["solved"] == "True" else "none"
            longest, marker = (row["longest_mastered"], marker) if row["longest_mastered"] else (nothing, "x")
            top.plot(longest, models.index(row["model"]), marker, color=colour, mfc=face)
            curve = [point for point in curves if all(point[name] == row[name] for name in RUN)]
            thousands = [point["steps_read"] / 1_000 for point in curve]
            lengths = [point["length"] for point in curve]
            bottom.step([0, *thousands], [lengths[0], *lengths], linestyle=style, color=colour, linewidth=0.9)
        top.axvline(T, color="0.5", linewidth=0.8, linestyle=":")
        top.set(xscale="log", xlim=(nothing / 1.3, 1.3 * T), xlabel="longest $T$ mastered", title=task)
        top.xaxis.set_minor_formatter("")
        bottom.set(yscale="log", xlabel="thousand steps read")
    labels = [model.replace("_", ", ") for model in models]
    panels[0].set(ylim=(len(models) - 0.5, -0.5), yticks=range(len(models)), yticklabels=labels)
    panels[len(tasks)].set_ylabel("$T$ in training")
    for model, label in zip(models, labels):
        colour, style, _ = look_of(model)
        panels[-1].plot([], [], linestyle=style, color=colour, label=label)
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save_figure(figure, folder / NAME)


def look_of(model: str) -> tuple[str, Any, str]:
    """Return colour, line style and marker: those of the type, but the style, which is that of the initialisation."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS

    model_type, init = model.split("_")
    k = [*INITS].index(model_type)
    return COLOURS[k], LINE_STYLES[INITS[model_type].index(init)], MARKERS[k]


def build_parser() -> ExperimentParser:
    parser = ExperimentParser(__doc__, "part1/memory_tasks")
    parser.add_selection("--task", tuple(LENGTHS), "which tasks", choices=tuple(LENGTHS))
    parser.add_selection("--models", MODELS, "which networks, by type and initialisation", choices=MODELS)
    parser.add_selection("--seeds", SEEDS, "seeds", type=non_negative_int)
    lengths = ", ".join(f"{task} {T:,}" for task, T in LENGTHS.items())
    parser.add_setting("--length", type=positive_int, help=f"T of every task (default: {lengths})")
    parser.add_setting("--budget", type=positive_int, default=BUDGET, help="largest number of steps read")
    parser.let_parts_add()
    return parser


if __name__ == "__main__":
    run_command(main)
