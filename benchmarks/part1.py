"""Speed and memory of part 1 beside what a user would take instead; every ratio comes from one run on one machine.

    python -m benchmarks.part1

* Forward and backward pass of a recurrence, from the input to every gradient: ours, torch.nn's, and plain loops that
  autograd differentiates. Medians over interleaved repeats, each size in a process of its own, as a training run is.
  torch.nn's in bfloat16 is the faster one of its two ways: the module in bfloat16, and autocast.
  "compiled" is left out where there is no C compiler.
* The peak memory of the same, each variant in a process of its own.
* Seeds side by side: the recurrences of three models as one batched product per step, and one model after the other.
* Palindromes drawn per second: whole batches, and digit by digit as the handout's data set draws them.
* Training steps per second of `part1/train.py`, end to end, evaluation and logging included; the same with torch.nn's
  recurrence in place of the model's; and what the parts of a step take.

Prints a table and writes report/results/benchmark_part1.csv.
"""

import copy
import json
import math
import runpy
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.loops import FROM_ZEROS
from benchmarks.timing import in_own_process, interleaved_medians, report
from common.command import ArgumentParser, positive_int, run_command
from common.experiment import add_allow_dirty, require_clean_tree, write_results
from common.machine import num_cores
from common.paths import ROOT, short_path
from common.run_folder import RunFolder
from part1 import lstm, vanilla_rnn
from part1.dataset import HeldOutSequences, as_vectors, draw_palindromes
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from recurrence import kernel
from recurrence.inputs import input_part
from recurrence.lstm import from_torch_order, lstm_sequence
from recurrence.rnn import rnn_sequence


class Size(NamedTuple):
    """The sizes of a recurrence: B sequences of T inputs of d numbers each; n hidden units in each layer."""

    B: int
    T: int
    d: int
    n: int
    layers: int = 1

    def __str__(self) -> str:
        text = f"B={self.B} T={self.T} d={self.d} n={self.n}"
        return f"{text} {self.layers} layers" if self.layers > 1 else text


SIZES = (
    Size(128, 10, 1, 128),
    Size(128, 60, 10, 128),
    Size(64, 30, 87, 128, layers=2),
    Size(32, 64, 64, 512),
    Size(128, 30, 256, 1024),
)
MEMORY_SIZES = (Size(128, 1000, 10, 128), Size(128, 60, 256, 1024))  # long: the states outweigh the weights
TRAINING_RUNS = 7


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--repeats", type=positive_int, default=60, help="repeats of each small size; wide sizes take a quarter"
    )
    parser.add_argument("--train_steps", type=positive_int, default=500, help="steps of each end-to-end training")
    parser.add_argument("--threads", type=positive_int, default=min(2, num_cores()), help="PyTorch's threads")
    add_allow_dirty(parser)
    args = parser.parse_args()
    require_clean_tree(args)
    torch.set_num_threads(args.threads)
    rows = recurrences(args.repeats, args.threads) + memory() + side_by_side(args.repeats) + drawing(args.repeats)
    rows += training(args.train_steps, args.threads)
    print(f"written to {short_path(write_results('benchmark_part1', rows))}")


def recurrences(repeats: int, threads: int) -> list[dict]:
    rows = []
    for size in SIZES:
        size_repeats = repeats if size.n < 500 else max(3, repeats // 4)
        for name in VARIANTS:
            milliseconds = in_own_process(times, name, size, size_repeats, threads)
            rows += report(f"{name} forward + backward, {size}", "ms", milliseconds, f"torch.nn.{name}")
    return rows


def times(name: str, size: Size, repeats: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    return interleaved_medians(faster_bfloat16(VARIANTS[name](size)), repeats)


def faster_bfloat16(variants: dict[str, Callable[[], None]]) -> dict[str, Callable[[], None]]:
    """Return the variants with the faster one of the library's two ways of computing in bfloat16, under one name.

    Where PyTorch cannot compute in one of the ways on this processor, the other one is taken.
    """
    seconds: dict[str, float] = {}
    for name in [name for name in variants if name.endswith((", module in bf16", ", autocast to bf16"))]:
        call = variants.pop(name)
        try:
            for _ in range(2):
                started = time.perf_counter()
                call()
                seconds[name] = time.perf_counter() - started
                if seconds[name] > 5:
                    break
        except RuntimeError:
            continue
        if seconds[name] == min(seconds.values()):
            variants[f"{name.partition(', ')[0]}, bf16"] = call
    return variants


def lstm_variants(size: Size) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    x, library = torch.randn(size.T, size.B, size.d), nn.LSTM(size.d, size.n, size.layers)
    zeros = torch.zeros(size.B, size.n)
    layers = []  # W_x, W_h and b of each
    gates = []  # the same as lists of four, a parameter for each gate
    for W_x, W_h, b, _ in library.all_weights:
        layer = [nn.Parameter(from_torch_order(stacked.detach())) for stacked in (W_x, W_h, b)]
        layers.append(layer)
        gates.append([[nn.Parameter(gate.clone()) for gate in stacked.detach().chunk(4)] for stacked in layer])
    parameters = [parameter for layer in layers for parameter in layer]
    gate_parameters = [parameter for layer in gates for four in layer for parameter in four]

    def ours(recurrence: str, dtype: torch.dtype) -> Callable[[], None]:
        def last_state() -> Tensor:
            h = x.to(dtype)
            for W_x, W_h, b in layers:
                h, _ = lstm_sequence(h, None, W_x.to(dtype), W_h.to(dtype), b.to(dtype), recurrence)
            return h[-1].float()

        return forward_backward(last_state, parameters)

    def plain_loop() -> Tensor:
        h = x
        for W_x, W_h, b in layers:
            h = FROM_ZEROS["LSTM"](input_part(h, W_x, b), W_h)
        return h[-1]

    def eight_products() -> Tensor:
        """Most published solutions are written like this: two products for each gate."""
        sequence = list(x)
        for W_x, W_h, b in gates:
            W_gx, W_ix, W_fx, W_ox = W_x
            W_gh, W_ih, W_fh, W_oh = W_h
            b_g, b_i, b_f, b_o = b
            h = c = zeros
            for t, x_t in enumerate(sequence):
                g = torch.tanh(x_t @ W_gx.t() + h @ W_gh.t() + b_g)
                i = torch.sigmoid(x_t @ W_ix.t() + h @ W_ih.t() + b_i)
                f = torch.sigmoid(x_t @ W_fx.t() + h @ W_fh.t() + b_f)
                o = torch.sigmoid(x_t @ W_ox.t() + h @ W_oh.t() + b_o)
                c = g * i + c * f
                sequence[t] = h = torch.tanh(c) * o
        return h

    variants = library_variants("torch.nn.LSTM", library, x)
    if not kernel.why_not():
        variants["ours, compiled"] = ours("compiled", torch.float32)
        variants["ours, compiled, bf16"] = ours("compiled", torch.bfloat16)
    variants["ours"] = ours("bptt", torch.float32)
    variants["ours, bf16"] = ours("bptt", torch.bfloat16)
    variants["plain loop"] = forward_backward(plain_loop, parameters)
    variants["plain loop, eight products"] = forward_backward(eight_products, gate_parameters)
    return variants


def rnn_variants(size: Size) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    x, library = torch.randn(size.T, size.B, size.d), nn.RNN(size.d, size.n, size.layers)
    layers = [[nn.Parameter(w.detach().clone()) for w in weights[:3]] for weights in library.all_weights]
    parameters = [parameter for layer in layers for parameter in layer]

    def ours(recurrence: str, dtype: torch.dtype) -> Callable[[], None]:
        def last_state() -> Tensor:
            h = x.to(dtype)
            for W_hx, W_hh, b_h in layers:
                h = rnn_sequence(h, None, W_hx.to(dtype), W_hh.to(dtype), b_h.to(dtype), recurrence)
            return h[-1].float()

        return forward_backward(last_state, parameters)

    def plain_loop() -> Tensor:
        h = x
        for W_hx, W_hh, b_h in layers:
            h = FROM_ZEROS["RNN"](input_part(h, W_hx, b_h), W_hh)
        return h[-1]

    variants = library_variants("torch.nn.RNN", library, x)
    if not kernel.why_not():
        variants["ours, compiled"] = ours("compiled", torch.float32)
        variants["ours, compiled, bf16"] = ours("compiled", torch.bfloat16)
    variants["ours"] = ours("bptt", torch.float32)
    variants["plain loop"] = forward_backward(plain_loop, parameters)
    return variants


def library_variants(name: str, library: nn.RNNBase, x: Tensor) -> dict[str, Callable[[], None]]:
    """Return the library's recurrence in float32, and in bfloat16 in its two ways."""
    in_bf16 = copy.deepcopy(library).bfloat16()

    def autocast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return library(x)[0][-1].float()

    return {
        name: forward_backward(lambda: library(x)[0][-1], list(library.parameters())),
        f"{name}, module in bf16": forward_backward(
            lambda: in_bf16(x.bfloat16())[0][-1].float(), list(in_bf16.parameters())
        ),
        f"{name}, autocast to bf16": forward_backward(autocast, list(library.parameters())),
    }


VARIANTS = {"LSTM": lstm_variants, "RNN": rnn_variants}


def forward_backward(output: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        output().sum().backward()

    return step


def memory() -> list[dict]:
    """Measure the peak memory of each variant; on Linux only."""
    rows = []
    if not Path("/proc/self/status").exists():
        return rows
    for size in MEMORY_SIZES:
        for name, make in VARIANTS.items():
            variants = [variant for variant in make(size._replace(B=1, T=1)) if "autocast" not in variant]
            megabytes = {
                variant.replace("module in bf16", "bf16"): in_own_process(peak, name, variant, size)
                for variant in variants
            }
            rows += report(f"{name} forward + backward, memory, {size}", "MB", megabytes, f"torch.nn.{name}")
    return rows


def peak(name: str, variant: str, size: Size) -> float:
    """Return the megabytes that both passes take beside weights and input; to be called in a process of its own."""
    torch.set_num_threads(1)
    small = Size(B=2, T=2, d=4, n=16, layers=size.layers)
    VARIANTS[name](small)[variant]()  # the first call loads libraries
    call = VARIANTS[name](size)[variant]
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Return this process's resident memory in MB, now (VmRSS) or at its peak (VmHWM)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1000


def side_by_side(repeats: int, num_models: int = 3) -> list[dict]:
    """Time three seeds of the sweep at T = 20, on one thread: a plain loop over time for each, and one for all."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    B, T, n = 128, 20, 128
    rows = []
    for name, num_gates in (("RNN", 1), ("LSTM", 4)):
        z = torch.randn(num_models, T, B, num_gates * n)
        W = nn.Parameter(torch.randn(num_models, num_gates * n, n) / n**0.5)
        milliseconds = interleaved_medians(model_variants(FROM_ZEROS[name], z, W), repeats)
        benchmark = f"{name}, {num_models} models, plain loop, B={B} T={T} n={n}"
        rows += report(benchmark, "ms", milliseconds, "one after the other")
    torch.set_num_threads(threads)
    return rows


def model_variants(
    loop: Callable[[Tensor, Tensor], Tensor], z: Tensor, W: nn.Parameter
) -> dict[str, Callable[[], None]]:
    """Return two ways to run a loop for several models, whose z and W are stacked."""

    def one_after_the_other() -> Tensor:
        return torch.stack([loop(z_k, W_k)[-1] for z_k, W_k in zip(z, W)])

    def together() -> Tensor:
        return torch.vmap(loop)(z, W)[:, -1]

    return {
        "one after the other": forward_backward(one_after_the_other, [W]),
        "side by side": forward_backward(together, [W]),
    }


def drawing(repeats: int) -> list[dict]:
    """Draw batches of 128 palindromes of 11 digits."""
    generator = torch.Generator().manual_seed(0)

    def digit_by_digit() -> None:
        """Draw as the handout's data set does: one palindrome at a time, with one call of NumPy for each digit."""
        for _ in range(128):
            left = [np.random.randint(0, 10) for _ in range(math.ceil(11 / 2))]
            np.concatenate((left, left[-2::-1]))

    variants = {"digit by digit": digit_by_digit, "ours": lambda: draw_palindromes(128, 11, generator)}
    rates = {name: 128_000 / milliseconds for name, milliseconds in interleaved_medians(variants, repeats).items()}
    return report("palindromes of 11 digits drawn", "1/s", rates, "digit by digit")


def training(train_steps: int, threads: int) -> list[dict]:
    """Train with the default arguments, T = 11: medians of runs taken in turns, each in a process of its own."""
    rows = []
    for model_type in ("RNN", "LSTM"):
        library = f"torch.nn.{model_type}"
        rates: dict[str, list[float]] = {library: [], "ours": []}
        for _ in range(TRAINING_RUNS):
            rate, _ = in_own_process(train, model_type, True, train_steps, threads)
            rates[library].append(rate)
            rate, shares = in_own_process(train, model_type, False, train_steps, threads)
            rates["ours"].append(rate)
        medians = {name: median(values) for name, values in rates.items()}
        rows += report(f"steps of part1/train.py --model_type {model_type}", "1/s", medians, library)
        rows += report(f"time of part1/train.py --model_type {model_type}", "%", shares, "all")
    return rows


def train(model_type: str, library: bool, train_steps: int, threads: int) -> tuple[float, dict[str, float]]:
    """Run part1/train.py in this process; return its steps per second, and what its parts take in percent of the time.

    Args:
        library: train torch.nn's recurrence in place of ours.
    """
    torch.set_num_threads(threads)
    module, Model = {"RNN": (vanilla_rnn, VanillaRNN), "LSTM": (lstm, LSTM)}[model_type]
    Trained = library_model(Model) if library else Model
    stopwatch = Stopwatch()
    parts = (
        ("drawing palindromes", HeldOutSequences, "draw_others"),
        ("forward", Trained, "forward"),
        ("backward", Tensor, "backward"),
        ("clipping", nn.utils, "clip_grad_norm_"),
        ("optimizer", torch.optim.RMSprop, "step"),
        ("logging", RunFolder, "log"),
        ("checkpoints", RunFolder, "save_checkpoint"),
    )
    with ExitStack() as stack:  # which undoes the patches
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        words = ["--model_type", model_type, "--train_steps", str(train_steps), "--run_dir", folder]
        stack.enter_context(redirect_stdout(None))
        stack.enter_context(patch.object(sys, "argv", ["part1/train.py", *words]))
        stack.enter_context(patch.object(module, Model.__name__, Trained))
        for part, owner, name in parts:
            stack.enter_context(patch.object(owner, name, stopwatch.timed(part, getattr(owner, name))))
        runpy.run_path(str(ROOT / "part1" / "train.py"), run_name="__main__")
        result = json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))
    shares = {part: 100 * value / stopwatch.total for part, value in stopwatch.seconds.items()}
    return result["steps"] / result["seconds"], {"all": 100.0, **shares, "the rest": 100 - sum(shares.values())}


def library_model(Model: type[nn.Module]) -> type[nn.Module]:
    """Return one of our models with torch.nn's recurrence in place of ours."""

    class LibraryModel(nn.Module):
        INITS, RECURRENCES = Model.INITS, Model.RECURRENCES

        def __init__(self, seq_length: int, input_dim: int, *args: Any):
            super().__init__()
            self.input_dim = input_dim
            self.recurrence, self.output = Model(seq_length, input_dim, *args).to_torch()

        def forward(self, x: Tensor) -> Tensor:
            x = as_vectors(x, self.input_dim).to(self.output.weight).transpose(0, 1)  # (T, B, d)
            h, _ = self.recurrence(x)
            return self.output(h[-1])

    return LibraryModel


class Stopwatch:
    """Adds up the time that parts of a program take; a part that is called within another one counts as that one's.

    Attributes:
        seconds: of each part.
        total: seconds from the first call of any part to the end of the last one.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.total = 0.0
        self._first_start: float | None = None
        self._within_a_part = False

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, wrapped so that its time counts for its part.

        "forward" where no gradients are computed counts as "evaluation".
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._within_a_part:
                return function(*args, **kwargs)
            started = time.perf_counter()
            if self._first_start is None:
                self._first_start = started
            self._within_a_part = True
            try:
                return function(*args, **kwargs)
            finally:
                self._within_a_part = False
                ended = time.perf_counter()
                evaluating = part == "forward" and not torch.is_grad_enabled()
                self.seconds["evaluation" if evaluating else part] += ended - started
                self.total = ended - self._first_start

        return call


if __name__ == "__main__":
    run_command(main)
