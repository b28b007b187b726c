"""All parts on a GPU, in eight minutes: whether it computes what the CPU computes, and how fast it is.

    python3 -m venv .venv
    .venv/bin/python -m pip install -e ".[molecules]" triton torchvision
    .venv/bin/python -m benchmarks.gpu

* Agreement. A few steps of every training script that takes a device, on GPU and CPU: the losses agree to 1e-4 (of a
  loss above 1, to that part of it). A text model that was stopped and resumed has the weights of one that was not, and
  writes the same text on both. The networks of part 4 give the CPU's logits, in float32 and bfloat16. For these
  comparisons the libraries multiply float32 as such, not as TF32.
* Recurrences, forward and backward: ours as a user gets it ("auto") and in PyTorch's calls ("bptt"), a plain loop that
  autograd differentiates, and torch.nn (cuDNN), in float32, bfloat16 and TF32. The library has two ways of bfloat16:
  bfloat16 weights, and autocast, in which cuDNN computes in float16; ratios are to the faster one. All states and
  gradients are compared with float64 before they are timed.
* The floor under these times: operations / peak, or bytes / bandwidth if that is more. The peak is that of a large
  product in the same precision, the bandwidth that of a large copy, both measured here; the bytes are those of inputs,
  states, weights and gradients, each moved once. That a step must wait for the one before it does not count.
* An epoch of GCN and GAT on Cora, or on a random graph of its size where the data folder does not hold it, beside
  PyTorch Geometric's layers.
* Training steps of part 4's networks as in `part4/train.py`, beside torchvision's networks in the same loop. There
  float32 is PyTorch's default, which takes convolutions in TF32.

Variants take turns. A sample is as many calls as take 5 ms, between two CUDA events; medians are reported. Everything
is measured in a process of its own, which is replaced after a failure. A failure becomes a row and a line on stderr,
and the exit code is 1; the other measurements go on. What the time does not suffice for is left out, and named.

Writes report/results/benchmark_gpu.csv; on a CPU or with --quick, which are for trying the command, runs/benchmark_gpu.
"""

import copy
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as OutOfTime  # before Python 3.11 not the built-in one
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.loops import FROM_ZEROS
from benchmarks.part1 import SIZES, Size, forward_backward
from benchmarks.part3 import Bound, epoch, networks_on
from benchmarks.timing import WARM_UP_ROUNDS, report
from common.command import ArgumentParser, positive_float, run_command
from common.data import data_path
from common.errors import CommandError
from common.experiment import add_allow_dirty, require_clean_tree, write_results
from common.paths import ROOT, short_path
from common.run_folder import load_checkpoint, read_metrics
from part3.citation import LabelledGraph, load_graph
from part3.gat import GAT
from part3.gcn import GCN
from part3.graph import SparseMatrix, add_self_loops, adjacency, normalise
from part4.networks import ARCHITECTURES, get_model, products_in
from recurrence.choice import RECURRENCES, choose_recurrence
from recurrence.inputs import input_part
from recurrence.lstm import from_torch_order, lstm_sequence
from recurrence.rnn import rnn_sequence

NAME = "benchmark_gpu"
SCRIPTS = (  # with data that are built in; Cora instead of the karate club where it is there
    "part1/train.py --train_steps 10 --model_type RNN",
    "part1/train.py --train_steps 10 --model_type LSTM",
    "part2/train.py --train_steps 10 --txt_file {text}",
    "part3/train.py --epochs 10 --dropout 0 --dataset {graph} --model gcn",
    "part3/train.py --epochs 10 --dropout 0 --dataset {graph} --model gat",
    "part3/qm9/train.py --epochs 10 --model mlp",
    "part3/qm9/train.py --epochs 10 --model gnn",
    # at the default learning rate a difference of 1e-7 is one of 1e-2 after four steps
    "part4/train.py --epochs 1 --lr 1e-4 --dataset synthetic --num_train 256 --batch_size 64 --model_name resnet18",
)
BOOK, CHARACTERS = ROOT / "part2" / "assets" / "grimm.txt", 20_000  # the text is the book's beginning
LOSS, WEIGHTS = 1e-4, 1e-3  # tolerances; a dropout mask of another step changes weights by 1e-2
LOGITS = {"float32": 1e-4, "bf16": 5e-2}  # tolerances of ||found - expected|| / ||expected||
STATES = {"float32": 1e-5, "bf16": 5e-2, "TF32": 1e-2}
QUICK_SIZES = (Size(8, 5, 3, 16), Size(4, 6, 7, 16, layers=2))
UNIT_SECONDS, SCRIPT_SECONDS = 120, 100  # after which a measurement, or a script, counts as hanging
SAMPLE_SECONDS, MOST_CALLS, LEAST_ROUNDS = 0.005, 50, 5
Row = dict[str, str]


class Setup(NamedTuple):
    """What all measurements share; `seconds` is for how long the variants of one take turns, 0 for a single time."""

    device: str
    seconds: float
    quick: bool


class Unit(NamedTuple):
    """A measurement: about how many seconds it takes on a GPU, and a call that returns its rows."""

    name: str
    seconds: float
    call: Callable[[], list[Row]]


def main() -> None:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--minutes", type=positive_float, default=8.0, help="time for all measurements")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try this without a GPU")
    add("--quick", action="store_true", help="to try this: half of the scripts, small sizes, timed once")
    add_allow_dirty(parser)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise CommandError("there is no GPU that PyTorch can use; to try this without one: --device cpu --quick")
    for_trying = args.device == "cpu" or args.quick
    if not for_trying:
        require_clean_tree(args)
    os.environ["PYTHONUNBUFFERED"] = "1"  # the processes that are started here print as they go
    setup = Setup(args.device, 0 if args.quick else args.minutes / 10, args.quick)
    save = partial(save_rows, setup, ROOT / "runs" / NAME if for_trying else None)

    units = agreement(setup) + recurrences(setup) + graphs(setup) + images(setup)  # the most important first
    rows = measure(units, args.minutes, save)
    if not rows:
        raise CommandError(f"{args.minutes:g} minutes are too few for any measurement")
    print(f"written to {short_path(save(rows))}")
    if failed := sum(map(has_failed, rows)):
        raise CommandError(f"{failed} of {len(rows)} rows are failures or disagreements", exit_code=1)


def save_rows(setup: Setup, folder: Path | None, rows: list[Row]) -> Path:
    packages = [package for package in ("triton", "torch_geometric", "torchvision") if find_spec(package)]
    libraries = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    libraries |= {package: version(package) for package in packages}
    return write_results(NAME, rows, folder, device=setup.device, libraries=libraries)


# Running the measurements


def measure(units: list[Unit], minutes: float, save: Callable[[list[Row]], Any]) -> list[Row]:
    """Run the units for which there is time, save the rows after each, and return them."""
    began, rows, left_out, worker = time.monotonic(), [], [], Worker()
    try:
        for number, unit in enumerate(units, start=1):
            passed = time.monotonic() - began
            if 60 * minutes - passed < unit.seconds:
                left_out.append(unit.name)
                continue
            print(f"[{passed:.0f} s, {number} of {len(units)}] {unit.name}", flush=True)
            found = worker.run(unit, min(60 * minutes - passed, UNIT_SECONDS))
            for row in filter(has_failed, found):
                print(f"{row['benchmark']}: {row['variant']}", file=sys.stderr, flush=True)
            rows += found
            save(rows)
    finally:
        worker.end()
    if left_out:
        print(f"left out, {minutes:g} minutes being too few: {'; '.join(left_out)}")
    return rows


class Worker:
    """The process in which the units run. After a failure it is replaced: a CUDA error breaks all that follows."""

    def __init__(self) -> None:
        self.pool: ProcessPoolExecutor | None = None

    def run(self, unit: Unit, seconds: float) -> list[Row]:
        self.pool = self.pool or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            rows = self.pool.submit(attempt, unit).result(seconds)
        except OutOfTime:
            rows = [failure(unit.name, f"not done after {seconds:.0f} s")]
        except BrokenProcessPool:
            rows = [failure(unit.name, "the process died")]
        if any(map(has_failed, rows)):
            self.end()
        return rows

    def end(self) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        if self.pool:
            self.pool.shutdown()
        self.pool = None


def attempt(unit: Unit) -> list[Row]:
    try:
        return unit.call()
    except Exception as error:  # whatever it is, the other units go on
        return [failure(unit.name, one_line(error))]


def one_line(error: Exception) -> str:
    """Return an error's type, the first line of its message, and which line of the repository was running."""
    ours = [
        (Path(frame.filename).relative_to(ROOT), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT) and "site-packages" not in frame.filename
    ]
    where = f" ({ours[-1][0]}, line {ours[-1][1]})" if ours else ""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}{where}"


def failure(benchmark: str, reason: str, value: str = "") -> Row:
    return {"benchmark": benchmark, "variant": f"failed: {reason}", "value": value, "unit": "", "ratio": ""}


def has_failed(row: Row) -> bool:
    return row["variant"].startswith("failed: ")


def checked(benchmark: str, what: str, difference: float, tolerance: float) -> Row:
    """Print a difference and return its row: a failure unless it is within the tolerance."""
    print(f"    {what}: {difference:.2g}")
    if not difference <= tolerance:  # NaN is not
        return failure(benchmark, f"{what}: {difference:.2g}, more than {tolerance:g}", f"{difference:.5g}")
    return {"benchmark": benchmark, "variant": what, "value": f"{difference:.5g}", "unit": "", "ratio": ""}


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def medians(variants: dict[str, Callable[[], Any]], setup: Setup) -> dict[str, float]:
    """Return each variant's median time of a call in milliseconds."""
    calls = dict.fromkeys(variants, 1)
    for name, call in variants.items():
        for _ in range(1 if setup.quick else WARM_UP_ROUNDS):
            call()
        if not setup.quick:
            calls[name] = min(MOST_CALLS, 1 + int(1000 * SAMPLE_SECONDS / sample(call, 1, setup.device)))
    samples: dict[str, list[float]] = defaultdict(list)
    rounds, ended = 1 if setup.quick else LEAST_ROUNDS, time.monotonic() + setup.seconds
    while rounds > 0 or time.monotonic() < ended:
        rounds -= 1
        for name, call in variants.items():
            samples[name].append(sample(call, calls[name], setup.device))
    return {name: median(values) for name, values in samples.items()}


def sample(call: Callable[[], Any], calls: int, device: str) -> float:
    """Return the milliseconds that a call takes: the mean of so many in a row."""
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return 1000 * (time.perf_counter() - started) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def set_tf32(matmul: bool, cudnn: bool) -> None:
    """Choose whether products in float32 are TF32: cuBLAS's, which our kernels follow, and cuDNN's."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn  # in every version


# Agreement


def agreement(setup: Setup) -> list[Unit]:
    graph, units = "cora" if has_cora() else "karate", []
    for command in SCRIPTS[1::2] if setup.quick else SCRIPTS:
        name = command.format(text="tales.txt", graph=graph)
        missing = [package for package in ("torch_geometric", "rdkit") if "qm9" in command and not find_spec(package)]
        if missing:
            print(f"left out: {name}, which needs {' and '.join(missing)}")
        else:
            units.append(Unit(name, 30, partial(same_losses, name, command, graph, setup)))
    units.append(Unit("part2/train.py resumed, part2/generate.py", 60, partial(resumed_text, setup)))
    return units + [Unit(f"{name}, logits", 10, partial(same_logits, name, setup)) for name in ARCHITECTURES]


def same_losses(benchmark: str, command: str, graph: str, setup: Setup) -> list[Row]:
    """Compare the losses of a script's steps on the device and on the CPU."""
    with TemporaryDirectory() as folder:
        words = [*command.format(text=write_text(folder), graph=graph).split(), "--print_every", "1"]
        runs = {Path(folder, "expected"): "cpu", Path(folder, "found"): setup.device}
        run_together(*([*words, "--device", device, "--run_dir", str(run)] for run, device in runs.items()))
        expected, found = (dict(read_metrics(run / "metrics.csv")["loss"]) for run in runs)
    difference = max(abs(found[step] - loss) / max(1.0, abs(loss)) for step, loss in expected.items())
    return [checked(benchmark, f"largest difference of {len(expected)} losses", difference, LOSS)]


def resumed_text(setup: Setup) -> list[Row]:
    """Compare a text model, trained with dropout, with one that was resumed halfway; let it write on both devices."""
    with TemporaryDirectory() as folder:
        words = ["part2/train.py", "--txt_file", write_text(folder), "--device", setup.device]
        words += "--dropout 0.2 --learning_rate 0.01 --eval_every 30".split()
        whole, parts = ([*words, "--run_dir", str(Path(folder, name))] for name in ("whole", "parts"))
        run_together([*whole, "--train_steps", "60"], [*parts, "--train_steps", "30"])
        run_together([*parts, "--train_steps", "60", "--resume"])
        expected, found = (load_checkpoint(Path(folder, name, "checkpoint.pt"))["model"] for name in ("whole", "parts"))
        words = [*"part2/generate.py --prompt The --temperature 0 --checkpoint".split(), str(Path(folder, "whole"))]
        texts = run_together(*([*words, "--device", device] for device in ("cpu", setup.device)))
    difference = max((found[name] - weight).abs().max().item() for name, weight in expected.items())
    print(f"    {texts[1][:80]!r}")
    return [
        checked("part2/train.py, resumed", "largest difference of the weights", difference, WEIGHTS),
        checked("part2/generate.py", "different characters", sum(a != b for a, b in zip(*texts)), 0),
    ]


def write_text(folder: str) -> str:
    path = Path(folder, "tales.txt")
    path.write_text(BOOK.read_text(encoding="utf-8")[:CHARACTERS], encoding="utf-8")
    return str(path)


def run_together(*commands: list[str]) -> list[str]:
    """Run scripts at the same time, without TF32, and return what each has printed.

    Raises:
        RuntimeError: one has failed.
    """
    start = partial(subprocess.Popen, cwd=ROOT, env={**os.environ, "NVIDIA_TF32_OVERRIDE": "0"}, text=True)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [start([sys.executable, *command], **pipes) for command in commands]
    try:
        printed = [child.communicate(timeout=SCRIPT_SECONDS) for child in children]
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{commands[0][0]} was not done after {SCRIPT_SECONDS} s") from None
    finally:
        for child in children:
            child.kill()
    for command, child, (_, errors) in zip(commands, children, printed):
        if child.returncode:
            reason = (errors.strip() or "no message").splitlines()[-1]
            raise RuntimeError(f"{command[0]} ended with exit code {child.returncode}: {reason}")
    return [output for output, _ in printed]


def same_logits(name: str, setup: Setup) -> list[Row]:
    """Compare a network's logits of eight images, in float32 and bfloat16, with the CPU's in float32."""
    set_tf32(matmul=False, cudnn=False)
    torch.manual_seed(0)
    model, images, rows = get_model(name).eval(), torch.randn(8, 3, 32, 32), []
    with torch.no_grad():
        expected = model(images)
        model, images = model.to(setup.device), images.to(setup.device)
        for precision, tolerance in LOGITS.items():
            with torch.autocast(setup.device, torch.bfloat16, enabled=precision == "bf16"):
                error = relative_error(model(images).float().cpu(), expected)
            rows.append(checked(name, f"relative error of the logits, {precision}", error, tolerance))
    return rows


# Recurrences


def recurrences(setup: Setup) -> list[Unit]:
    precisions = ("float32", "bf16") if setup.device == "cpu" else ("float32", "bf16", "TF32")
    units = [Unit("auto's way, peaks", 15, partial(way_and_peaks, precisions, setup))]
    for precision in precisions:
        for name in ("LSTM", "RNN"):
            for size in QUICK_SIZES if setup.quick else SIZES:
                benchmark = f"{name} forward + backward, {size}, {precision}"
                units.append(Unit(benchmark, 15, partial(recurrence_rows, benchmark, name, size, precision, setup)))
    return units


def recurrence_rows(benchmark: str, name: str, size: Size, precision: str, setup: Setup) -> list[Row]:
    set_tf32(matmul=precision == "TF32", cudnn=precision == "TF32")
    exact, variants = recurrence_variants(name, size, precision, setup)
    expected, failures, steps = states_and_gradients(exact), [], {}
    for variant, (states, parameters, *_) in variants.items():
        try:
            error = max(map(relative_error, states_and_gradients(variants[variant]), expected))
            row = checked(benchmark, f"{variant}, relative error of states and gradients", error, STATES[precision])
        except Exception as exception:  # the other variants may work
            row = failure(benchmark, f"{variant}: {one_line(exception)}")
        if has_failed(row):
            failures.append(row)
        else:
            steps[variant] = forward_backward(states, parameters)
    milliseconds = medians(steps, setup)
    reference = min((key for key in milliseconds if key.startswith("torch.nn")), key=milliseconds.__getitem__)
    num_gates, bytes_a_number = 1 if name == "RNN" else 4, 2 if precision == "bf16" else 4
    milliseconds["floor"] = floor(num_gates, size, bytes_a_number, *peaks(precision, setup))
    return failures + report(benchmark, "ms", milliseconds, reference)


class Variant(NamedTuple):
    """A recurrence: its last layer's (T, B, n) states, its parameters, and W_x, W_h and b of each layer among them."""

    states: Callable[[], Tensor]
    parameters: list[nn.Parameter]
    compared: list[nn.Parameter]
    order: Callable[[Tensor], Tensor] = Tensor.clone  # from the order of the gates in these to ours


def recurrence_variants(name: str, size: Size, precision: str, setup: Setup) -> tuple[Variant, dict[str, Variant]]:
    """Return a recurrence in float64, and the variants by name, all with the same weights."""
    torch.manual_seed(0)
    library: Any = {"RNN": nn.RNN, "LSTM": nn.LSTM}[name](size.d, size.n, size.layers)
    for layer in library.all_weights:
        nn.init.zeros_(layer[3])  # a second bias, which we do not have
    library, x = library.to(setup.device), torch.randn(size.T, size.B, size.d).to(setup.device)
    order = Tensor.clone if name == "RNN" else from_torch_order
    weights = [order(weight.detach()) for layer in library.all_weights for weight in layer[:3]]

    def of_layers(layer: Callable[..., Tensor], dtype: torch.dtype) -> Variant:
        parameters = [nn.Parameter(weight.to(torch.promote_types(dtype, torch.float32))) for weight in weights]

        def states() -> Tensor:
            h = x.to(dtype)
            for k in range(0, len(parameters), 3):
                h = layer(h, *(parameter.to(dtype) for parameter in parameters[k : k + 3]))
            return h

        return Variant(states, parameters, parameters)

    def ours(way: str, h: Tensor, W_x: Tensor, W_h: Tensor, b: Tensor) -> Tensor:
        return rnn_sequence(h, None, W_x, W_h, b, way) if name == "RNN" else lstm_sequence(h, None, W_x, W_h, b, way)[0]

    def plain_loop(h: Tensor, W_x: Tensor, W_h: Tensor, b: Tensor) -> Tensor:
        return FROM_ZEROS[name](input_part(h, W_x, b), W_h)

    def torch_nn(dtype: torch.dtype, autocast: bool = False) -> Variant:
        module, inputs = copy.deepcopy(library).to(dtype), x.to(dtype)

        def states() -> Tensor:
            with torch.autocast(setup.device, torch.bfloat16, enabled=autocast):
                return module(inputs)[0]

        compared = [weight for layer in module.all_weights for weight in layer[:3]]
        return Variant(states, list(module.parameters()), compared, order)

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    variants = {f"ours, {way}": of_layers(partial(ours, way), dtype) for way in ("auto", "bptt")}
    variants["plain loop"] = of_layers(plain_loop, dtype)
    variants["torch.nn"] = torch_nn(dtype)
    if precision == "bf16" and setup.device == "cuda":
        variants["torch.nn, autocast"] = torch_nn(torch.float32, autocast=True)
    return of_layers(plain_loop, torch.float64), variants


def states_and_gradients(variant: Variant) -> list[Tensor]:
    """Return all states and the gradients of their sum, in float64 and in the order of our gates."""
    for parameter in variant.parameters:
        parameter.grad = None
    states = variant.states()
    states.sum().backward()
    gradients = [variant.order(parameter.grad) for parameter in variant.compared if parameter.grad is not None]
    return [tensor.detach().double() for tensor in (states, *gradients)]


@cache
def peaks(precision: str, setup: Setup) -> tuple[float, float]:
    """Return operations a second of a product in this precision, and bytes a second, read and written, of a copy."""
    n, num_bytes = (256, 2**22) if setup.quick else (8192, 2**30)
    set_tf32(matmul=precision == "TF32", cudnn=precision == "TF32")
    a, b = torch.randn(2, n, n, device=setup.device).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    source, target = torch.ones(2, num_bytes, dtype=torch.uint8, device=setup.device)
    milliseconds = medians({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, setup)
    return 2000 * n**3 / milliseconds["product"], 2000 * num_bytes / milliseconds["copy"]


def way_and_peaks(precisions: tuple[str, ...], setup: Setup) -> list[Row]:
    way = choose_recurrence("auto", RECURRENCES, torch.device(setup.device))["name"]
    print(f"    ours, auto: {way}")
    row = {"benchmark": "ours, auto", "variant": way, "value": "", "unit": "", "ratio": ""}
    if setup.device == "cuda" and way != "triton":
        row = failure("ours, auto", f"on this GPU it is {way}, not triton")
    rates = {precision: peaks(precision, setup)[0] / 1e12 for precision in precisions}
    rows = [row, *report("a large product", "TFLOP/s", rates, "float32")]
    return rows + report("a large copy", "GB/s", {"copy": peaks("float32", setup)[1] / 1e9}, "copy")


def floor(num_gates: int, size: Size, bytes_a_number: int, peak: float, bandwidth: float) -> float:
    """Return the milliseconds that forward and backward pass take at least."""
    operations, numbers = 0, size.T * size.B * (size.d + size.n)  # inputs and states
    for layer in range(size.layers):
        d, m = size.n if layer else size.d, num_gates * size.n
        with_x = 3 if layer else 2  # products with x or W_x: z, d_W_x and, but for the first layer, d_x
        operations += 2 * size.B * m * (with_x * size.T * d + 3 * (size.T - 1) * size.n)  # the others: a, d_h, d_W_h
        numbers += 2 * m * (d + size.n + 1)  # weights and their gradients
    return 1000 * max(operations / peak, numbers * bytes_a_number / bandwidth)


# Graphs and images


def graphs(setup: Setup) -> list[Unit]:
    if not find_spec("torch_geometric"):
        print("left out: PyTorch Geometric's layers, since it is not installed")
    hidden = {"GCN": 16, "GAT": 8}
    return [Unit(f"{model}, an epoch", 10, partial(graph_rows, model, n, setup)) for model, n in hidden.items()]


def graph_rows(model: str, hidden: int, setup: Setup) -> list[Row]:
    graph, device = load_graph("cora") if has_cora() else random_graph(), torch.device(setup.device)
    tensors = ("A", "features", "labels", "train", "validation", "test")
    graph = replace(graph, **{name: getattr(graph, name).to(device) for name in tensors})
    if find_spec("torch_geometric"):
        networks = networks_on(graph, model, hidden)
    else:
        ours = (GCN if model == "GCN" else GAT)([graph.features.shape[1], hidden, graph.num_classes])
        networks = {"ours": Bound(ours, normalise(add_self_loops(graph.A)), graph.features)}
    steps = {}
    for name, network in networks.items():
        step = epoch(network.to(device), graph)
        try:
            step()
        except Exception as error:  # PyTorch's sparse products are not there for every device
            if name == "ours":
                raise
            print(f"    left out: {name}: {one_line(error)}")
        else:
            steps[name] = step
    milliseconds = medians(steps, setup)
    libraries = [name for name in milliseconds if name.startswith("PyTorch Geometric")] or ["ours"]
    return report(f"{model}, epoch on {graph.name}", "ms", milliseconds, min(libraries, key=milliseconds.__getitem__))


def has_cora() -> bool:
    return data_path("planetoid/ind.cora.graph", None).is_file()


def random_graph() -> LabelledGraph:
    """Return a graph with as many nodes, edges, words and classes as Cora."""
    N, E, d, K, num_words = 2708, 5278, 1433, 7, 49_216
    generator = torch.Generator().manual_seed(0)
    edges, nodes = (torch.randint(N, size, generator=generator) for size in ((2, E), (num_words,)))
    words, shares = torch.randint(d, (num_words,), generator=generator), torch.full((num_words,), N / num_words)
    labels, parts = torch.randint(K, (N,), generator=generator), torch.arange(N).split((140, 500, 1000, N - 1640))
    features = SparseMatrix(nodes, words, shares, (N, d))
    return LabelledGraph("a random graph", adjacency(edges, N), features, labels, K, *parts[:3])


def images(setup: Setup) -> list[Unit]:
    if not find_spec("torchvision"):
        print("left out: torchvision's networks, since it is not installed")
    return [Unit(f"{name}, a training step", 15, partial(image_rows, name, setup)) for name in ARCHITECTURES]


def image_rows(name: str, setup: Setup) -> list[Row]:
    set_tf32(matmul=False, cudnn=True)  # PyTorch's defaults
    builders, batch = {"ours": get_model}, 4 if setup.quick else 128
    if find_spec("torchvision"):
        builders["torchvision"] = partial(import_module("torchvision").models.get_model, num_classes=10)
    steps = {
        f"{library}, {precision}": image_step(build, name, batch, precision, setup.device)
        for precision in ("float32", "bf16")
        for library, build in builders.items()
    }
    milliseconds, benchmark = medians(steps, setup), f"{name}, step of {batch} images"
    if len(builders) == 1:
        return report(benchmark, "ms", milliseconds, "ours, float32")
    rows = []
    for precision in ("float32", "bf16"):
        values = {library: milliseconds[f"{library}, {precision}"] for library in builders}
        rows += report(f"{benchmark}, {precision}", "ms", values, "torchvision")
    return rows


def image_step(build: Callable[..., Any], name: str, batch: int, precision: str, device: str) -> Callable[[], None]:
    """Return a function that takes a step as `part4/train.py` does."""
    torch.manual_seed(0)
    with torch.device(device):
        model, pixels, labels = build(name), torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    model, pixels = model.to(memory_format=torch.channels_last), pixels.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def step() -> None:
        with products_in(precision, pixels.device):
            logits = model(pixels)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    run_command(main)
