"""Times of variants that are measured side by side, and the table of a benchmark."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), computed where nothing ran before: memory freed by others changes how long calls take."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(function, *arguments).result()


def interleaved_medians(variants: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return milliseconds a call; every round calls each variant once, so that a slow moment of the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(repeats + 2):
        for name, call in variants.items():
            started = time.perf_counter()
            call()
            if round_number >= 2:  # two rounds to warm up
                times[name].append(time.perf_counter() - started)
    return {name: 1000 * median(values) for name, values in times.items()}


def report(benchmark: str, unit: str, values: dict[str, float], reference: str) -> list[dict]:
    print(benchmark)
    rows = []
    for name, value in values.items():
        ratio = value / values[reference]
        print(f"    {name:<28}{value:>14,.4g} {unit:<4}{ratio:8.2f} x {reference}")
        rows.append({"benchmark": benchmark, "variant": name, "value": f"{value:.5g}", "unit": unit, "ratio": f"{ratio:.3f}"})
    return rows
