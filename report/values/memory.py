"""From the part1_*.csv and benchmark_part1.csv: accuracy by length, gradient flow, long memory, optimizers, speed."""

import math
import re
from statistics import mean

from report.values.format import fixed, scientific, tabular, thousands

MODELS = ("RNN", "LSTM")
LENGTHS = ((5, 15), (17, 17), (20, 20), (22, 22), (25, 25), (27, 27), (30, 30), (35, 60))
CONVERGED = {"RNN": (17, 20, 22, 25), "LSTM": (27,)}
MEANS = {"RNN": (30, 60), "LSTM": (25,)}
TRAIN_STEPS = 1_000  # of an optimizer's run; one that ends earlier has converged
SPEEDS = {
    "LSTM": {
        "torch.nn.LSTM": r"\code{nn.LSTM}",
        "ours, compiled": "ours, compiled",
        "ours, compiled, bf16": "ours, compiled, bfloat16",
        "ours": "ours, PyTorch's calls",
        "plain loop": "plain loop",
        "plain loop, eight products": "plain loop, eight products",
    },
    "RNN": {"torch.nn.RNN": r"\code{nn.RNN}", "ours": "ours", "plain loop": "plain loop"},
}
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


def values(results):
    """All measured numbers of the section."""
    return {
        **_accuracies(results("part1_accuracy_by_length")),
        **_shares(results("part1_gradient_flow")),
        **_long_memory(results("part1_long_memory"), results("part1_long_memory_gradients")),
        **_optimizers(results("part1_optimizers")),
        **_memory(results("benchmark_part1")),
    }


def tables(results):
    """Converged runs and mean accuracy by length, with the handouts' settings; the recurrences' times."""
    rows = results("part1_accuracy_by_length")
    lines = []
    for model in MODELS:
        cells = [
            [row for row in _chosen(rows, family="handout", model=model) if first <= row["T"] <= last]
            for first, last in LENGTHS
        ]
        lines.append([f"{model}: converged runs", *(_converged(runs, "/") for runs in cells)])
        lines.append([f"{model}: mean accuracy", *(_accuracy(runs) for runs in cells)])
    header = ["$T$", *(f"{first} to {last}" if first < last else str(first) for first, last in LENGTHS)]
    return {
        "memory-converged": tabular(header, lines, "l" + "c" * len(LENGTHS)),
        "memory-speed": _speed_table(results("benchmark_part1")),
    }


def gradient_share(rows, family, model, T, moment):
    """|dL/dh(1)| / |dL/dh(T-1)|, both geometric means over the seeds."""
    chosen = _chosen(rows, family=family, model=model, T=T, moment=moment)
    first, last = (geometric_mean(row["norm"] for row in chosen if row["t"] == t) for t in (1, T - 1))
    return first / last


def geometric_mean(numbers):
    """exp of the mean logarithm."""
    return math.exp(mean(map(math.log, numbers)))


def _accuracies(rows):
    numbers = {"memory-sweep-runs": str(len(rows)), "memory-sweep-hours": fixed(sum(row["seconds"] for row in rows) / 3600, 1)}
    for model in MODELS:
        name, handout = f"memory-{model.lower()}", _chosen(rows, family="handout", model=model)
        lengths = sorted({row["T"] for row in handout})
        failing = [T for T in lengths if any(row["converged"] != "True" for row in _chosen(handout, T=T))]
        long = [row["test_accuracy"] for row in handout if row["T"] >= 30]
        longest = [row["steps"] for row in _chosen(rows, family="tuned", model=model, T=100)]
        numbers |= {
            f"{name}-all-to": str(max(T for T in lengths if T < failing[0])),
            f"{name}-long": fixed(mean(long), 2) if model == "RNN" else f"{fixed(min(long), 2)} and {fixed(max(long), 2)}",
            f"{name}-tuned-steps": f"{thousands(min(longest))} to {thousands(max(longest))}",
        }
        numbers |= {f"{name}-converged-{T}": _converged(_chosen(handout, T=T), " of ") for T in CONVERGED[model]}
        numbers |= {f"{name}-mean-{T}": _accuracy(_chosen(handout, T=T)) for T in MEANS[model]}
    failed = [row["test_accuracy"] for row in _chosen(rows, family="handout", model="RNN", converged="False")]
    tuned = _chosen(rows, family="tuned")
    return numbers | {
        "memory-rnn-failed-min": fixed(min(failed), 2),
        "memory-rnn-failed-max": fixed(max(failed), 2),
        "memory-tuned-runs": str(len(tuned)),
        "memory-tuned-min": fixed(math.floor(1000 * min(row["test_accuracy"] for row in tuned)) / 1000, 3),
        "memory-tuned-steps": thousands(max(row["steps"] for row in tuned)),
    }


def _shares(rows):
    numbers = {}
    for family, model, T, moment in SHARES:
        share = gradient_share(rows, family, model, T, moment)
        numbers[f"memory-share-{family}-{model.lower()}-{T}-{moment}"] = _share(share)
    return numbers


def _share(share):
    return fixed(share, 1) if share >= 1 else fixed(share, 2) if share >= 0.1 else scientific(share)


def _optimizers(curves):
    numbers = {}
    for name in dict.fromkeys(row["optimizer"] for row in curves):
        rows = _chosen(curves, optimizer=name)
        steps = [max(row["step"] for row in _chosen(rows, seed=seed)) for seed in sorted({row["seed"] for row in rows})]
        if max(steps) < TRAIN_STEPS:
            numbers[f"memory-{name}-steps"] = f"{thousands(mean(steps))} steps on average ({min(steps)} to {max(steps)})"
        else:
            numbers[f"memory-{name}-converged"] = f"{sum(step < TRAIN_STEPS for step in steps)} of {len(steps)}"
    return numbers


def _long_memory(rows, gradients):
    numbers = {
        "memory-long-runs": str(len(rows)),
        "memory-long-seeds": str(len(_chosen(rows, model="RNN", T=1000))),
        "memory-long-min": fixed(math.floor(1000 * min(row["test_accuracy"] for row in rows)) / 1000, 3),
        "memory-long-rnn-hardest": thousands(max(row["steps"] for row in _chosen(rows, model="RNN"))),
    }
    for model in MODELS:
        name = f"memory-long-{model.lower()}"
        longest = _chosen(rows, model=model, T=1000)
        norm = {(row["moment"], row["t"]): row["norm"] for row in _chosen(gradients, model=model)}
        steps = [row["steps"] for row in longest]
        numbers |= {
            f"{name}-min": fixed(math.floor(10_000 * min(row["test_accuracy"] for row in longest)) / 10_000, 4),
            f"{name}-steps": f"{thousands(min(steps))} to {thousands(max(steps))}",
        }
        seconds = max(row["seconds"] for row in longest)
        if model == "RNN":
            numbers[f"{name}-seconds"] = fixed(seconds, 0)
        else:
            numbers[f"{name}-minutes"] = fixed(seconds / 60, 0)
            shares = {moment: norm[moment, 1] / norm[moment, 999] for moment in ("initial", "trained")}
            numbers |= {f"{name}-share-{moment}": _share(share) for moment, share in shares.items()}  # the RNN's are zero
    return numbers


def _memory(rows):
    """Peak memory of the LSTM at T = 1000, as a share of the library's."""
    return {
        f"memory-memory-lstm-{name}-thousand": fixed(row["ratio"], 2)
        for name, variant in (("ours", "ours"), ("compiled", "ours, compiled"), ("loop", "plain loop"))
        for row in _chosen(rows, variant=variant)
        if row["benchmark"].startswith("LSTM forward + backward, memory, B=128 T=1000 ")
    }


def _speed_table(rows):
    """One column a size: the library's time in ms, ours as a multiple of it."""
    sizes = list(
        dict.fromkeys(row["benchmark"].partition("backward, ")[2] for row in rows if "backward, B=" in row["benchmark"])
    )
    header = ["", *(rf"${','.join(re.findall('[0-9]+', size.partition(' 2 layers')[0]))}$" for size in sizes)]
    lines = []
    for model, variants in SPEEDS.items():
        for variant, label in variants.items():
            cells = [_chosen(rows, benchmark=f"{model} forward + backward, {size}", variant=variant) for size in sizes]
            library = variant == f"torch.nn.{model}"
            lines.append([label, *(rf"{row['value']:.3g}\,ms" if library else fixed(row["ratio"], 2) for (row,) in cells)])
    return tabular(header, lines, "l" + "c" * len(sizes))


def _converged(runs, separator):
    return f"{sum(row['converged'] == 'True' for row in runs)}{separator}{len(runs)}" if runs else "--"


def _accuracy(runs):
    return fixed(mean(row["test_accuracy"] for row in runs), 2) if runs else "--"


def _chosen(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
