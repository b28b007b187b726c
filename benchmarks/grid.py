"""The LSTM's time beside torch.nn's on a grid of sizes, losses included: not only where it was tuned.

    python -m benchmarks.grid

Forward and backward pass in float32, from the input to every gradient: ours as a user gets it, and `torch.nn.LSTM`. For
each size, in a process of its own, both are called in turns; the ratio is the median of the pairs' ratios.

Prints a table and writes report/results/benchmark_grid.csv.
"""

import time
from itertools import product
from statistics import median

import torch
from torch import nn

from benchmarks.part1 import forward_backward
from benchmarks.timing import in_own_process
from common.command import ArgumentParser, non_negative_float, positive_int, run_command
from common.experiment import add_allow_dirty, require_clean_tree, write_results
from common.machine import num_cores
from common.paths import short_path
from part2.model import LSTM

SIZES = [(n, B, T, d) for n, B, T, d in product((64, 128, 512), (16, 64, 256), (10, 50, 200), (8, 64))]
WARM_UP_PAIRS, FEWEST_PAIRS, MOST_PAIRS = 2, 5, 100


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--seconds", type=non_negative_float, default=4.0, help="for the pairs of a size; at least 5")
    parser.add_argument("--threads", type=positive_int, default=min(2, num_cores()), help="PyTorch's threads")
    add_allow_dirty(parser)
    args = parser.parse_args()
    require_clean_tree(args)
    rows = []
    for n, B, T, d in SIZES:
        library, ours, ratio = in_own_process(compare, n, B, T, d, args.seconds, args.threads)
        print(f"n={n:<5}B={B:<5}T={T:<5}d={d:<4}{library:10.2f} ms {ours:10.2f} ms {ratio:6.2f}", flush=True)
        sizes = {"n": n, "B": B, "T": T, "d": d}
        rows.append({**sizes, "library_ms": f"{library:.5g}", "ours_ms": f"{ours:.5g}", "ratio": f"{ratio:.3f}"})
    print(f"written to {short_path(write_results('benchmark_grid', rows, seeds=[0]))}")


def compare(n: int, B: int, T: int, d: int, seconds: float, threads: int) -> tuple[float, float, float]:
    """Return the library's and our median time in milliseconds, and the median ratio of a pair; in its own process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    library, x = nn.LSTM(d, n), torch.randn(T, B, d)
    ours = LSTM.from_torch(library)
    calls = (
        forward_backward(lambda: library(x)[0][-1], list(library.parameters())),
        forward_backward(lambda: ours(x)[-1], list(ours.parameters())),
    )
    pairs: list[list[float]] = []
    while len(pairs) < WARM_UP_PAIRS + FEWEST_PAIRS or (sum(map(sum, pairs)) < seconds and len(pairs) < MOST_PAIRS):
        pair = []
        for call in calls:
            started = time.perf_counter()
            call()
            pair.append(time.perf_counter() - started)
        pairs.append(pair)
    pairs = pairs[WARM_UP_PAIRS:]
    medians = [1000 * median(times) for times in zip(*pairs)]
    return medians[0], medians[1], median(ours / library for library, ours in pairs)


if __name__ == "__main__":
    run_command(main)
