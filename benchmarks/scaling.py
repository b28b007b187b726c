"""How training in several processes scales: measured for 1 and 2, predicted for GPUs and for many machines.

    python benchmarks/scaling.py                  measures, on Linux: about 4 minutes and 4 GB of temporary files
    python benchmarks/scaling.py --draw_only      from the committed results

Writes report/results/benchmark_scaling.csv, benchmarks/scaling.md and report/figures/benchmark_scaling.pdf: every number there
is computed from the measurements of `benchmarks/scaling_processes.py` and from the assumptions below.

The model. Our processes send one message a step, after the backward pass (`common/distributed.py`, `total_gradients`), so that
compute and communication add up:

    t(p) = t_compute(batch per process) + t_sum(p, bytes of the gradient)
    efficiency = t(1) / t(p)                    the batch per process constant: weak scaling
    efficiency = t(1) / (p t(p))                the whole batch constant: strong scaling
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.part2 import BOOK, write_words
from benchmarks.scaling_processes import MODELS
from common.errors import ArgumentParser, CommandError, positive_float, positive_int, run_command
from common.experiment import FIGURES, read_results, write_results
from common.machine import ROOT
from part1 import lstm_kernel

NAME, PAGE = "benchmark_scaling", ROOT / "benchmarks" / "scaling.md"
LARGE_GB = 2.0
PROCESSES = (1, 2)


class Link(NamedTuple):
    latency: float  # seconds a message
    bandwidth: float  # bytes a second, in each direction


# Assumptions: vendors' published figures, quoted from memory, and how much of them we expect to get. No GPU was measured.
FLOPS = {"float32": 67e12, "bf16": 989e12}  # of an H100 SXM: FP32 outside the tensor cores; BF16 in them, dense
UTILISATION = 0.5  # of these, in products as small as ours
LAUNCH = 5e-6  # seconds an operation at least, launched one by one from Python
NVLINK = Link(5e-6, 450e9)  # of an H100, fourth generation: 900 GB/s for both directions
NETWORK = Link(10e-6, 100e9 / 8)  # 100 Gbit/s, one card a machine
GPUS, NODES = 8, 64
NUMBERS = [2**k for k in range(10)]  # of GPUs: 1 to 512


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draw_only", action="store_true", help="write the page and the figure from the committed results")
    parser.add_argument("--repeats", type=positive_int, default=8, help="rounds with the large model; ten times as many small")
    parser.add_argument("--large_gb", type=positive_float, default=LARGE_GB, help="size of the large text")
    args = parser.parse_args()
    if not args.draw_only:
        with tempfile.TemporaryDirectory() as folder:
            load, _, _ = os.getloadavg()
            rows = [entry("machine", "cores", os.cpu_count()), entry("machine", "load before", load)]
            rows.append(entry("machine", "LSTM compiled", int(lstm_kernel.compiled())))
            rows += texts(args.large_gb, Path(folder))
            rows += [entry(**found) for found in torchrun(2, Path(folder), "steps", "--repeats", str(args.repeats))]
        write_results(NAME, rows)
    rows = read_results(NAME)
    PAGE.write_text(page(rows), encoding="utf-8")
    draw(rows)
    print(f"written from report/results/{NAME}.csv: {PAGE.relative_to(ROOT)}, report/figures/{NAME}.pdf")


def entry(what: str, variant: Any, value: float, unit: str = "", fastest: float | str = "") -> dict[str, Any]:
    return {"what": what, "variant": variant, "value": value, "fastest": fastest, "unit": unit}


def texts(gigabytes: float, folder: Path) -> list[dict[str, Any]]:
    """The book of tales and a text that is larger, each with one process and with two."""
    large, rows = folder / "large.txt", []
    write_words(large, int(gigabytes * 1e9))
    for name, text in (("tales", BOOK), ("large", large)):
        for processes in PROCESSES:
            found = torchrun(processes, folder, "text", "--text", str(text), "--folder", str(folder))
            for quantity, value in found.items():
                variant, unit = quantity.rsplit(", ", 1)
                rows.append(entry(f"{name}, {processes}", variant, value, unit))
    large.unlink()
    return [*rows, entry("large", "size", gigabytes, "GB")]


def torchrun(processes: int, folder: Path, *words: str) -> Any:
    """Return what `processes` of benchmarks/scaling_processes.py find."""
    file = folder / "found.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [str(ROOT / "benchmarks" / "scaling_processes.py"), words[0], str(file), *words[1:]]
    print(" ".join(["torchrun", *command[3:]]), flush=True)
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise CommandError(f"a measurement failed: {done.stderr}")
    return json.loads(file.read_text(encoding="utf-8"))


def ring(p: int, num_bytes: float, link: Link) -> float:
    """Return seconds to sum a message over p processes in a ring: 2 (p - 1) messages of a p-th of it, one after the other.

    (Patarasuk and Yuan 2009: no way of summing sends fewer bytes.)
    """
    return 2 * (p - 1) * (link.latency + num_bytes / p / link.bandwidth)


def summed(nodes: int, gpus: int, num_bytes: float) -> float:
    """Return seconds to sum a message over machines of `gpus` GPUs each: within each, then across, each GPU its share.

    The GPUs of a machine share its network card, through which the whole message passes.
    """
    return ring(gpus, num_bytes, NVLINK) + ring(nodes, num_bytes, NETWORK)


def fitted_link(seconds: dict[int, float]) -> Link:
    """Return the link that best explains, in relative error, the seconds in which two processes summed so many bytes each."""
    sizes, times = np.array(list(seconds), dtype=float), np.array(list(seconds.values()))
    latency, inverse = np.linalg.lstsq(np.stack([2 / times, sizes / times], axis=1), np.ones(len(times)), rcond=None)[0]
    return Link(max(float(latency), 0.0), 1 / float(inverse))


class Work(NamedTuple):
    """A training step of a model on a GPU."""

    flop: float  # of a window
    operations: int  # a step, whatever the batch
    num_bytes: int  # of the gradient, float32
    precision: str

    def seconds(self, windows: float) -> float:
        """Time is spent on arithmetic or, with few windows, on launching: the recurrence goes one character at a time."""
        return max(self.operations * LAUNCH, windows * self.window)

    @property
    def window(self) -> float:
        return self.flop / (UTILISATION * FLOPS[self.precision])

    def efficiency(self, windows: float, communication: float) -> float:
        """Of `windows` for each GPU: weak scaling."""
        return self.seconds(windows) / (self.seconds(windows) + communication)

    def least_windows(self, efficiency: float, communication: float) -> int:
        """Return the smallest batch for each GPU that has an efficiency below 1."""
        compute = communication * efficiency / (1 - efficiency)
        return 1 if compute <= self.seconds(1) else math.ceil(compute / self.window)


def works(value: dict[tuple[str, str], float]) -> dict[str, Work]:
    """Return the models' steps: two operations a weight forward, four backward, for each of T characters of a window."""
    found = {}
    for name, (T, *_) in MODELS.items():
        parameters = value[name, "parameters"]
        flop = 6 * T * (parameters - value[name, "embedding's parameters"])  # an embedding is looked up
        for precision in FLOPS if name == "1 × 1024" else ["float32"]:
            found[f"{name}, {precision}"] = Work(flop, value[name, "operations a step"], 4 * parameters, precision)
    return found


def strong_speedup(work: Work, windows: int, p: int) -> float:
    """Return how much faster p GPUs, in machines of GPUS, take a step on so many windows in all."""
    communication = summed(max(1, p // GPUS), min(p, GPUS), work.num_bytes)
    return work.seconds(windows) / (work.seconds(windows / p) + communication)


def page(rows: list[dict[str, Any]]) -> str:
    value, fastest_rounds = (
        {(row["what"], row["variant"]): row[key] or row["value"] for row in rows} for key in ("value", "fastest")
    )
    link = fitted(value)
    small, large = works(value)["2 × 128, float32"], works(value)["1 × 1024, float32"]
    across = summed(NODES, GPUS, large.num_bytes)
    best = {}  # by windows in all: speed-up and number of GPUs
    for windows in (MODELS["1 × 1024"][1], 1024):
        best[windows] = max((strong_speedup(large, windows, p), p) for p in NUMBERS if p <= windows)
    (speedup, fastest), (small_speedup, small_fastest) = best[1024], best[MODELS["1 × 1024"][1]]
    return PAGE_TEXT.format(
        size=f"{value['large', 'size']:g}",
        seconds=f"{value['large, 1', 'text opened or encoded']:.0f}",
        texts=table_of_texts(value),
        window_bytes=MODELS["2 × 128"][0] + 1,
        measured=table_of_steps(value, fastest_rounds),
        latency=f"{1e6 * link.latency:.0f}",
        bandwidth=f"{link.bandwidth / 1e9:.2f}",
        compiled="compiled" if value.get(("machine", "LSTM compiled")) else "as PyTorch's calls",
        cores=value["machine", "cores"],
        load=f"{value['machine', 'load before']:.1f}",
        furthest=furthest(checked(value)),
        furthest_fastest=furthest(checked(fastest_rounds)),
        furthest_busy=furthest(checked(fastest_rounds, busy=True)),
        disk=f"{value['large, 2', 'windows drawn from the disk']:,.0f}",
        taken=f"{MODELS['2 × 128'][1] * value['large, 2', 'training steps']:,.0f}",
        flops=f"{FLOPS['float32'] / 1e12:.0f}",
        flops_bf16=f"{FLOPS['bf16'] / 1e12:.0f}",
        utilisation=f"{100 * UTILISATION:.0f}",
        launch=f"{1e6 * LAUNCH:.0f}",
        nvlink=f"{NVLINK.bandwidth / 1e9:.0f}",
        nvlink_latency=f"{1e6 * NVLINK.latency:.0f}",
        network=f"{8 * NETWORK.bandwidth / 1e9:.0f}",
        network_latency=f"{1e6 * NETWORK.latency:.0f}",
        gpus=GPUS,
        nodes=NODES,
        predicted=table_of_predictions(value),
        megabytes=f"{large.num_bytes / 1e6:.1f}",
        small_megabytes=f"{small.num_bytes / 1e6:.2f}",
        operations=f"{large.operations:.0f}",
        small_operations=f"{small.operations:.0f}",
        floor=f"{1e3 * large.operations * LAUNCH:.1f}",
        floor_windows=f"{large.operations * LAUNCH / large.window:.0f}",
        across=f"{1e3 * across:.1f}",
        across_latency=f"{1e3 * 2 * (NODES - 1) * NETWORK.latency:.1f}",
        intensity=f"{UTILISATION * FLOPS['float32'] * 8 / (6 * MODELS['1 × 1024'][0] * NETWORK.bandwidth):.0f}",
        intensity_nvlink=f"{UTILISATION * FLOPS['float32'] * 8 / (6 * MODELS['1 × 1024'][0] * NVLINK.bandwidth):.1f}",
        fastest=fastest,
        speedup=f"{speedup:.1f}",
        small_fastest=small_fastest,
        small_speedup=f"{small_speedup:.1f}",
        batch_large=MODELS["1 × 1024"][1],
        early=f"{100 * early_share('1 × 1024'):.0f}",
        early_small=f"{100 * early_share('2 × 128'):.0f}",
    )


def table_of_texts(value: dict[tuple[str, str], float]) -> str:
    columns = [f"{name}, {processes}" for name in ("tales", "large") for processes in PROCESSES]
    titles = [
        f"{name}, {word}" for name in ("tales", f"{value['large', 'size']:g} GB") for word in ("1 process", "2 processes")
    ]
    lines = {
        "peak memory, MB": [f"{value[column, 'peak']:.0f}" for column in columns],
        "— private, MB": [f"{value[column, 'private']:.0f}" for column in columns],
        "— mapped files, MB": [f"{value[column, 'mapped files']:.0f}" for column in columns],
        "windows drawn a second": [f"{value[column, 'windows drawn again']:,.0f}" for column in columns],
        "— from the disk": [
            f"{value[column, 'windows drawn from the disk']:,.0f}" if "large" in column else "" for column in columns
        ],
        "training steps a second": [f"{value[column, 'training steps']:.1f}" for column in columns],
    }
    return table(["", *titles], [[name, *cells] for name, cells in lines.items()])


def table_of_steps(value: dict[tuple[str, str], float], fastest: dict[tuple[str, str], float]) -> str:
    columns = [(name, kind) for name in MODELS for kind in ("weak", "strong")]
    batches = {name: (B, B // 2) for name, (_, B, *_) in MODELS.items()}
    lines: dict[str, list[str]] = {
        "windows, 1 process": [str(batches[name][0]) for name, _ in columns],
        "windows, each of 2": [str(batches[name][kind == "strong"]) for name, kind in columns],
        "step, 1 process": [milliseconds(value[name, "alone, whole batch"]) for name, _ in columns],
        "step, 2 processes": [milliseconds(value[name, f"both, {half(kind)} batch each"]) for name, kind in columns],
        "— as much computed by one alone": [milliseconds(value[name, f"alone, {half(kind)} batch"]) for name, kind in columns],
        "— by each of both, nothing sent": [
            milliseconds(value[name, f"both, {half(kind)} batch each, nothing sent"]) for name, kind in columns
        ],
        "— gradient summed, by itself": [milliseconds(value[name, "gradients summed"]) for name, _ in columns],
        "efficiency, measured": [f"**{found:.2f}**" for found, _ in checked(value)],
        "efficiency, by the model": [f"{predicted:.2f}" for _, predicted in checked(value)],
        "fastest rounds: measured": [f"{found:.2f}" for found, _ in checked(fastest)],
        "fastest rounds: by the model": [f"{predicted:.2f}" for _, predicted in checked(fastest)],
        "— from what each of both computes": [f"{predicted:.2f}" for _, predicted in checked(fastest, busy=True)],
    }
    return table(["", *(f"{name}, {kind}" for name, kind in columns)], [[name, *cells] for name, cells in lines.items()])


def half(kind: str) -> str:
    return "half" if kind == "strong" else "whole"


def checked(value: dict[tuple[str, str], float], busy: bool = False) -> list[tuple[float, float]]:
    """Return, for each column of that table, the efficiency of two processes and what the model makes of one's time.

    busy: of one's time while the other computes too, with nothing sent.
    """
    pairs, link = [], fitted(value)
    for name in MODELS:
        for kind in ("weak", "strong"):
            batch = f"{half(kind)} batch"
            one = value[name, "alone, whole batch"] / (2 if kind == "strong" else 1)
            compute = value[name, f"both, {batch} each, nothing sent" if busy else f"alone, {batch}"]
            predicted = one / (compute + ring(2, 4 * value[name, "parameters"], link))
            pairs.append((one / value[name, f"both, {batch} each"], predicted))
    return pairs


def fitted(value: dict[tuple[str, str], float]) -> Link:
    return fitted_link({size: seconds for (what, size), seconds in value.items() if what == "message"})


def furthest(pairs: list[tuple[float, float]]) -> str:
    return f"{100 * max(abs(found - predicted) for found, predicted in pairs):.0f}"


def table_of_predictions(value: dict[tuple[str, str], float]) -> str:
    rows = []
    for name, work in works(value).items():
        model = name.split(",")[0]
        windows = MODELS[model][1]
        for place, communication in {
            f"{GPUS} GPUs": summed(1, GPUS, work.num_bytes),
            f"{NODES} machines of 1 GPU": summed(NODES, 1, work.num_bytes),
            f"{NODES} machines of {GPUS} GPUs": summed(NODES, GPUS, work.num_bytes),
        }.items():
            times = [milliseconds(work.seconds(windows)), milliseconds(communication)]
            least = [f"{work.least_windows(efficiency, communication):,}" for efficiency in (0.5, 0.9)]
            rows.append([name, place, str(windows), *times, f"**{work.efficiency(windows, communication):.2f}**", *least])
        if work.precision == "float32":  # and such processes as were measured
            compute, communication = value[model, "alone, whole batch"], ring(NODES, work.num_bytes, NETWORK)
            times = [milliseconds(compute), milliseconds(communication)]
            efficiency = f"**{compute / (compute + communication):.2f}**"
            rows.append([name, f"{NODES} machines of 1 core, as measured", str(windows), *times, efficiency, "", ""])
    titles = ["model", "on", "windows each", "compute", "sum", "efficiency", "windows each for 0.5", "for 0.9"]
    return table(titles, rows)


def early_share(name: str) -> float:
    """Return the share of the gradient that is there before the backward pass through the first layer begins."""
    _, _, d, n, layers, K = MODELS[name]
    first, other, rest = 4 * n * (d + n + 1), 4 * n * (2 * n + 1), K * (n + 1)
    return ((layers - 1) * other + rest) / (first + (layers - 1) * other + rest + K * d)


def table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{1000 * seconds:.0f} ms"


def draw(rows: list[dict[str, Any]]) -> None:
    from common.figure import LINE_STYLES, MARKERS, new_figure, save_figure  # matplotlib takes a second to import

    value = {(row["what"], row["variant"]): row["value"] for row in rows}
    figure, (weak, strong) = new_figure(1, 2)
    for (name, work), style, marker in zip(works(value).items(), LINE_STYLES, MARKERS):
        windows = MODELS[name.split(",")[0]][1]
        sums = [summed(max(1, p // GPUS), min(p, GPUS), work.num_bytes) for p in NUMBERS]
        efficiencies = [work.efficiency(windows, communication) for communication in sums]
        weak.plot(NUMBERS, efficiencies, linestyle=style, marker=marker, label=f"{name}, {windows} each")
    for windows, style, marker in zip((128, 1024, 8192), LINE_STYLES, MARKERS):
        speedups = {p: strong_speedup(works(value)["1 × 1024, float32"], windows, p) for p in NUMBERS if p <= windows}
        strong.plot(*zip(*speedups.items()), linestyle=style, marker=marker, label=f"{windows:,} windows in all")
    strong.plot(NUMBERS, NUMBERS, color="0.6", linewidth=0.8)
    weak.set(xlabel=f"GPUs, {GPUS} a machine", ylabel="efficiency", ylim=(0, 1.05))
    strong.set(xlabel=f"GPUs, {GPUS} a machine", ylabel="speed-up, 1 × 1024", yscale="log", ylim=(0.5, 600))
    for axes in (weak, strong):
        axes.set_xscale("log", base=2)
        axes.axvline(GPUS, color="0.6", linewidth=0.8, linestyle=":")
        axes.legend()
    save_figure(figure, FIGURES / NAME)


PAGE_TEXT = """\
# Training in several processes: what it costs, and how far it goes

Written by `python benchmarks/scaling.py`; what was measured, with versions and hardware, is in
`report/results/benchmark_scaling.csv` and `.json`. Nothing here was measured on a GPU.

## A text larger than memory

The steps of `part2/train.py` at its default sizes: 64 windows of 30 characters, for all processes together; one thread each.
The text of {size} GB is encoded once, by the first process while the others wait, in {seconds} s, into a file of a byte
a character. Memory is that of the process that needs most.

{texts}

A process reads its own windows of a step from the file, {window_bytes} bytes each, and no others. The file is read, not
mapped: where it is mapped, a touched window brings up to a megabyte around it into memory. So its pages are the
system's, to be dropped when memory is short, and count for no process. What is mapped are libraries, above all
PyTorch's, which the processes share. Two processes draw {disk} windows a second together where the system has dropped
the file before, and {taken} are what they take in training.

## Two processes, measured

Part 2's models, float32, the LSTM's steps {compiled}, over gloo on one machine, one thread a process. Weak: the same
batch for each process. Strong: the same batch for both together. Medians over rounds in which each variant has its turn,
and the fastest rounds, with a machine of {cores} cores that had a load of {load} from others before.

{measured}

Messages from 4 KiB to 64 MiB, summed by two processes, take 2 × {latency} µs + bytes / ({bandwidth} GB/s), the best
fit. With it the model

```
t(p) = t_compute + 2 (p - 1) (latency + bytes / p / bandwidth)        one message after the backward pass, summed in a ring
```

is off by at most {furthest} points of efficiency in the medians and {furthest_fastest} in the fastest rounds. It takes
no account of what the processes of one machine share, cores and memory, nor of their wait in every step for the slower
one; both count most where others use the machine and steps are short. With the time that each takes beside the other
it is off by {furthest_busy} points in the fastest rounds.

## Many, predicted

Assumptions, vendors' published figures quoted from memory and our guess of what we would get of them:

* a GPU, an H100 SXM: {flops} TFLOP/s in float32, {flops_bf16} in bfloat16, of which {utilisation} %; {launch} µs an
  operation at least, since the recurrence launches them one by one: {operations} a step of the large model,
  {small_operations} of the small one, counted here;
* within a machine of {gpus}: NVLink, {nvlink} GB/s in each direction, {nvlink_latency} µs a message;
* between machines: one card of {network} Gbit/s each, {network_latency} µs a message, nothing else on the network;
* sums in a ring within each machine, then in a ring across, each GPU its share of the message; nothing is sent while
  computing.

{predicted}

The last columns are the smallest batches for each GPU that reach an efficiency; 1 where launching takes long enough.

![efficiency and speed-up](../report/figures/benchmark_scaling.png)

Left: weak scaling. Right: strong scaling, with the grey line for what cannot be beaten. Dotted: the end of the first
machine.

## Where the 1024-unit model stops, and why

* **Its message.** {megabytes} MB of gradient a step, whatever the batch; the small model's has {small_megabytes} MB.
  {nodes} machines need {across} ms for it, of which {across_latency} ms are the ring's {network_latency} µs a message
  and grow with the number of machines. That the model is large is not the reason: a weight costs 6 T floating-point
  operations a window, and 8 bytes on the wire, whatever their number. Where the operations are fast enough to count and
  latency is not, half of the time is computing with {intensity} windows a GPU across the network, and
  {intensity_nvlink} within a machine.
* **Its steps.** Characters come one after the other. However few the windows, {operations} operations cost {floor} ms
  of launching, as much as the arithmetic of {floor_windows} windows: below that a smaller share of the batch is no
  faster. With {batch_large} windows in all, the best that any number of GPUs does is {small_speedup} times the speed of
  one, with {small_fastest}; with 1,024 it is {speedup} times, with {fastest}.
* **So** it scales well within a machine, and across machines as long as every GPU has the windows of the last columns;
  that is a larger batch, no faster step. Faster arithmetic, as bfloat16, makes the message weigh more, not less. What
  would help: fewer launches (a fused recurrence, CUDA graphs), a gradient sent in bfloat16 (half of the bytes), several
  cards a machine, a sum in a tree (latency with the logarithm of the machines' number).
* **Sending while computing would not help it.** Our processes send one message when all gradients are there. The
  gradient of a recurrent layer's weights is a sum over all characters, and there when the backward pass has reached the
  first one: only that of later layers and the output can leave earlier, {early} % of the large model's message,
  {early_small} % of the small one's.
"""


if __name__ == "__main__":
    run_command(main)
