"""A digit remembered for a thousand steps: questions 1.3 and 1.6, carried on to palindromes of 1,000 digits.

    python -m part1.experiments.long_memory --jobs 2

The equations, 128 hidden units and batches are those of `accuracy_by_length.py`; `train.py --preset long_memory`
changes the rest:

* RNN: W_hh = 2 I makes every unit a switch with two stable states. The first digit sets the switches, later ones cannot
  turn them, and what is left to learn is to read them.
* LSTM: chrono gates and a curriculum: what was learnt on short palindromes carries over to longer ones.

The results are report/results/part1_long_memory.csv, one row for each run, and part1_long_memory_gradients.csv, how
much of the gradient arrives at which step of 1,000; and a figure of each.
"""

from typing import Any

from common.command import run_command
from common.experiment import FIGURES, ExperimentParser, read_results, run_jobs, write_results
from common.jobs import Job
from common.paths import ROOT, short_path
from part1.experiments import accuracy_by_length
from part1.experiments.accuracy_by_length import COLUMNS, by_curve, draw_curve
from part1.experiments.gradient_flow import gradient_norms

RUNS = ROOT / "runs" / "part1" / "long_memory"
NAME, GRADIENTS = "part1_long_memory", "part1_long_memory_gradients"
MODELS = ("RNN", "LSTM")
LENGTHS = (5, 10, 20, 50, 100, 200, 500, 1000)
NUM_SEEDS, NUM_SEEDS_LONGEST = 3, 5
NUM_PALINDROMES = 50  # behind a gradient's norm
# What reports on UvA 2019 say of their own curves (no tables): the RNN's, and the LSTM's, which from 35 on guesses.
PUBLISHED = {"RNN": [(5, 1.0), (10, 1.0), (15, 1.0)], "LSTM": [(20, 0.6), (40, 0.1), (60, 0.1)]}


def main() -> None:
    args = ExperimentParser(__doc__).parse_args()
    if not args.draw_only:
        plan = full_plan()
        results = run_jobs([training_job(*run) for run in plan], args.executor)
        rows = [
            {"model": model, "T": T, "seed": seed, **{name: result[name] for name in COLUMNS}}
            for (model, T, seed), result in sorted(zip(plan, results), key=lambda pair: pair[0])
        ]
        seconds = sum(row["seconds"] for row in rows)
        write_results(NAME, rows, seeds=list(range(NUM_SEEDS_LONGEST)), training_seconds=seconds)
        write_results(GRADIENTS, gradients(), seeds=list(range(NUM_SEEDS_LONGEST)))
    rows, curves = read_results(NAME), read_results(GRADIENTS)
    draw_accuracy(rows)
    draw_gradients(curves)
    for model in MODELS:
        longest = [row for row in rows if row["model"] == model and row["T"] == LENGTHS[-1]]
        accuracies = ", ".join(f"{row['test_accuracy']:.4f}" for row in longest)
        minutes = max(row["seconds"] for row in longest) / 60
        print(f"{model}, T = {LENGTHS[-1]:,}: accuracy {accuracies}, each within {minutes:.1f} minutes")
    print(f"results and figures: report/results/{NAME}*.csv, {short_path(FIGURES / NAME)}*.pdf")


def full_plan() -> list[tuple[str, int, int]]:
    """Return (model, T, seed) of every run, the longest first, so that none is left to run alone."""
    return [
        (model, T, seed)
        for T in reversed(LENGTHS)
        for model in MODELS[::-1]
        for seed in range(NUM_SEEDS_LONGEST if T == LENGTHS[-1] else NUM_SEEDS)
    ]


def training_job(model: str, T: int, seed: int) -> Job:
    arguments = {"model_type": model, "input_length": T - 1, "seed": seed, "preset": "long_memory"}
    return Job("part1/train.py", RUNS / f"{model}_T{T}_seed{seed}", arguments)


def gradients() -> list[dict[str, Any]]:
    """Return one row for each model, moment and step t: the mean of |dL/dh(t)| over the longest runs' seeds."""
    rows = []
    for model in MODELS:
        T = LENGTHS[-1]
        runs = [
            gradient_norms(training_job(model, T, seed).run_dir, NUM_PALINDROMES) for seed in range(NUM_SEEDS_LONGEST)
        ]
        for moment in ("initial", "trained"):
            norms = sum(run[moment] for run in runs) / len(runs)
            rows += [
                {"model": model, "T": T, "moment": moment, "t": t, "norm": f"{norm:.5e}"}
                for t, norm in enumerate(norms.tolist(), start=1)
            ]
    return rows


def draw_accuracy(rows: list[dict[str, Any]]) -> None:
    """Draw one panel for each model: the handout's settings, the published curves, and ours up to T = 1,000."""
    from common.figure import COLOURS, LINE_STYLES, MARKERS, new_figure, save_figure

    handout = [row for row in read_results(accuracy_by_length.NAME) if row["family"] == "handout"]
    figure, panels = new_figure(1, 2, sharey=True)
    for axes, model in zip(panels, MODELS):
        families = (("handout's settings", handout), ("long memory", [{**row, "family": NAME} for row in rows]))
        for k, (label, runs) in enumerate(families):
            lengths = by_curve(runs)[runs[0]["family"], model]
            draw_curve(axes, lengths, LINE_STYLES[1 - k], COLOURS[k], MARKERS[k], label)
        axes.plot(*zip(*PUBLISHED[model]), "x", color="0.3", markersize=6, label="published report")
        axes.axhline(0.1, color="0.5", linewidth=0.8, linestyle=":", label="guessing")
        axes.set(xscale="log", xlabel="palindrome length $T$", title=model, ylim=(0, 1.05))
    panels[0].set_ylabel("accuracy on 10,000 fresh palindromes")
    panels[0].legend(loc="center right")
    save_figure(figure, FIGURES / NAME)


def draw_gradients(curves: list[dict[str, Any]]) -> None:
    """Draw one panel for each model: dotted before training, full lines after, as far as float64 reaches."""
    from common.figure import COLOURS, new_figure, save_figure

    figure, panels = new_figure(1, 2)
    for axes, model in zip(panels, MODELS):
        for moment, style in (("initial", ":"), ("trained", "-")):
            points = [(row["t"], row["norm"]) for row in curves if (row["model"], row["moment"]) == (model, moment)]
            label = "before training" if moment == "initial" else "after training"
            axes.plot(
                *zip(*(point for point in points if point[1] > 0)),
                style,
                color=COLOURS[MODELS.index(model)],
                label=label,
            )
        axes.set(xlim=(0, LENGTHS[-1]), yscale="log", xlabel="step $t$", title=model)
    panels[0].set_ylabel(r"$\|\partial \mathcal{L} / \partial h^{(t)}\|$")
    panels[0].legend()
    save_figure(figure, FIGURES / GRADIENTS)


if __name__ == "__main__":
    run_command(main)
