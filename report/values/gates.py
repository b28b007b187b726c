"""From part1_grads_over_time and its runs, part1_variants, part1_time_gate and its basin."""

import math
from collections.abc import Iterable
from statistics import mean, stdev

from part1.experiments import time_gate, variants
from part1.experiments.time_gate import Run, last_rows, run_of
from report.values import Results, Rows, rows_with
from report.values.format import fixed, in_per_cent, scientific, span, tabular, thousands
from report.values.memory import geometric_mean, gradient_share

T_GRADS = 100
CHECKS = {  # of UvA 2020: from a data set and a length to the models that should be perfect there
    ("randomcomb", 5): ("biLSTM",),
    ("randomcomb", 6): ("LSTM",),
    ("bss", 6): ("LSTM", "GRU"),
    ("bipalindrome", 6): ("peepLSTM",),
    ("bipalindrome", 10): ("LSTM",),
}
STARTS = {  # from which learning starts
    "near": [Run("learnt", tau=tau) for tau in (0.9, 0.95, 1.0, 1.02, 1.05)],
    "tau-0.8": [Run("learnt", tau=0.8)],
    "tau-1.1": [Run("learnt", tau=1.1)],
    "tau-1.2": [Run("learnt", tau=1.2)],
    "tau-1.5": [Run("learnt", tau=1.5)],
    "s-eighth": [Run("learnt", shift=0.125)],
    "s-quarter": [Run("learnt", shift=0.25)],
    "s-half": [Run("learnt", shift=0.5)],
    "leak-0.001": [Run("learnt", shift=0.5, alpha=0.001)],
    "leak-0.1": [Run("learnt", shift=0.5, alpha=0.1)],
    "on-moderate": [Run("learnt", r_on=r_on) for r_on in (0.1, 0.5)],
    "on-1": [Run("learnt", r_on=1.0)],
    "random": [Run("random learnt")],
    "random-kept": [Run("random fixed")],
}


def values(results: Results) -> dict[str, str]:
    """Return the measured numbers of the section."""
    numbers = {
        **_gradients(results("part1_grads_over_time"), results("part1_grads_over_time_runs")),
        **_variants(results("part1_variants")),
        **_networks(results("part1_time_gate")),
        **_clocks(results("part1_time_gate"), results("part1_time_gate_basin")),
    }
    return {f"gates-{key}": text for key, text in numbers.items()}


def tables(results: Results) -> dict[str, str]:
    """Return the accuracies of UvA 2020's experiment, with the handout's settings."""
    return {"gates-variants": _accuracy_table(rows_with(results("part1_variants"), family="handout"))}


def _gradients(rows: Rows, runs: Rows) -> dict[str, str]:
    """Return shares |dL/dh(1)| / |dL/dh(99)|, the fall of a step in between, and the accuracies."""
    numbers = {}
    for model in ("RNN", "LSTM"):
        key, last = f"grads-{model.lower()}", T_GRADS - 1
        numbers[f"{key}-initial"] = scientific(gradient_share(rows, "handout", model, T_GRADS, "initial"))
        chosen = rows_with(rows, family="handout", model=model, T=T_GRADS, moment="initial")
        first, end = (geometric_mean(row["norm"] for row in rows_with(chosen, t=t)) for t in (1, last - 1))
        numbers[f"{key}-rate"] = fixed((first / end) ** (1 / (last - 2)), 2)
        for family in ("handout", "tuned"):
            chosen = rows_with(rows, family=family, model=model, T=T_GRADS, moment="trained")
            norm = {(row["seed"], row["t"]): row["norm"] for row in chosen}
            shares = sorted(norm[seed, 1] / norm[seed, last] for seed in {row["seed"] for row in chosen})
            write = scientific if family == "handout" else thousands
            numbers[f"{key}-{family}-trained"] = f"{write(shares[0])} to {write(shares[-1])}"
        accuracies = [row["test_accuracy"] for row in rows_with(runs, family="handout", model=model, T=T_GRADS)]
        numbers[f"{key}-accuracy"] = span(accuracies, 2)
    tuned = [row["test_accuracy"] for row in rows_with(runs, family="tuned", T=T_GRADS)]
    return {**numbers, "grads-tuned-accuracy": fixed(math.floor(1000 * min(tuned)) / 1000, 3)}


def _variants(rows: Rows) -> dict[str, str]:
    """Return the handout's checks, how far each network comes at T = 15, and how many steps it needs."""
    handout = rows_with(rows, family="handout")
    numbers = {
        "variants-runs": str(len(rows)),
        "variants-hours": fixed(sum(row["seconds"] for row in rows) / 3600, 1),
    }
    missed = []
    for (dataset, T), models in CHECKS.items():
        for model in models:
            runs = rows_with(handout, dataset=dataset, model=model, T=T)
            numbers[f"check-{dataset}-{model}"] = _cell(runs, 2)
            missed += [row for row in runs if row["test_accuracy"] < 1]
    ended = rows_with(missed, converged="True")
    numbers["check-missed-ended"] = f"{len(ended)} of {len(missed)}"
    numbers["check-ended-most"] = fixed(100 * (1 - min(row["test_accuracy"] for row in ended)), 1)
    numbers["check-ended-steps"] = span((row["steps"] for row in ended), 0)
    for model in variants.MODELS:
        numbers[f"fifteen-{model}"] = _cell(rows_with(handout, dataset="randomcomb", model=model, T=15))
    for key, dataset in (("bss", "bss"), ("bits", "bipalindrome")):
        runs = rows_with(handout, dataset=dataset)
        peephole = rows_with(runs, model="peepLSTM")
        for model in ("LSTM", "GRU", "biLSTM"):
            numbers[f"{key}-steps-{model}"] = span((row["steps"] for row in rows_with(runs, model=model)), 0)
        numbers[f"{key}-least"] = in_per_cent(min(row["test_accuracy"] for row in runs if row["model"] != "peepLSTM"))
        numbers[f"{key}-peephole-least"] = in_per_cent(min(row["test_accuracy"] for row in peephole))
        numbers[f"{key}-peephole-ended"] = f"{len(rows_with(peephole, converged='True'))} of {len(peephole)}"
    lstm = [row for row in rows_with(handout, model="LSTM") if row["dataset"] != "randomcomb"]
    numbers["lstm-least"] = in_per_cent(min(row["test_accuracy"] for row in lstm))
    longer = rows_with(rows, family="longer", dataset="randomcomb")
    numbers["twenty-least"] = in_per_cent(min(row["test_accuracy"] for row in rows_with(longer, T=20)))
    return numbers | {f"forty-{model}": _cell(rows_with(longer, model=model, T=40)) for model in variants.MODELS}


def _networks(rows: Rows) -> dict[str, str]:
    """Return after how many sequences each network's error first fell below `SOLVED`, and what that gains."""
    sequences = {}
    for network in ("LSTM", "LSTM told k", "fixed", "random fixed"):
        solved: dict[int, int] = {}
        for row in rows:  # in the order of the steps
            if run_of(row) == Run(network) and row["error"] < time_gate.SOLVED:
                solved.setdefault(row["seed"], row["step"] * time_gate.BATCH_SIZE)
        sequences[network] = list(solved.values())
    numbers = {
        f"clock-{network.replace(' ', '-')}-sequences": f"{thousands(min(needed))} to {thousands(max(needed))}"
        for network, needed in sequences.items()
    }
    lstm, told, gated = (mean(sequences[network]) for network in ("LSTM", "LSTM told k", "fixed"))
    return {**numbers, "clock-gain-told": fixed(lstm / told, 1), "clock-gain-gate": fixed(told / gated, 1)}


def _clocks(rows: Rows, basin: Rows) -> dict[str, str]:
    """Return the errors after learning from each start, and what has become of some clocks."""
    ends = {key: [row for run in runs for row in last_rows(rows)[run]] for key, runs in STARTS.items()}
    numbers = {f"clock-{key}-error": _significant(row["error"] for row in chosen) for key, chosen in ends.items()}
    for key in ("near", "on-moderate"):
        numbers[f"clock-{key}-error"] = f"{max(row['error'] for row in ends[key]):.4f}"
    for key in ("random", "random-kept"):
        numbers[f"clock-{key}-error"] = span((row["error"] for row in ends[key]), 3)
    for key in ("tau-0.8", "tau-1.2"):
        numbers[f"clock-{key}-off"] = span((row["tau_error"] for row in ends[key]), 2)
    errors = {tau: [row["error"] for row in rows_with(basin, tau=tau)] for tau in time_gate.BASIN_TAUS}
    one, four = ([e for tau in taus for e in errors[tau]] for taus in ((0.9901, 1.01), (0.9612, 1.0404)))
    return {
        **numbers,
        "clock-basin-0": f"{max(errors[1.0]):.4f}",
        "clock-basin-1": span(one, 2),
        "clock-basin-4": span(four, 1),
    }


def _significant(errors: Iterable[float]) -> str:
    """Return the smallest and the largest error, with one significant digit."""
    chosen = list(errors)
    return f"{min(chosen):.1g} to {max(chosen):.1g}"


def _accuracy_table(rows: Rows) -> str:
    """Return one row for each data set and length, one column for each network."""
    lines = []
    for dataset, title in variants.TITLES.items():
        for T in variants.LENGTHS.get(("handout", dataset), ()):
            runs = rows_with(rows, dataset=dataset, T=T)
            cells = [_cell(rows_with(runs, model=model)) for model in variants.MODELS]
            lines.append([title, str(T), in_per_cent(mean(row["largest_class"] for row in runs)), *cells])
            title = ""
    return tabular(["", "$T$", "largest class", *variants.MODELS], lines, "lrc" + "l" * len(variants.MODELS))


def _cell(runs: Rows, digits: int = 1) -> str:
    """Return mean and standard deviation of the accuracies in per cent, and the number of runs."""
    accuracies = [row["test_accuracy"] for row in runs]
    spread = rf"\pm{fixed(100 * stdev(accuracies), digits)}" if len(accuracies) > 1 else ""
    return rf"${in_per_cent(mean(accuracies), digits)}{spread}$\,({len(accuracies)})"
