"""How far a step of part 2 gains from several processes: measured for 2 on this machine, predicted for GPUs.

    python benchmarks/scaling.py

Every process has the same batch, whatever their number (weak scaling), and one thread. Measured: a training step with random
text, of which adding up the gradients is a part. Predicted, from bytes, operations and the constants below: 8 GPUs of one
machine, and 64 such machines. The prediction is no measurement: no GPU was at hand.

Prints a table and writes report/results/benchmark_scaling.csv.
"""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.timing import report
from common.distributed import num_processes, process_group, rank, total_gradients
from common.errors import ArgumentParser, CommandError, non_negative_int, positive_int, run_command
from common.experiment import write_results
from common.machine import short_path
from part2.model import TextGenerationModel

SIZES = [(30, 64, 64, 128, 2, 63), (64, 64, 128, 512, 1, 65), (30, 128, 256, 1024, 1, 63)]  # (T, B, d, n, layers, K)

# NVIDIA H100 SXM data sheet: dense bf16 operations a second, bytes of memory a second, NVLink 4 in one direction.
FLOPS, MEMORY, NVLINK = 989e12, 3.35e12, 450e9
# NVIDIA DGX H100 data sheet: eight GPUs, each with a ConnectX-7 of 400 Gb/s.
NETWORK, CLUSTERS = 50e9, ((1, 1), (1, 8), (64, 8))  # CLUSTERS: machines, and GPUs in each
# Assumptions, on the careful side: the share of FLOPS that products of these sizes reach, the seconds that one step of a
# recurrence takes (six small kernels of 5 us, forward and backward), and those that one hop of a message takes.
UTILISATION, RECURRENCE, NVLINK_HOP, NETWORK_HOP = 0.2, 30e-6, 3e-6, 10e-6


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=positive_int, default=30, help="steps that are timed")
    parser.add_argument(
        "--sizes", type=positive_int, default=len(SIZES), help="how many of the model sizes, the small ones first"
    )
    parser.add_argument("--measure", type=non_negative_int, help="what torchrun starts: time the steps of this size")
    args = parser.parse_args()
    if args.measure is not None:
        with process_group(int(os.environ["WORLD_SIZE"])):
            measure(*SIZES[args.measure], args.repeats)
        return
    rows = []
    for index, (T, B, d, n, layers, K) in enumerate(SIZES[: args.sizes]):
        name = f"T={T} B={B} d={d} n={n} layers={layers} K={K}"
        times = {P: run(P, index, args.repeats) for P in (1, 2)}
        rates = {f"{P} process{'es' * (P > 1)}": P * T * B / step for P, (step, _) in times.items()}
        rows += report(f"characters trained on, one thread a process, {name}", "1/s", rates, "1 process")
        milliseconds = {"step": 1000 * times[2][0], "gradients added up": 1000 * times[2][1]}
        rows += report(f"2 processes, {name}", "ms", milliseconds, "step")
        seconds = {(nodes, gpus): predict(T, B, d, n, layers, K, nodes, gpus) for nodes, gpus in CLUSTERS}
        rates = {f"{nodes} x {gpus} GPUs": nodes * gpus * T * B / step for (nodes, gpus), step in seconds.items()}
        rows += report(f"characters trained on, predicted for H100, {name}", "1/s", rates, "1 x 1 GPUs")
    print(f"written to {short_path(write_results('benchmark_scaling', rows))}")


def run(processes: int, size: int, repeats: int) -> tuple[float, float]:
    """Return the seconds of a step, and of adding up its gradients, in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = [__file__, "--measure", str(size), "--repeats", str(repeats)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launcher, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"{processes} processes could not be timed: {done.stderr.strip().splitlines()[0]}")
    return tuple(json.loads(done.stdout))


def measure(T: int, B: int, d: int, n: int, layers: int, K: int, repeats: int) -> None:
    """Print the median seconds of a step, and of adding up its gradients."""
    model = TextGenerationModel(Namespace(vocabulary_size=K, embedding_size=d, lstm_hidden_dim=n, lstm_num_layers=layers))
    optimizer = torch.optim.Adam(model.parameters())
    text, times = torch.randint(K, (T + 1, B)), []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        loss = F.cross_entropy(model(text[:-1]).flatten(0, 1), text[1:].flatten()) / num_processes()
        optimizer.zero_grad()
        loss.backward()
        backward = time.perf_counter()
        total_gradients(model, loss)
        added = time.perf_counter()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=5.0)
        optimizer.step()
        times.append((time.perf_counter() - started, added - backward))
    if rank() == 0:
        print(json.dumps([median(values) for values in zip(*times[2:])]))  # two to warm up


def predict(T: int, B: int, d: int, n: int, layers: int, K: int, nodes: int, gpus: int) -> float:
    """Return the seconds of a step: computing, then adding up, first within each machine and then, in shares, between them."""
    weights = 4 * n * (d + n) + (layers - 1) * 8 * n * n + n * K
    computing = 6 * weights * T * B / (FLOPS * UTILISATION) + 2 * T * layers * RECURRENCE
    if nodes * gpus == 1:
        return computing
    message = 4 * (weights + K * d)  # bytes: the embedding's gradient is dense
    copying = 4 * message / MEMORY  # into one buffer and back
    within = 2 * (gpus - 1) * (message / gpus / NVLINK + NVLINK_HOP)
    between = 2 * (nodes - 1) * (message / gpus / nodes / NETWORK + NETWORK_HOP)
    return computing + copying + within + between


if __name__ == "__main__":
    run_command(main)
