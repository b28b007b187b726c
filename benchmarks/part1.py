"""Speed of part 1 beside what a user would take instead; every ratio comes from one run on one machine.

    python benchmarks/part1.py

* Forward plus backward of a recurrence, from the input to every gradient: ours, torch.nn's, and the plain loops that autograd
  differentiates. Medians over interleaved repeats.
* Palindromes drawn a second: whole batches, and digit by digit as the handout's data set does it.
* Training steps a second of `part1/train.py`, end to end, evaluation and logging included.

Prints a table and writes report/results/benchmark_part1.csv.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.timing import interleaved_medians, report
from common.errors import ArgumentParser, positive_int, run_command
from common.experiment import write_results
from common.machine import ROOT
from part1.bptt import lstm_loop, lstm_sequence, rnn_loop, rnn_sequence
from part1.dataset import draw_palindromes

SIZES = [(128, 10, 1, 128), (128, 60, 1, 128), (128, 30, 256, 1024)]  # (B, T, d, n)


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=positive_int, default=60, help="of the small sizes; the large one takes a tenth")
    parser.add_argument("--train_steps", type=positive_int, default=500, help="of the end-to-end runs")
    args = parser.parse_args()
    rows = recurrences(args.repeats) + drawing(args.repeats) + training(args.train_steps)
    path = write_results("benchmark_part1", rows)
    print(f"written to {path.relative_to(ROOT)}")


def recurrences(repeats: int) -> list[dict]:
    rows = []
    for B, T, d, n in SIZES:
        x = torch.randn(T, B, d)
        for name, variants in (("LSTM", lstm_variants(x, n)), ("RNN", rnn_variants(x, n))):
            milliseconds = interleaved_medians(variants, repeats if n < 1000 else max(3, repeats // 10))
            rows += report(f"{name} forward + backward, B={B} T={T} d={d} n={n}", "ms", milliseconds, f"torch.nn.{name}")
    return rows


def lstm_variants(x: Tensor, n: int) -> dict[str, Callable[[], None]]:
    library = nn.LSTM(x.shape[2], n)
    W_x, W_h, b = (nn.Parameter(w.detach().clone()) for w in (library.weight_ih_l0, library.weight_hh_l0, library.bias_ih_l0))
    gates = [nn.Parameter(w.clone()) for stacked in (W_x.detach(), W_h.detach(), b.detach()) for w in stacked.chunk(4)]
    zeros = torch.zeros(x.shape[1], n)

    def eight_products() -> Tensor:
        """As most published solutions write it: two products a gate."""
        W_gx, W_ix, W_fx, W_ox, W_gh, W_ih, W_fh, W_oh, b_g, b_i, b_f, b_o = gates
        h, c = zeros, zeros
        for x_t in x:
            g = torch.tanh(x_t @ W_gx.t() + h @ W_gh.t() + b_g)
            i = torch.sigmoid(x_t @ W_ix.t() + h @ W_ih.t() + b_i)
            f = torch.sigmoid(x_t @ W_fx.t() + h @ W_fh.t() + b_f)
            o = torch.sigmoid(x_t @ W_ox.t() + h @ W_oh.t() + b_o)
            c = g * i + c * f
            h = torch.tanh(c) * o
        return h

    return {
        "torch.nn.LSTM": forward_backward(lambda: library(x)[0][-1], [*library.parameters()]),
        "ours": forward_backward(lambda: lstm_sequence(input_part(x, W_x, b), zeros, zeros, W_h)[0][-1], [W_x, W_h, b]),
        "plain loop": forward_backward(lambda: lstm_loop(input_part(x, W_x, b), zeros, zeros, W_h)[0][-1], [W_x, W_h, b]),
        "plain loop, eight products": forward_backward(eight_products, gates),
    }


def rnn_variants(x: Tensor, n: int) -> dict[str, Callable[[], None]]:
    library = nn.RNN(x.shape[2], n)
    W_hx, W_hh, b_h = (
        nn.Parameter(w.detach().clone()) for w in (library.weight_ih_l0, library.weight_hh_l0, library.bias_ih_l0)
    )
    zeros, parameters = torch.zeros(x.shape[1], n), [W_hx, W_hh, b_h]
    return {
        "torch.nn.RNN": forward_backward(lambda: library(x)[0][-1], [*library.parameters()]),
        "ours": forward_backward(lambda: rnn_sequence(input_part(x, W_hx, b_h), zeros, W_hh)[-1], parameters),
        "plain loop": forward_backward(lambda: rnn_loop(input_part(x, W_hx, b_h), zeros, W_hh)[-1], parameters),
    }


def input_part(x: Tensor, W_x: Tensor, b: Tensor) -> Tensor:
    return torch.addmm(b, x.flatten(0, 1), W_x.t()).unflatten(0, x.shape[:2])


def forward_backward(last_state: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        last_state().sum().backward()

    return step


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


def training(train_steps: int) -> list[dict]:
    rates = {}
    for model in ("RNN", "LSTM"):
        with tempfile.TemporaryDirectory() as folder:
            words = ["--model_type", model, "--train_steps", str(train_steps), "--run_dir", folder]
            subprocess.run([sys.executable, str(ROOT / "part1" / "train.py"), *words], check=True, stdout=subprocess.DEVNULL)
            result = json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))
            rates[model] = result["steps"] / result["seconds"]
    return report("steps of part1/train.py --input_length 10", "1/s", rates, "RNN")


if __name__ == "__main__":
    run_command(main)
