"""How training in several processes scales: measured for 1 and 2, predicted for GPUs and for many machines.

    python -m benchmarks.scaling                  measures, on Linux: about 4 minutes and 4 GB of temporary files
    python -m benchmarks.scaling --draw_only      from the committed results

Writes report/results/benchmark_scaling.csv, benchmarks/scaling.md and report/figures/benchmark_scaling.pdf. The page is
`scaling.template.md`, filled in: every number is computed from the measurements of `benchmarks/scaling_processes.py`
and from the assumptions below.

The model. Our processes send one message per step, after the backward pass (`all_reduce_gradients` in
`common/distributed.py`), so that compute and communication add up:

    t(p) = t_compute(batch per process) + t_all_reduce(p, bytes of the gradient)
    efficiency = t(1) / t(p)                    the batch per process constant: weak scaling
    efficiency = t(1) / (p t(p))                the whole batch constant: strong scaling
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.part2 import BOOK, HANDOUT, LARGE, Size, write_words
from benchmarks.scaling_processes import MODELS
from common.command import ArgumentParser, positive_float, positive_int, run_command
from common.errors import CommandError
from common.experiment import FIGURES, add_allow_dirty, read_results, require_clean_tree, write_results
from common.paths import ROOT, short_path
from recurrence import kernel

NAME, PAGE = "benchmark_scaling", ROOT / "benchmarks" / "scaling.md"
TEMPLATE = PAGE.with_name("scaling.template.md")
LARGE_GB = 2.0
PROCESSES = (1, 2)
SCALINGS = [(name, kind, batch) for name in MODELS for kind, batch in (("weak", "whole"), ("strong", "half"))]
Values = dict[tuple[str, Any], float]  # the results, by what was measured and by variant


class Link(NamedTuple):
    latency: float  # seconds per message
    bandwidth: float  # bytes per second, in each direction


# Assumptions: vendors' published figures, quoted from memory, and what we expect to get of them; no GPU was measured
FLOPS = {"float32": 67e12, "bf16": 989e12}  # H100 SXM: FP32 outside the tensor cores; BF16 inside them, dense
UTILISATION = 0.5  # share of FLOPS that products as small as ours reach
LAUNCH = 5e-6  # seconds that an operation takes at least, launched one by one from Python
NVLINK = Link(5e-6, 450e9)  # H100, fourth generation: 900 GB/s for both directions
NETWORK = Link(10e-6, 100e9 / 8)  # 100 Gbit/s, one card per machine
GPUS, NODES = 8, 64
NUMBERS = [2**k for k in range(10)]  # of GPUs: 1 to 512


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--draw_only", action="store_true", help="write the page and the figure from the committed results"
    )
    parser.add_argument(
        "--repeats",
        type=positive_int,
        default=8,
        help="rounds for the large model; ten times as many for the small one",
    )
    parser.add_argument("--large_gb", type=positive_float, default=LARGE_GB, help="gigabytes of the large text")
    add_allow_dirty(parser)
    args = parser.parse_args()
    if not args.draw_only:
        require_clean_tree(args)
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(args.repeats, args.large_gb, Path(folder))
        write_results(NAME, rows)
    rows = read_results(NAME)
    PAGE.write_text(page(rows), encoding="utf-8")
    draw(values_of(rows, "value"))
    print(f"written from report/results/{NAME}.csv: {short_path(PAGE)}, report/figures/{NAME}.pdf")


# Measurements


def measure(repeats: int, large_gb: float, folder: Path) -> list[dict[str, Any]]:
    rows = [
        make_row("machine", "cores", os.cpu_count()),
        make_row("machine", "load before", os.getloadavg()[0]),
        make_row("machine", "LSTM compiled", int(not kernel.why_not())),
    ]
    rows += measure_texts(large_gb, folder)
    rows += [make_row(**measured) for measured in torchrun(2, folder, "steps", "--repeats", str(repeats))]
    return rows


def measure_texts(gigabytes: float, folder: Path) -> list[dict[str, Any]]:
    """Train on the book of tales and on a larger text, each with one process and with two."""
    large = folder / "large.txt"
    write_words(large, int(gigabytes * 1e9))
    rows = []
    for name, text in (("tales", BOOK), ("large", large)):
        for processes in PROCESSES:
            measured = torchrun(processes, folder, "text", "--text", str(text), "--folder", str(folder))
            for quantity, value in measured.items():
                variant, unit = quantity.rsplit(", ", 1)
                rows.append(make_row(f"{name}, {processes}", variant, value, unit))
    large.unlink()
    return [*rows, make_row("large", "size", gigabytes, "GB")]


def make_row(what: str, variant: Any, value: float, unit: str = "", fastest: float | str = "") -> dict[str, Any]:
    return {"what": what, "variant": variant, "value": value, "fastest": fastest, "unit": unit}


def torchrun(processes: int, folder: Path, what: str, *words: str) -> Any:
    """Return what so many processes of `benchmarks/scaling_processes.py` measure."""
    file = folder / "measured.json"
    arguments = ["--standalone", "--nproc_per_node", str(processes), "-m", "benchmarks.scaling_processes"]
    arguments += [what, str(file), *words]
    print(" ".join(["torchrun", *arguments]), flush=True)
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise CommandError(f"a measurement failed: {done.stderr}")
    return json.loads(file.read_text(encoding="utf-8"))


def values_of(rows: list[dict[str, Any]], column: str) -> Values:
    """Return a column of the results, "value" or "fastest"; where "fastest" is empty, the value."""
    return {(row["what"], row["variant"]): row[column] or row["value"] for row in rows}


# The model


def ring_all_reduce(p: int, num_bytes: float, link: Link) -> float:
    """Return the seconds in which p processes sum a message in a ring: 2 (p - 1) messages of a p-th of it, in turn.

    No other algorithm sends fewer bytes (Patarasuk and Yuan 2009).
    """
    return 2 * (p - 1) * (link.latency + num_bytes / p / link.bandwidth)


def hierarchical_all_reduce(nodes: int, gpus: int, num_bytes: float) -> float:
    """Return the seconds in which machines of `gpus` GPUs each sum a message: first within each machine, then across.

    Each GPU sends its share across, and all GPUs of a machine through one network card, which the whole message passes.
    """
    return ring_all_reduce(gpus, num_bytes, NVLINK) + ring_all_reduce(nodes, num_bytes, NETWORK)


def gpu_all_reduce(p: int, num_bytes: float) -> float:
    """Return the seconds in which p GPUs, in machines of GPUS, sum a message."""
    return hierarchical_all_reduce(max(1, p // GPUS), min(p, GPUS), num_bytes)


def fitted_link(seconds: dict[int, float]) -> Link:
    """Return the link that best explains, in relative error, how long two processes take to sum so many bytes each."""
    sizes, times = np.array(list(seconds), dtype=float), np.array(list(seconds.values()))
    coefficients = np.stack([2 / times, sizes / times], axis=1)
    latency, inverse_bandwidth = np.linalg.lstsq(coefficients, np.ones(len(times)), rcond=None)[0]
    return Link(max(float(latency), 0.0), 1 / float(inverse_bandwidth))


def measured_link(values: Values) -> Link:
    return fitted_link({size: seconds for (what, size), seconds in values.items() if what == "message"})


def measured_and_predicted(values: Values, busy: bool = False) -> list[tuple[float, float]]:
    """Return, for each of SCALINGS, the efficiency of two processes and what the model predicts for it.

    Args:
        busy: predict from the time that each takes while the other computes too, with nothing sent, instead of the time
            that one takes alone.
    """
    pairs, link = [], measured_link(values)
    for name, kind, batch in SCALINGS:
        one = values[name, "alone, whole batch"] / (2 if kind == "strong" else 1)
        compute = values[name, f"both, {batch} batch each, nothing sent" if busy else f"alone, {batch} batch"]
        predicted = one / (compute + ring_all_reduce(2, 4 * values[name, "parameters"], link))
        pairs.append((one / values[name, f"both, {batch} batch each"], predicted))
    return pairs


def largest_error(pairs: list[tuple[float, float]]) -> float:
    """Return how far the model is off, in points of efficiency."""
    return 100 * max(abs(measured - predicted) for measured, predicted in pairs)


class GPUStep(NamedTuple):
    """A training step of a model on a GPU.

    flop: floating-point operations per window.
    operations: launched in a step, whatever the batch.
    num_bytes: of the gradient, in float32.
    precision: a key of FLOPS.
    """

    flop: float
    operations: int
    num_bytes: int
    precision: str

    def seconds(self, windows: float) -> float:
        """Return the time of arithmetic or, with few windows, that of launching: the recurrence goes step by step."""
        return max(self.operations * LAUNCH, windows * self.seconds_per_window)

    @property
    def seconds_per_window(self) -> float:
        return self.flop / (UTILISATION * FLOPS[self.precision])

    def efficiency(self, windows: float, communication: float) -> float:
        """Return the efficiency of weak scaling with so many windows for each GPU."""
        return self.seconds(windows) / (self.seconds(windows) + communication)

    def least_windows(self, efficiency: float, communication: float) -> int:
        """Return the smallest batch for each GPU that reaches an efficiency below 1."""
        compute = communication * efficiency / (1 - efficiency)
        return 1 if compute <= self.seconds(1) else math.ceil(compute / self.seconds_per_window)


def gpu_steps(values: Values) -> dict[str, GPUStep]:
    """Return each model's step: for each character, two operations per weight forward and four backward."""
    steps = {}
    for name, size in MODELS.items():
        parameters = values[name, "parameters"]
        flop = 6 * size.T * (parameters - values[name, "embedding's parameters"])  # an embedding is looked up
        for precision in FLOPS if size == LARGE else ["float32"]:
            steps[f"{name}, {precision}"] = GPUStep(flop, values[name, "operations a step"], 4 * parameters, precision)
    return steps


def strong_speedup(step: GPUStep, windows: int, p: int) -> float:
    """Return how much faster p GPUs, in machines of GPUS, take a step on so many windows in all."""
    return step.seconds(windows) / (step.seconds(windows / p) + gpu_all_reduce(p, step.num_bytes))


def best_speedup(step: GPUStep, windows: int) -> tuple[float, int]:
    """Return the highest speed-up on so many windows in all, and the number of GPUs that reaches it."""
    return max((strong_speedup(step, windows, p), p) for p in NUMBERS if p <= windows)


def early_share(size: Size) -> float:
    """Return the share of the gradient that is complete before the backward pass through the first layer begins."""
    first = 4 * size.n * (size.d + size.n + 1)
    later = (size.layers - 1) * 4 * size.n * (2 * size.n + 1)
    output = size.K * (size.n + 1)
    embedding = size.K * size.d
    return (later + output) / (first + later + output + embedding)


# The page


def page(rows: list[dict[str, Any]]) -> str:
    medians, fastest = values_of(rows, "value"), values_of(rows, "fastest")
    fields = text_fields(medians) | step_fields(medians, fastest) | assumption_fields() | prediction_fields(medians)
    return TEMPLATE.read_text(encoding="utf-8").format(**fields)


def text_fields(values: Values) -> dict[str, Any]:
    return {
        "large_gb": values["large", "size"],
        "encoding_seconds": values["large, 1", "text opened or encoded"],
        "table_of_texts": table_of_texts(values),
        "window_bytes": HANDOUT.T + 1,
        "drawn_from_disk": values["large, 2", "windows drawn from the disk"],
        "drawn_in_training": HANDOUT.B * values["large, 2", "training steps"],
    }


def step_fields(medians: Values, fastest: Values) -> dict[str, Any]:
    link = measured_link(medians)
    return {
        "lstm": "compiled" if medians.get(("machine", "LSTM compiled")) else "as PyTorch's calls",
        "cores": medians["machine", "cores"],
        "load": medians["machine", "load before"],
        "table_of_steps": table_of_steps(medians, fastest),
        "latency_us": 1e6 * link.latency,
        "bandwidth_gb": link.bandwidth / 1e9,
        "error_medians": largest_error(measured_and_predicted(medians)),
        "error_fastest": largest_error(measured_and_predicted(fastest)),
        "error_busy": largest_error(measured_and_predicted(fastest, busy=True)),
    }


def assumption_fields() -> dict[str, Any]:
    return {
        "float32_tflops": FLOPS["float32"] / 1e12,
        "bf16_tflops": FLOPS["bf16"] / 1e12,
        "utilisation": 100 * UTILISATION,
        "launch_us": 1e6 * LAUNCH,
        "nvlink_gb": NVLINK.bandwidth / 1e9,
        "nvlink_latency_us": 1e6 * NVLINK.latency,
        "network_gbit": 8 * NETWORK.bandwidth / 1e9,
        "network_latency_us": 1e6 * NETWORK.latency,
        "gpus": GPUS,
        "nodes": NODES,
    }


def prediction_fields(values: Values) -> dict[str, Any]:
    steps = gpu_steps(values)
    small, large = steps["2 × 128, float32"], steps["1 × 1024, float32"]
    launching = large.operations * LAUNCH
    flops_per_byte = UTILISATION * FLOPS["float32"] * 8 / (6 * LARGE.T)  # divided by the bandwidth: windows
    speedup, best_gpus = best_speedup(large, LARGE.B)
    speedup_1024, best_gpus_1024 = best_speedup(large, 1024)
    return {
        "table_of_predictions": table_of_predictions(values),
        "large_mb": large.num_bytes / 1e6,
        "small_mb": small.num_bytes / 1e6,
        "large_operations": large.operations,
        "small_operations": small.operations,
        "launching_ms": 1e3 * launching,
        "launching_windows": launching / large.seconds_per_window,
        "across_ms": 1e3 * hierarchical_all_reduce(NODES, GPUS, large.num_bytes),
        "across_latency_ms": 1e3 * 2 * (NODES - 1) * NETWORK.latency,
        "network_windows": flops_per_byte / NETWORK.bandwidth,
        "nvlink_windows": flops_per_byte / NVLINK.bandwidth,
        "large_batch": LARGE.B,
        "speedup": speedup,
        "best_gpus": best_gpus,
        "speedup_1024": speedup_1024,
        "best_gpus_1024": best_gpus_1024,
        "large_early": 100 * early_share(LARGE),
        "small_early": 100 * early_share(HANDOUT),
    }


def table_of_texts(values: Values) -> str:
    columns = [(name, processes) for name in ("tales", "large") for processes in PROCESSES]
    texts = {"tales": "tales", "large": f"{values['large', 'size']:g} GB"}
    titles = [f"{texts[name]}, {processes} process{'es' if processes > 1 else ''}" for name, processes in columns]

    def cells(variant: str, format_spec: str) -> list[str]:
        found = [values.get((f"{name}, {processes}", variant)) for name, processes in columns]
        return ["" if value is None else format(value, format_spec) for value in found]

    lines = [
        ["peak memory, MB", *cells("peak", ".0f")],
        ["— private, MB", *cells("private", ".0f")],
        ["— mapped files, MB", *cells("mapped files", ".0f")],
        ["windows drawn a second", *cells("windows drawn again", ",.0f")],
        ["— from the disk", *cells("windows drawn from the disk", ",.0f")],
        ["training steps a second", *cells("training steps", ".1f")],
    ]
    return table(["", *titles], lines)


def table_of_steps(medians: Values, fastest: Values) -> str:
    titles = [f"{name}, {kind}" for name, kind, _ in SCALINGS]

    def times(variant: str) -> list[str]:
        return [milliseconds(medians[name, variant.format(batch=batch)]) for name, _, batch in SCALINGS]

    def efficiencies(pairs: list[tuple[float, float]]) -> tuple[list[str], list[str]]:
        return [f"{measured:.2f}" for measured, _ in pairs], [f"{predicted:.2f}" for _, predicted in pairs]

    measured, predicted = efficiencies(measured_and_predicted(medians))
    fastest_measured, fastest_predicted = efficiencies(measured_and_predicted(fastest))
    _, busy_predicted = efficiencies(measured_and_predicted(fastest, busy=True))
    lines = [
        ["windows, 1 process", *(str(MODELS[name].B) for name, _, _ in SCALINGS)],
        ["windows, each of 2", *(str(MODELS[name].B // (2 if kind == "strong" else 1)) for name, kind, _ in SCALINGS)],
        ["step, 1 process", *times("alone, whole batch")],
        ["step, 2 processes", *times("both, {batch} batch each")],
        ["— as much computed by one alone", *times("alone, {batch} batch")],
        ["— by each of both, nothing sent", *times("both, {batch} batch each, nothing sent")],
        ["— gradient summed, by itself", *times("gradients summed")],
        ["efficiency, measured", *(f"**{cell}**" for cell in measured)],
        ["efficiency, by the model", *predicted],
        ["fastest rounds: measured", *fastest_measured],
        ["fastest rounds: by the model", *fastest_predicted],
        ["— from what each of both computes", *busy_predicted],
    ]
    return table(["", *titles], lines)


def table_of_predictions(values: Values) -> str:
    lines = []
    for name, step in gpu_steps(values).items():
        model, precision = name.split(", ")
        windows = MODELS[model].B
        for place, communication in {
            f"{GPUS} GPUs": hierarchical_all_reduce(1, GPUS, step.num_bytes),
            f"{NODES} machines of 1 GPU": hierarchical_all_reduce(NODES, 1, step.num_bytes),
            f"{NODES} machines of {GPUS} GPUs": hierarchical_all_reduce(NODES, GPUS, step.num_bytes),
        }.items():
            times = [milliseconds(step.seconds(windows)), milliseconds(communication)]
            efficiency = f"**{step.efficiency(windows, communication):.2f}**"
            least = [f"{step.least_windows(target, communication):,}" for target in (0.5, 0.9)]
            lines.append([name, place, str(windows), *times, efficiency, *least])
        if precision == "float32":  # and on cores like those that were measured
            compute = values[model, "alone, whole batch"]
            communication = ring_all_reduce(NODES, step.num_bytes, NETWORK)
            times = [milliseconds(compute), milliseconds(communication)]
            efficiency = f"**{compute / (compute + communication):.2f}**"
            lines.append([name, f"{NODES} machines of 1 core, as measured", str(windows), *times, efficiency, "", ""])
    titles = ["model", "on", "windows each", "compute", "sum", "efficiency", "windows each for 0.5", "for 0.9"]
    return table(titles, lines)


def table(titles: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *lines])


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{1000 * seconds:.0f} ms"


# The figure


def as_formula(name: str) -> str:
    """Return "2 × 128, float32" with the product as a formula."""
    return re.sub(r"(\d+) × (\d+)", r"$\1 \\times \2$", name)


def draw(values: Values) -> None:
    from common.figure import LINE_STYLES, MARKERS, new_figure, save_figure  # matplotlib takes a second to import

    figure, (weak, strong) = new_figure(1, 2)
    steps = gpu_steps(values)
    for (name, step), style, marker in zip(steps.items(), LINE_STYLES, MARKERS):
        windows = MODELS[name.split(", ")[0]].B
        efficiencies = [step.efficiency(windows, gpu_all_reduce(p, step.num_bytes)) for p in NUMBERS]
        weak.plot(NUMBERS, efficiencies, linestyle=style, marker=marker, label=f"{as_formula(name)}, {windows} each")
    for windows, style, marker in zip((128, 1024, 8192), LINE_STYLES, MARKERS):
        numbers = [p for p in NUMBERS if p <= windows]
        speedups = [strong_speedup(steps["1 × 1024, float32"], windows, p) for p in numbers]
        strong.plot(numbers, speedups, linestyle=style, marker=marker, label=f"{windows:,} windows in all")
    strong.plot(NUMBERS, NUMBERS, color="0.6", linewidth=0.8)
    weak.set(xlabel=f"GPUs, {GPUS} a machine", ylabel="efficiency", ylim=(0, 1.05))
    strong.set(xlabel=f"GPUs, {GPUS} a machine", ylabel=as_formula("speed-up, 1 × 1024"), yscale="log", ylim=(0.5, 600))
    for axes in (weak, strong):
        axes.set_xscale("log", base=2)
        axes.axvline(GPUS, color="0.6", linewidth=0.8, linestyle=":")
        axes.legend()
    save_figure(figure, FIGURES / NAME)


if __name__ == "__main__":
    run_command(main)
