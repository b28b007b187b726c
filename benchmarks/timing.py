"""Timing of variants that are measured side by side, and the table of a benchmark."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

WARM_UP_ROUNDS = 2
MOST_SECONDS = 30.0  # of a variant, after which it is not called again


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), computed in a new process: memory that earlier work has freed changes timings."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(function, *arguments).result()


def interleaved_medians(variants: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return each variant's median time in milliseconds.

    Every round calls each variant once, so that a slow moment of the machine affects all of them. The first two rounds
    do not count, except for a variant so slow that there was no third.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(WARM_UP_ROUNDS + repeats):
        for name, call in variants.items():
            if sum(times[name]) < MOST_SECONDS:
                started = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - started)
    return {name: 1000 * median(values[WARM_UP_ROUNDS:] or values[-1:]) for name, values in times.items()}


def report(benchmark: str, unit: str, values: dict[str, float], reference: str) -> list[dict[str, str]]:
    """Print each variant's value and its ratio to that of the `reference`, and return them as rows of the results."""
    print(benchmark)
    rows = []
    for name, value in values.items():
        ratio = value / values[reference]
        print(f"    {name:<28}{value:>14,.4g} {unit:<4}{ratio:8.2f} x {reference}")
        rows.append(
            {"benchmark": benchmark, "variant": name, "value": f"{value:.5g}", "unit": unit, "ratio": f"{ratio:.3f}"}
        )
    return rows
