"""Speed and memory of part 1 beside what a user would take instead; every ratio comes from one run on one machine.

    python benchmarks/part1.py

* Forward plus backward of a recurrence, from the input to every gradient: ours, torch.nn's, and the plain loops that autograd
  differentiates. Medians over interleaved repeats, each size in a process of its own, as a training is. "compiled" needs
  `make kernel` first and is left out without it.
* The memory that takes at its peak, each variant in a process of its own.
* Seeds side by side: the recurrences of three models as one batched product a step, against one model after the other.
* Palindromes drawn a second: whole batches, and digit by digit as the handout's data set does it.
* Training steps a second of `part1/train.py`, end to end, evaluation and logging included; the same with torch.nn's recurrence
  in the model's place; and where the time of a step goes.

Prints a table and writes report/results/benchmark_part1.csv.
"""

import json
import math
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.timing import in_own_process, interleaved_medians, report
from common.errors import ArgumentParser, positive_int, run_command
from common.experiment import write_results
from common.machine import ROOT
from common.run_folder import RunFolder
from part1 import lstm, lstm_kernel, vanilla_rnn
from part1.bptt import input_part, lstm_loop, lstm_sequence, rnn_loop, rnn_sequence
from part1.dataset import HeldOutPalindromes, as_vectors, draw_palindromes
from part1.lstm import LSTM, from_torch_order
from part1.vanilla_rnn import VanillaRNN

SIZES = [  # (B, T, d, n, layers)
    (128, 10, 1, 128, 1),
    (128, 60, 10, 128, 1),
    (64, 30, 87, 128, 2),
    (32, 64, 64, 512, 1),
    (128, 30, 256, 1024, 1),
]


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=positive_int, default=60, help="of the small sizes; the wide ones take a quarter")
    parser.add_argument("--train_steps", type=positive_int, default=500, help="of the end-to-end runs")
    parser.add_argument("--threads", type=positive_int, default=min(2, os.cpu_count() or 1), help="of PyTorch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = recurrences(args.repeats, args.threads) + memory() + side_by_side(args.repeats) + drawing(args.repeats)
    rows += training(args.train_steps, args.threads)
    path = write_results("benchmark_part1", rows)
    print(f"written to {path.relative_to(ROOT)}")


def recurrences(repeats: int, threads: int) -> list[dict]:
    rows = []
    for size in SIZES:
        for name in VARIANTS:
            milliseconds = in_own_process(times, name, size, repeats if size[3] < 500 else max(3, repeats // 4), threads)
            rows += report(f"{name} forward + backward, {text(size)}", "ms", milliseconds, f"torch.nn.{name}")
    return rows


def times(name: str, size: tuple[int, ...], repeats: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    return interleaved_medians(VARIANTS[name](*size), repeats)


def text(size: tuple[int, ...]) -> str:
    B, T, d, n, layers = size
    return f"B={B} T={T} d={d} n={n}" + (f" {layers} layers" if layers > 1 else "")


def lstm_variants(B: int, T: int, d: int, n: int, layers: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    x, library = torch.randn(T, B, d), nn.LSTM(d, n, layers)
    weights = [nn.Parameter(from_torch_order(w.detach())) for w in library.parameters()]  # W_x, W_h, b and a second b a layer
    gates = [nn.Parameter(w.clone()) for stacked in weights for w in stacked.detach().chunk(4)]
    zeros = torch.zeros(B, n)

    def ours(compiled: bool, dtype: torch.dtype) -> Callable[[], Tensor]:
        def last_state() -> Tensor:
            h = x.to(dtype)
            for W_x, W_h, b, _ in zip(*4 * [iter(weights)]):
                h, _ = lstm_sequence(input_part(h, W_x.to(dtype), b.to(dtype)), None, zeros, W_h.to(dtype), overwrite_z=True)
            return h[-1].float()

        return with_kernel(compiled, forward_backward(last_state, weights))

    def plain_loop() -> Tensor:
        h = x
        for W_x, W_h, b, _ in zip(*4 * [iter(weights)]):
            h, _ = lstm_loop(input_part(h, W_x, b), zeros, zeros, W_h)
        return h[-1]

    def eight_products() -> Tensor:
        """As most published solutions write it: two products a gate."""
        sequence = list(x)
        for layer in zip(*16 * [iter(gates)]):
            W_gx, W_ix, W_fx, W_ox, W_gh, W_ih, W_fh, W_oh, b_g, b_i, b_f, b_o, *_ = layer
            h, c = zeros, zeros
            for t, x_t in enumerate(sequence):
                g = torch.tanh(x_t @ W_gx.t() + h @ W_gh.t() + b_g)
                i = torch.sigmoid(x_t @ W_ix.t() + h @ W_ih.t() + b_i)
                f = torch.sigmoid(x_t @ W_fx.t() + h @ W_fh.t() + b_f)
                o = torch.sigmoid(x_t @ W_ox.t() + h @ W_oh.t() + b_o)
                c = g * i + c * f
                sequence[t] = h = torch.tanh(c) * o
        return h

    variants = {"torch.nn.LSTM": forward_backward(lambda: library(x)[0][-1], [*library.parameters()])}
    if lstm_kernel.compiled():
        variants |= {"ours, compiled": ours(True, torch.float32), "ours, compiled, bf16": ours(True, torch.bfloat16)}
    return variants | {
        "ours": ours(False, torch.float32),
        "ours, bf16": ours(False, torch.bfloat16),
        "plain loop": forward_backward(plain_loop, weights),
        "plain loop, eight products": forward_backward(eight_products, gates),
    }


def with_kernel(compiled: bool, call: Callable[[], None]) -> Callable[[], None]:
    def called() -> None:
        kept, lstm_kernel.compiled = lstm_kernel.compiled, lstm_kernel.compiled if compiled else lambda: False
        call()
        lstm_kernel.compiled = kept

    return called


def rnn_variants(B: int, T: int, d: int, n: int, layers: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    x, library = torch.randn(T, B, d), nn.RNN(d, n, layers)
    weights = [nn.Parameter(w.detach().clone()) for w in library.parameters()]
    zeros = torch.zeros(B, n)

    def ours(sequence: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def last_state() -> Tensor:
            h = x
            for W_hx, W_hh, b_h, _ in zip(*4 * [iter(weights)]):
                h = sequence(input_part(h, W_hx, b_h), zeros, W_hh)
            return h[-1]

        return forward_backward(last_state, weights)

    library_call = forward_backward(lambda: library(x)[0][-1], [*library.parameters()])
    return {"torch.nn.RNN": library_call, "ours": ours(rnn_sequence), "plain loop": ours(rnn_loop)}


VARIANTS = {"LSTM": lstm_variants, "RNN": rnn_variants}


def forward_backward(last_state: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        last_state().sum().backward()

    return step


def memory() -> list[dict]:
    """Two sizes with long sequences, where the states outweigh the weights. Linux only."""
    rows = []
    if not Path("/proc/self/status").exists():
        return rows
    for size in ((128, 1000, 10, 128, 1), (128, 60, 256, 1024, 1)):
        for name, make in VARIANTS.items():
            megabytes = {variant: in_own_process(peak, name, variant, size) for variant in make(1, 1, *size[2:])}
            rows += report(f"{name} forward + backward, memory, {text(size)}", "MB", megabytes, f"torch.nn.{name}")
    return rows


def peak(name: str, variant: str, size: tuple[int, ...]) -> float:
    """Return the megabytes that forward and backward take beside the weights and the input; in a process of its own."""
    torch.set_num_threads(1)
    VARIANTS[name](2, 2, 4, 16, size[4])[variant]()  # whatever is loaded at the first call
    call = VARIANTS[name](*size)[variant]
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Return this process's resident memory in MB, now (VmRSS) or at its peak (VmHWM)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1000


def side_by_side(repeats: int, num_models: int = 3) -> list[dict]:
    """Three seeds of the sweep at T = 20, one thread: the same loop over time for each, and for all at once."""
    threads, rows = torch.get_num_threads(), []
    torch.set_num_threads(1)
    B, T, n = 128, 20, 128
    zeros = torch.zeros(B, n)
    loops = {"RNN": (lambda z, W: rnn_loop(z, zeros, W), 1), "LSTM": (lambda z, W: lstm_loop(z, zeros, zeros, W)[0], 4)}
    for name, (loop, gates) in loops.items():
        z = torch.randn(num_models, T, B, gates * n)
        W = nn.Parameter(torch.randn(num_models, gates * n, n) / n**0.5)
        variants = {
            "one after the other": forward_backward(partial(last_states, partial(map, loop), z, W), [W]),
            "side by side": forward_backward(partial(last_states, torch.vmap(loop), z, W), [W]),
        }
        milliseconds = interleaved_medians(variants, repeats)
        rows += report(f"{name}, {num_models} models, plain loop, B={B} T={T} n={n}", "ms", milliseconds, "one after the other")
    torch.set_num_threads(threads)
    return rows


def last_states(loops: Callable[[Tensor, Tensor], Iterable[Tensor]], z: Tensor, W: Tensor) -> Tensor:
    return torch.stack([h[-1] for h in loops(z, W)])


def drawing(repeats: int) -> list[dict]:
    """Batches of 128 palindromes of 11 digits."""
    generator = torch.Generator().manual_seed(0)

    def digit_by_digit() -> None:
        """As the handout's data set: one call of NumPy a digit, one palindrome at a time."""
        for _ in range(128):
            left = [np.random.randint(0, 10) for _ in range(math.ceil(11 / 2))]
            np.concatenate((left, left[-2::-1]))

    variants = {"digit by digit": digit_by_digit, "ours": lambda: draw_palindromes(128, 11, generator)}
    rates = {name: 128_000 / milliseconds for name, milliseconds in interleaved_medians(variants, repeats).items()}
    return report("palindromes of 11 digits drawn", "1/s", rates, "digit by digit")


class Library(nn.Module):
    """One of our models with torch.nn's recurrence in the place of ours."""

    Model: type[nn.Module]

    def __init__(self, *args: object):
        super().__init__()
        self.input_dim = args[1]
        self.recurrence, self.output = self.Model(*args).to_torch()

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.recurrence(as_vectors(x, self.input_dim).to(self.output.weight).transpose(0, 1))[0][-1])


def training(train_steps: int, threads: int) -> list[dict]:
    """Medians of seven runs each, taken in turns, each in a process of its own: T = 11, the default arguments."""
    rows = []
    for model in ("RNN", "LSTM"):
        rates, shares = {f"torch.nn.{model}": [], "ours": []}, {}
        for _ in range(7):
            for name, found in rates.items():
                rate, shares = in_own_process(train, model, name != "ours", train_steps, threads)
                found.append(rate)
        medians = {name: median(found) for name, found in rates.items()}
        rows += report(f"steps of part1/train.py --model_type {model}", "1/s", medians, f"torch.nn.{model}")
        rows += report(f"time of part1/train.py --model_type {model}", "%", shares, "all")
    return rows


def train(model: str, library: bool, train_steps: int, threads: int) -> tuple[float, dict[str, float]]:
    """Run train.py in this process; return its steps a second, and what its parts take, in percent of the time."""
    torch.set_num_threads(threads)
    module = {"RNN": vanilla_rnn, "LSTM": lstm}[model]
    Model = {"RNN": VanillaRNN, "LSTM": LSTM}[model]
    if library:
        setattr(module, Model.__name__, type("Library", (Library,), {"Model": Model, "INITS": Model.INITS}))
    seconds: dict[str, float] = {}
    for part, owner, name in (
        ("drawing palindromes", HeldOutPalindromes, "draw_others"),
        ("forward", Library if library else Model, "forward"),
        ("backward", Tensor, "backward"),
        ("clipping", nn.utils, "clip_grad_norm_"),
        ("optimizer", torch.optim.RMSprop, "step"),
        ("logging", RunFolder, "log"),
        ("checkpoints", RunFolder, "save_checkpoint"),
    ):
        setattr(owner, name, timed(part, getattr(owner, name), seconds))
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):
        sys.argv = ["part1/train.py", "--model_type", model, "--train_steps", str(train_steps), "--run_dir", folder]
        runpy.run_path(str(ROOT / "part1" / "train.py"), run_name="__main__")
        result = json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))
    shares = {part: 100 * value / (timed.end - timed.start) for part, value in seconds.items()}
    return result["steps"] / result["seconds"], {"all": 100.0, **shares, "the rest": 100 - sum(shares.values())}


def timed(part: str, function: Callable, seconds: dict[str, float]) -> Callable:
    """Let `function` add its time to that of its part, unless it is called from within another part."""

    def call(*args: object, **kwargs: object) -> object:
        outermost, started = not timed.inside, time.perf_counter()
        timed.start, timed.inside = timed.start or started, True
        try:
            return function(*args, **kwargs)
        finally:
            if outermost:
                timed.inside, timed.end = False, time.perf_counter()
                name = part if part != "forward" or torch.is_grad_enabled() else "evaluation"
                seconds[name] = seconds.get(name, 0.0) + timed.end - started

    return call


timed.inside, timed.start, timed.end = False, 0.0, 0.0


if __name__ == "__main__":
    run_command(main)
