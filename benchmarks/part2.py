"""Speed of part 2 beside what a user would take instead; every ratio comes from one run on one machine.

    python -m benchmarks.part2

* A text larger than memory: seconds to encode it, characters drawn from it per second and peak memory, beside the book
  of tales.
* Characters written per second: ours, a loop over torch.nn.LSTM that carries the state, and ours without a state, which
  reads the whole text so far for each character; and what a character costs in texts of different lengths.
* Forward pass, loss and backward pass of the model: ours and the same model made of torch.nn's modules, both in both
  precisions; each size in a process of its own, as a training run is. "compiled" is left out where there is no C
  compiler; all other measurements use it where there is one.
* What the precision changes in training: the held-out loss after the same number of steps, from three seeds.
* Batches cut per second: ours, and character by character as the handout's data set cuts them.
* Training steps per second of `part2/train.py`, end to end, evaluation and logging included, as often as in its 10,000
  steps, beside a plain loop over torch.nn's modules without them.

Prints a table and writes report/results/benchmark_part2.csv.
"""

import copy
import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from string import ascii_lowercase
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.part1 import faster_bfloat16
from benchmarks.timing import in_own_process, interleaved_medians, report
from common.command import ArgumentParser, non_negative_float, positive_int, run_command
from common.experiment import add_allow_dirty, require_clean_tree, write_results
from common.machine import MULTIPLIES_BFLOAT16
from common.paths import ROOT, short_path
from part2 import dataset
from part2.model import TextGenerationModel, choose
from recurrence import kernel


class Size(NamedTuple):
    """The sizes of a batch and of the model.

    B windows of T characters; K different characters, each embedded in d numbers; n hidden units in each layer.
    """

    T: int
    B: int
    d: int
    n: int
    layers: int
    K: int

    def model(self, precision: str = "float32", recurrence: str = "auto") -> TextGenerationModel:
        settings = Namespace(
            vocabulary_size=self.K,
            embedding_size=self.d,
            lstm_hidden_dim=self.n,
            lstm_num_layers=self.layers,
            precision=precision,
            recurrence=recurrence,
        )
        return TextGenerationModel(settings)


BOOK = ROOT / "part2" / "assets" / "grimm.txt"
HANDOUT = Size(T=30, B=64, d=64, n=128, layers=2, K=63)
LARGE = Size(T=30, B=128, d=256, n=1024, layers=1, K=63)
SIZES = (HANDOUT, Size(T=64, B=64, d=128, n=512, layers=1, K=65), LARGE)
TEMPERATURE = 0.8
NUM_DRAWN = 500  # batches of T = 128, B = 256


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--repeats", type=positive_int, default=60, help="repeats of each small size; slow calls take a sixth"
    )
    parser.add_argument("--train_steps", type=positive_int, default=500, help="steps of each end-to-end training")
    parser.add_argument(
        "--large_gb", type=non_negative_float, default=2.0, help="gigabytes of the large text; 0 leaves it out"
    )
    add_allow_dirty(parser)
    args = parser.parse_args()
    require_clean_tree(args)
    few = max(5, args.repeats // 6)
    rows = large_text(args.large_gb) if args.large_gb else []  # first: a child's peak memory starts at its parent's
    rows += generation(few) + model_steps(args.repeats, few) + cutting(args.repeats)
    rows += training(args.train_steps)
    if MULTIPLIES_BFLOAT16:  # otherwise there is no difference
        rows += precisions(args.train_steps)
    print(f"written to {short_path(write_results('benchmark_part2', rows))}")


def large_text(gigabytes: float) -> list[dict]:
    tales, large = "part2/assets/grimm.txt", f"{gigabytes:g} GB of words"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.txt")
        write_words(path, int(gigabytes * 1e9))
        of_tales = in_own_process(read_text, BOOK, Path(folder))
        of_large = in_own_process(read_text, path, Path(folder))
    rows = []
    for benchmark, unit in of_tales:
        values = {tales: of_tales[benchmark, unit], large: of_large[benchmark, unit]}
        rows += report(benchmark, unit, values, tales)
    return rows


def write_words(path: Path, num_bytes: int) -> None:
    """Write at least `num_bytes` of ASCII: the same 20,000 made-up words again and again, each time in a new order."""
    generator, written = np.random.default_rng(0), 0
    lengths = generator.integers(2, 11, size=20_000)
    words = np.array(["".join(generator.choice(list(ascii_lowercase), length)) for length in lengths])
    with open(path, "w", encoding="ascii", newline="\n") as file:
        while written < num_bytes:
            written += file.write(" ".join(generator.permutation(words).tolist()) + "\n")


def read_text(path: Path, folder: Path) -> dict[tuple[str, str], float]:
    """Encode a text and draw batches from it; to be called in a process of its own.

    Args:
        folder: where a large text is encoded.

    Returns:
        What was measured, by name and unit.
    """
    import resource  # not on Windows

    started = time.perf_counter()
    with patch.object(dataset, "ROOT", folder):
        corpus = dataset.Corpus(path, held_out=0.1)
    seconds = time.perf_counter() - started
    megabytes = path.stat().st_size / 1e6
    measured = {("text encoded, all of it", "s"): seconds, ("text encoded", "MB/s"): megabytes / seconds}
    for source in (dataset.RandomWindows, dataset.ContiguousStreams):
        batches = source(corpus, seq_length=128, batch_size=256, seed=0)
        started = time.perf_counter()
        for step in range(NUM_DRAWN):
            batches.batch(step)
        rate = NUM_DRAWN * 128 * 256 / (time.perf_counter() - started)
        measured[f"characters drawn, {source.__name__}, T=128 B=256", "1/s"] = rate
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    measured["peak memory, PyTorch included", "MB"] = peak / 1e6
    return measured


def generation(repeats: int) -> list[dict]:
    """Write texts from a prompt of one character."""
    model = HANDOUT.model().eval()
    rows = []
    for B in (1, 64):
        milliseconds = interleaved_medians(writers(model, B, 200), repeats)
        rates = {name: 200_000 * B / value for name, value in milliseconds.items()}
        rows += report(f"characters written, texts of 200, batch {B}", "1/s", rates, "torch.nn.LSTM, state carried")
    lengths = {
        "ours": (50, 200, 800, 3200),
        "torch.nn.LSTM, state carried": (50, 200, 800),
        "ours, whole text": (50, 200, 800),
    }
    for name, texts in lengths.items():
        variants = {length: writers(model, 1, length)[name] for length in texts}
        milliseconds = interleaved_medians(variants, repeats)
        costs = {f"text of {length:,}": 1000 * value / length for length, value in milliseconds.items()}
        rows += report(f"one character written: {name}", "us", costs, "text of 50")
    return rows


def writers(model: TextGenerationModel, B: int, length: int) -> dict[str, Callable[[], None]]:
    embedding, lstm, output = model.to_torch()
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(model.vocabulary_size, (1, B), generator=generator)

    @torch.no_grad()
    def library() -> None:
        x, state = prompt, None
        for _ in range(length):
            h, state = lstm(embedding(x), state)
            x = choose(output(h[-1]), TEMPERATURE, generator).unsqueeze(0)

    def ours() -> None:
        characters = model.write(prompt, TEMPERATURE, generator)
        for _ in range(length):
            next(characters)

    @torch.no_grad()
    def whole_text() -> None:
        text = prompt
        for _ in range(length):
            text = torch.cat([text, choose(model(text)[-1], TEMPERATURE, generator).unsqueeze(0)])

    return {"torch.nn.LSTM, state carried": library, "ours": ours, "ours, whole text": whole_text}


def model_steps(repeats: int, few: int) -> list[dict]:
    rows = []
    for size in SIZES:
        milliseconds = in_own_process(model_times, size, repeats if size.n < 1000 else few)
        text = f"T={size.T} B={size.B} d={size.d} n={size.n} layers={size.layers} K={size.K}"
        rows += report(f"model, forward + loss + backward, {text}", "ms", milliseconds, "torch.nn, float32")
    return rows


def model_times(size: Size, repeats: int) -> dict[str, float]:
    library = size.model().to_torch()
    text = torch.randint(size.K, (size.T + 1, size.B))
    in_bf16 = copy.deepcopy(library[0]), copy.deepcopy(library[1]).bfloat16(), copy.deepcopy(library[2]).bfloat16()

    def module_in_bf16(x: Tensor) -> Tensor:
        embedding, lstm, output = in_bf16
        return output(lstm(embedding(x).bfloat16())[0]).float()

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return library_logits(library, x).float()

    variants = {
        "torch.nn, float32": forward_backward(partial(library_logits, library), nn.ModuleList(library), text),
        "torch.nn, module in bf16": forward_backward(module_in_bf16, nn.ModuleList(in_bf16), text),
        "torch.nn, autocast to bf16": forward_backward(autocast, nn.ModuleList(library), text),
    }
    recurrences = {"ours": "bptt"}
    if not kernel.why_not():
        recurrences["ours, compiled"] = "compiled"
    for name, recurrence in recurrences.items():
        for precision in ("float32", "bf16"):
            model = size.model(precision, recurrence)
            variants[f"{name}, {precision}"] = forward_backward(model, model, text)
    return interleaved_medians(faster_bfloat16(variants), repeats)


def library_logits(modules: tuple[nn.Embedding, nn.LSTM, nn.Linear], x: Tensor) -> Tensor:
    embedding, lstm, output = modules
    return output(lstm(embedding(x))[0])


def forward_backward(logits: Callable[[Tensor], Tensor], module: nn.Module, text: Tensor) -> Callable[[], None]:
    def step() -> None:
        module.zero_grad()
        F.cross_entropy(logits(text[:-1]).flatten(0, 1), text[1:].flatten()).backward()

    return step


def cutting(repeats: int) -> list[dict]:
    """Cut batches of 64 windows of 30 characters from the book."""
    corpus = dataset.Corpus(BOOK)
    batches, steps = dataset.RandomWindows(corpus, 30, 64, seed=0), count()
    text = BOOK.read_text(encoding="utf-8")
    number_of = {character: k for k, character in enumerate(corpus.vocabulary)}

    def character_by_character() -> None:
        """Cut as the handout's data set does: one window at a time, with one look-up for each character."""
        windows = []
        for _ in range(64):
            start = np.random.randint(0, len(text) - 30)
            inputs = torch.tensor([number_of[character] for character in text[start : start + 30]])
            targets = torch.tensor([number_of[character] for character in text[start + 1 : start + 31]])
            windows.append((inputs, targets))
        dataset.text_collate_fn(windows)

    variants = {"character by character": character_by_character, "ours": lambda: batches.batch(next(steps))}
    rates = {name: 64 * 30_000 / milliseconds for name, milliseconds in interleaved_medians(variants, repeats).items()}
    return report("characters cut into batches, T=30 B=64", "1/s", rates, "character by character")


def training(train_steps: int) -> list[dict]:
    """Train on the tales: medians of three runs each, taken in turns."""
    loop_rates, rates = [], []
    for _ in range(3):
        loop_rates.append(in_own_process(plain_loop, train_steps))
        result = whole_run(train_steps, "--eval_every", "500")
        rates.append(result["steps"] / result["seconds"])
    medians = {"plain loop over torch.nn": median(loop_rates), "part2/train.py": median(rates)}
    benchmark = "training steps, part2/train.py --txt_file assets/grimm.txt"
    return report(benchmark, "1/s", medians, "plain loop over torch.nn")


def precisions(train_steps: int) -> list[dict]:
    losses = {}
    for seed in range(3):
        for precision in ("float32", "bf16"):
            result = whole_run(train_steps, "--precision", precision, "--seed", str(seed))
            losses[f"{precision}, seed {seed}"] = result["held_out_loss"]
    return report(f"held-out loss of the tales after {train_steps} steps", "nats", losses, "float32, seed 0")


def whole_run(train_steps: int, *words: str) -> dict[str, float]:
    """Return the result of part2/train.py."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "part2" / "train.py"), "--txt_file", str(BOOK), "--device", "cpu"]
        command += ["--train_steps", str(train_steps), "--run_dir", folder, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))


def plain_loop(train_steps: int) -> float:
    """Return the steps per second of the same training without held-out text, schedule, log and checkpoints."""
    corpus = dataset.Corpus(BOOK, held_out=0.1)
    batches = dataset.RandomWindows(corpus, 30, 64, seed=0)
    library = HANDOUT._replace(K=len(corpus.vocabulary)).model().to_torch()
    parameters = list(nn.ModuleList(library).parameters())
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    started = time.perf_counter()
    for step in range(train_steps):
        inputs, targets, _ = batches.batch(step)
        loss = F.cross_entropy(library_logits(library, inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, max_norm=5.0)
        optimizer.step()
    return train_steps / (time.perf_counter() - started)


if __name__ == "__main__":
    run_command(main)
