"""The tables of docs/speed.md, from benchmark_*.csv."""

import re
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from report.pages.format import table
from report.values import Results, Rows, rows_with

LSTMS = {
    "torch.nn.LSTM": "`nn.LSTM`, float32",
    "torch.nn.LSTM, bf16": "`nn.LSTM`, bf16",
    "ours, compiled": "**ours, compiled**",
    "ours, compiled, bf16": "**ours, compiled, bf16**",
    "ours": "ours, PyTorch's calls",
    "ours, bf16": "ours, PyTorch's calls, bf16",
    "plain loop": "plain loop, four gates in one product",
    "plain loop, eight products": "plain loop, eight products a step",
}
RNNS = {
    "torch.nn.RNN": "`nn.RNN`, float32",
    "torch.nn.RNN, bf16": "`nn.RNN`, bf16",
    "ours, compiled": "**ours, compiled**",
    "ours, compiled, bf16": "**ours, compiled, bf16**",
    "ours": "ours, PyTorch's calls",
    "plain loop": "plain loop",
}
TRAININGS = {"torch.nn.RNN": "`nn.RNN` in its place", "torch.nn.LSTM": "`nn.LSTM` in its place", "ours": "**ours**"}
SIDE_BY_SIDE = {"one after the other": "one after the other", "side by side": "side by side"}
TEXT_MODELS = {
    "torch.nn, float32": "`torch.nn`, float32",
    "torch.nn, bf16": "`torch.nn`, bf16",
    "ours, compiled, float32": "**ours, compiled**",
    "ours, compiled, bf16": "**ours, compiled, bf16**",
    "ours, float32": "ours, PyTorch's calls",
    "ours, bf16": "ours, PyTorch's calls, bf16",
}
WRITERS = {
    "torch.nn.LSTM, state carried": "loop over `nn.LSTM`, state carried",
    "ours": "**ours**",
    "ours, whole text": "reading the whole text again for each character",
}
LENGTHS = {f"text of {length}": f"text of {length}" for length in ("50", "200", "800", "3,200")}
TEXTS = {"part2/assets/grimm.txt": "Grimm's tales", "2 GB of words": "2 GB of words"}
STEPS = {
    "plain loop over torch.nn": "plain loop over `torch.nn`, nothing else",
    "part2/train.py": "**`part2/train.py`**",
}
GRAPH_NETWORKS = {
    "PyTorch Geometric, sparse features": "PyTorch Geometric, sparse features",
    "ours": "**ours**",
    "PyTorch's sparse products": "PyTorch's sparse products",
    "PyTorch Geometric, dense features": "PyTorch Geometric, dense features",
    "dense matrices": "dense matrices",
}
LAYERS = {
    "PyTorch": "PyTorch",
    "ours": "**ours**, NumPy",
    "ours, as the equation reads": "as the equation reads, loops",
}
IMAGE_NETWORKS = {
    "as in torchvision": "as in torchvision, float32",
    "as in torchvision, bf16": "as in torchvision, bf16",
    "ours, float32": "**ours**",
    "ours, bf16": "**ours, bf16**",
}


def values(results: Results) -> dict[str, str]:
    """Return the page's tables."""
    part1, part2, part3, part4 = (results(f"benchmark_part{k}") for k in (1, 2, 3, 4))
    return {
        **grid(results("benchmark_grid")),
        "speed-lstm": beside(part1, r"LSTM forward \+ backward, (B=.*)", LSTMS),
        "speed-rnn": beside(part1, r"RNN forward \+ backward, (B=.*)", RNNS),
        "speed-lstm-memory": beside(part1, r"LSTM forward \+ backward, memory, (B=.*)", LSTMS),
        "speed-training": beside(part1, r"steps of part1/train.py --model_type (\w+)", TRAININGS),
        "speed-profile": profile(part1),
        "speed-palindromes": beside(
            part1, "(palindromes.* drawn)", {"digit by digit": "digit by digit", "ours": "**ours**"}
        ),
        "speed-side-by-side": beside(part1, r"(\w+), 3 models, plain loop, B=128 T=20 n=128", SIDE_BY_SIDE),
        "speed-text-models": beside(part2, r"model, forward \+ loss \+ backward, (.*) K=\d+", TEXT_MODELS),
        "speed-text-losses": losses(part2),
        "speed-text-training": beside(part2, r"training (steps), part2/train.py --txt_file assets/grimm.txt", STEPS),
        "speed-writing": beside(part2, r"characters written, texts of 200, (batch \d+)", WRITERS),
        "speed-written-after": beside(part2, r"one character written: (.*)", LENGTHS, show=amount),
        "speed-texts": beside(part2, r"(text encoded, all of it|characters drawn.*|peak memory.*)", TEXTS, show=amount),
        "speed-graphs": beside(part3, r"(G\w\w), epoch on (\w+)", GRAPH_NETWORKS),
        "speed-growth": growth(part3),
        "speed-layers": beside(part4, r"(.*), 128 x 16 x 32 x 32", LAYERS),
        "speed-layers-one": beside(part4, r"(.*), 1 x 16 x 32 x 32", LAYERS),
        "speed-images": beside(part4, r"(\w+), step of 128 images", IMAGE_NETWORKS),
    }


def beside(
    rows: Rows, pattern: str, labels: Mapping[str, str], show: Callable[[dict[str, Any]], str] | None = None
) -> str:
    """Return a table of the benchmarks whose names match the pattern; the groups of the match are a column's head.

    Args:
        labels: the variants, from their names in the results to those in the table.
        show: what a cell says of its row; by default each column has one value with its unit and multiples of it.
    """
    matches = {row["benchmark"]: re.fullmatch(pattern, row["benchmark"]) for row in rows}
    heads = {benchmark: " ".join(match.groups()) for benchmark, match in matches.items() if match}
    cells = {(row["benchmark"], row["variant"]): (show or multiple)(row) for row in rows if matches[row["benchmark"]]}
    lines = [[label, *(cells.get((name, variant), "") for name in heads)] for variant, label in labels.items()]
    return table(["", *heads.values()], [line for line in lines if any(line[1:])])


def multiple(row: dict[str, Any]) -> str:
    """Return a variant's time, memory or rate as a multiple of the first one's."""
    return f"1 ({amount(row)})" if row["ratio"] == 1 else digits(row["ratio"])


def amount(row: dict[str, Any]) -> str:
    """Return a value with its unit."""
    value, unit = row["value"], row["unit"]
    if unit == "us":
        value, unit = value / 1e3, "ms"
    if unit == "ms" and value >= 1_000:
        value, unit = value / 1e3, "s"
    return f"{digits(value)} {'a second' if unit == '1/s' else unit}"


def digits(number: float) -> str:
    """Return a number with two or three digits that count."""
    if number >= 1e6:
        return f"{number / 1e6:.3g} million"
    if number >= 100:
        return f"{number:,.0f}"
    if number >= 10:
        return f"{number:.1f}"
    return f"{number:.2f}" if number >= 0.1 else f"{number:.2g}"


def grid(rows: Rows) -> dict[str, str]:
    """Return the ratios of all sizes in a table, and their range and median."""
    ratios = sorted(row["ratio"] for row in rows)
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        line = cells.setdefault(f"n={row['n']} B={row['B']}", {})
        line[f"T={row['T']} d={row['d']}"] = f"{row['ratio']:.2f}"
    heads = list(next(iter(cells.values())))
    return {
        "speed-grid": table(["", *heads], [[name, *(line[head] for head in heads)] for name, line in cells.items()]),
        "speed-grid-sizes": str(len(ratios)),
        "speed-grid-range": f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
        "speed-grid-median": f"{median(ratios):.2f}",
    }


def profile(rows: Rows) -> str:
    """Return the shares of a training's time, in per cent."""
    models = {"RNN": "time of part1/train.py --model_type RNN", "LSTM": "time of part1/train.py --model_type LSTM"}
    shares = {
        name: {row["variant"]: row["value"] for row in rows_with(rows, benchmark=name)} for name in models.values()
    }
    parts = [part for part in shares[models["RNN"]] if part != "all"]
    lines = [[model, *(f"{shares[name][part]:.0f} %" for part in parts)] for model, name in models.items()]
    return table(["", *parts], lines)


def growth(rows: Rows) -> str:
    """Return time and memory of an epoch on graphs of growing size."""
    sizes: dict[str, dict[str, str]] = {}
    for row in rows:
        if match := re.fullmatch(r"GCN, synthetic graph of ([\d,]+) nodes, ([\d,]+) edges", row["benchmark"]):
            sizes.setdefault(" nodes, ".join(match.groups()) + " edges", {})[row["variant"]] = amount(row)
    kinds = list(next(iter(sizes.values())))
    return table(["", *kinds], [[size, *(found[kind] for kind in kinds)] for size, found in sizes.items()])


def losses(rows: Rows) -> str:
    """Return the held-out loss after a short training in both precisions, by seed."""
    found = {
        tuple(row["variant"].split(", seed ")): f"{row['value']:.3f}"
        for row in rows_with(rows, benchmark="held-out loss of the tales after 500 steps")
    }
    if not found:
        return "The same in both here: the machine behind this page has no instructions for bfloat16."
    precisions, seeds = (list(dict.fromkeys(key[k] for key in found)) for k in (0, 1))
    lines = [[precision, *(found[precision, seed] for seed in seeds)] for precision in precisions]
    return table(["", *(f"seed {seed}" for seed in seeds)], lines)
