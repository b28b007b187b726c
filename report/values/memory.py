"""From the part1_*.csv: accuracy by length, gradient flow, long memory, optimizers."""

import math
from collections.abc import Iterable
from statistics import mean

from report.values import Results, Rows, rows_with
from report.values.format import fixed, scientific, tabular, thousands

MODELS = ("RNN", "LSTM")
LENGTHS = ((5, 15), (17, 17), (20, 20), (22, 22), (25, 25), (27, 27), (30, 30), (35, 60))
CONVERGED = {"RNN": (17, 20, 22, 25), "LSTM": (27,)}
MEANS = {"RNN": (5, 30), "LSTM": (5, 25)}
TRAIN_STEPS = 1_000  # of an optimizer's run; one that ends earlier has converged
SHARES = (
    ("handout", "RNN", 10, "trained"),
    ("handout", "RNN", 30, "initial"),
    ("handout", "RNN", 60, "initial"),
    ("handout", "RNN", 60, "trained"),
    ("handout", "LSTM", 10, "trained"),
    ("handout", "LSTM", 30, "initial"),
    ("handout", "LSTM", 60, "initial"),
    ("tuned", "RNN", 60, "initial"),
)


def values(results: Results) -> dict[str, str]:
    """Return all measured numbers of the section."""
    return {
        **_accuracies(results("part1_accuracy_by_length")),
        **_shares(results("part1_gradient_flow")),
        **_long_memory(results("part1_long_memory"), results("part1_long_memory_gradients")),
        **_optimizers(results("part1_optimizers")),
    }


def tables(results: Results) -> dict[str, str]:
    """Return converged runs and mean accuracy by length, with the handouts' settings."""
    rows = results("part1_accuracy_by_length")
    lines = []
    for model in MODELS:
        runs = rows_with(rows, family="handout", model=model)
        cells = [[row for row in runs if first <= row["T"] <= last] for first, last in LENGTHS]
        lines.append([f"{model}: converged runs", *(_converged(runs, "/") for runs in cells)])
        lines.append([f"{model}: mean accuracy", *(_accuracy(runs) for runs in cells)])
    header = ["$T$", *(f"{first} to {last}" if first < last else str(first) for first, last in LENGTHS)]
    return {"memory-converged": tabular(header, lines, "l" + "c" * len(LENGTHS))}


def gradient_share(rows: Rows, family: str, model: str, T: int, moment: str) -> float:
    """Return |dL/dh(1)| / |dL/dh(T-1)|, both geometric means over the seeds."""
    chosen = rows_with(rows, family=family, model=model, T=T, moment=moment)
    first, last = (geometric_mean(row["norm"] for row in rows_with(chosen, t=t)) for t in (1, T - 1))
    return first / last


def geometric_mean(numbers: Iterable[float]) -> float:
    """Return exp of the mean logarithm."""
    return math.exp(mean(map(math.log, numbers)))


def _accuracies(rows: Rows) -> dict[str, str]:
    numbers = {"memory-sweep-runs": str(len(rows))}
    for model in MODELS:
        name, handout = f"memory-{model.lower()}", rows_with(rows, family="handout", model=model)
        lengths = {row["T"] for row in handout}
        shortest_failure = min(row["T"] for row in handout if row["converged"] != "True")
        long = [row["test_accuracy"] for row in handout if row["T"] >= 30]
        mean_of_long, range_of_long = fixed(mean(long), 2), f"{fixed(min(long), 2)} and {fixed(max(long), 2)}"
        longest = [row["steps"] for row in rows_with(rows, family="tuned", model=model, T=100)]
        numbers |= {
            f"{name}-all-to": str(max(T for T in lengths if T < shortest_failure)),
            f"{name}-long": mean_of_long if model == "RNN" else range_of_long,
            f"{name}-tuned-steps": f"{thousands(min(longest))} to {thousands(max(longest))}",
        }
        numbers |= {f"{name}-converged-{T}": _converged(rows_with(handout, T=T), " of ") for T in CONVERGED[model]}
        numbers |= {f"{name}-mean-{T}": _accuracy(rows_with(handout, T=T)) for T in MEANS[model]}
    failed = [row["test_accuracy"] for row in rows_with(rows, family="handout", model="RNN", converged="False")]
    tuned = rows_with(rows, family="tuned")
    return numbers | {
        "memory-rnn-failed-min": fixed(min(failed), 2),
        "memory-rnn-failed-max": fixed(max(failed), 2),
        "memory-tuned-runs": str(len(tuned)),
        "memory-tuned-min": fixed(math.floor(1000 * min(row["test_accuracy"] for row in tuned)) / 1000, 3),
        "memory-tuned-steps": thousands(max(row["steps"] for row in tuned)),
    }


def _shares(rows: Rows) -> dict[str, str]:
    numbers = {}
    for family, model, T, moment in SHARES:
        share = gradient_share(rows, family, model, T, moment)
        numbers[f"memory-share-{family}-{model.lower()}-{T}-{moment}"] = _share(share)
    return numbers


def _share(share: float) -> str:
    if share < 0.1:
        return scientific(share)
    return fixed(share, 1 if share >= 1 else 2)


def _optimizers(curves: Rows) -> dict[str, str]:
    numbers = {}
    for name in dict.fromkeys(row["optimizer"] for row in curves):
        rows = rows_with(curves, optimizer=name)
        steps = [max(row["step"] for row in rows_with(rows, seed=seed)) for seed in {row["seed"] for row in rows}]
        if max(steps) < TRAIN_STEPS:
            average = thousands(mean(steps))
            numbers[f"memory-{name}-steps"] = f"{average} steps on average ({min(steps)} to {max(steps)})"
        else:
            numbers[f"memory-{name}-converged"] = f"{sum(step < TRAIN_STEPS for step in steps)} of {len(steps)}"
    return numbers


def _long_memory(rows: Rows, gradients: Rows) -> dict[str, str]:
    numbers = {
        "memory-long-runs": str(len(rows)),
        "memory-long-seeds": str(len(rows_with(rows, model="RNN", T=1000))),
        "memory-long-min": fixed(math.floor(1000 * min(row["test_accuracy"] for row in rows)) / 1000, 3),
    }
    for model in MODELS:
        name = f"memory-long-{model.lower()}"
        longest = rows_with(rows, model=model, T=1000)
        steps = [row["steps"] for row in longest]
        numbers |= {
            f"{name}-min": fixed(math.floor(10_000 * min(row["test_accuracy"] for row in longest)) / 10_000, 4),
            f"{name}-steps": f"{thousands(min(steps))} to {thousands(max(steps))}",
        }
    norm = {(row["moment"], row["t"]): row["norm"] for row in rows_with(gradients, model="LSTM")}
    for moment in ("initial", "trained"):
        numbers[f"memory-long-lstm-share-{moment}"] = _share(norm[moment, 1] / norm[moment, 999])
    return numbers


def _converged(runs: Rows, separator: str) -> str:
    return f"{sum(row['converged'] == 'True' for row in runs)}{separator}{len(runs)}" if runs else "--"


def _accuracy(runs: Rows) -> str:
    return fixed(mean(row["test_accuracy"] for row in runs), 2) if runs else "--"
