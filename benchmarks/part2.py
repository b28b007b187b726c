"""Speed of part 2 beside what a user would take instead; every ratio comes from one run on one machine.

    python benchmarks/part2.py

* A text larger than memory: seconds to encode it, characters drawn from it a second and peak memory, beside the book of tales.
* Characters written a second: ours, a loop over torch.nn.LSTM that carries the state, and ours without a state, which reads the
  whole text so far for each character; and what a character costs in texts of different lengths.
* Forward plus loss plus backward of the model: ours in both precisions, and the same model made of torch.nn's modules; each
  size in a process of its own, as a training is.
  "compiled" needs `make kernel` first and is left out without it; everything else then runs compiled, too.
* What the precision does to the training: the held-out loss after as many steps, from three seeds.
* Batches cut a second: ours, and character by character as the handout's data set does it.
* Training steps a second of `part2/train.py`, end to end, evaluation and logging included, beside a plain loop without them.

Prints a table and writes report/results/benchmark_part2.csv.
"""

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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.part1 import with_kernel
from benchmarks.timing import in_own_process, interleaved_medians, report
from common.errors import ArgumentParser, non_negative_float, positive_int, run_command
from common.experiment import write_results
from common.machine import ROOT
from part1 import lstm_kernel
from part2 import dataset
from part2.model import TextGenerationModel, choose

BOOK = ROOT / "part2" / "assets" / "grimm.txt"
SIZES = [(30, 64, 64, 128, 2, 63), (64, 64, 128, 512, 1, 65), (30, 128, 256, 1024, 1, 63)]  # (T, B, d, n, layers, K)
TEMPERATURE = 0.8
NUM_DRAWN = 500  # batches of T = 128, B = 256


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=positive_int, default=60, help="of the small sizes; what is slow takes a sixth")
    parser.add_argument("--train_steps", type=positive_int, default=400, help="of the end-to-end runs")
    parser.add_argument("--large_gb", type=non_negative_float, default=2.0, help="size of the large text; 0 leaves it out")
    args = parser.parse_args()
    few = max(5, args.repeats // 6)
    rows = large_text(args.large_gb) if args.large_gb else []  # first: a child's peak memory starts at its parent's
    rows += generation(few) + model_steps(args.repeats, few) + cutting(args.repeats)
    rows += training(args.train_steps) + precisions(args.train_steps)
    path = write_results("benchmark_part2", rows)
    print(f"written to {path.relative_to(ROOT)}")


def large_text(gigabytes: float) -> list[dict]:
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.txt")
        write_words(path, int(gigabytes * 1e9))
        for name, text in (("part2/assets/grimm.txt", BOOK), (f"{gigabytes:g} GB of words", path)):
            figures[name] = in_own_process(read_text, text, Path(folder))
    rows = []
    for benchmark, unit in figures["part2/assets/grimm.txt"]:
        values = {name: measured[benchmark, unit] for name, measured in figures.items()}
        rows += report(benchmark, unit, values, "part2/assets/grimm.txt")
    return rows


def write_words(path: Path, num_bytes: int) -> None:
    """Write at least `num_bytes` of ASCII: the same 20,000 made-up words again and again, each time in another order."""
    generator, written = np.random.default_rng(0), 0
    lengths = generator.integers(2, 11, size=20_000)
    words = np.array(["".join(generator.choice(list(ascii_lowercase), length)) for length in lengths])
    with open(path, "w", encoding="ascii", newline="\n") as file:
        while written < num_bytes:
            written += file.write(" ".join(generator.permutation(words).tolist()) + "\n")


def read_text(path: Path, folder: Path) -> dict[tuple[str, str], float]:
    """Encode a text, below `folder` if it is large, and draw batches; to be called in a process of its own.

    Returns:
        What was measured, by name and unit.
    """
    import resource  # not on Windows

    dataset.ROOT = folder
    started = time.perf_counter()
    corpus = dataset.Corpus(path, held_out=0.1)
    seconds = time.perf_counter() - started
    figures = {("text encoded, all of it", "s"): seconds, ("text encoded", "MB/s"): path.stat().st_size / 1e6 / seconds}
    for source in (dataset.RandomWindows, dataset.ContiguousStreams):
        batches = source(corpus, seq_length=128, batch_size=256, seed=0)
        started = time.perf_counter()
        for step in range(NUM_DRAWN):
            batches.batch(step)
        rate = NUM_DRAWN * 128 * 256 / (time.perf_counter() - started)
        figures[f"characters drawn, {source.__name__}, T=128 B=256", "1/s"] = rate
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return figures | {("peak memory, PyTorch included", "MB"): peak / 1e6}


def generation(repeats: int) -> list[dict]:
    """Texts from a prompt of one character."""
    model = TextGenerationModel(sizes(64, 128, 2, 63)).eval()
    rows = []
    for B in (1, 64):
        milliseconds = interleaved_medians(writers(model, B, 200), repeats)
        rates = {name: 200_000 * B / value for name, value in milliseconds.items()}
        rows += report(f"characters written, texts of 200, batch {B}", "1/s", rates, "torch.nn.LSTM, state carried")
    lengths = {"ours": (50, 200, 800, 3200), "torch.nn.LSTM, state carried": (50, 200, 800), "ours, whole text": (50, 200, 800)}
    for name, texts in lengths.items():
        variants = {f"text of {length:,}": writers(model, 1, length)[name] for length in texts}
        milliseconds = interleaved_medians(variants, repeats).values()
        costs = {variant: 1000 * value / length for variant, value, length in zip(variants, milliseconds, texts)}
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
        T, B, d, n, layers, K = size
        milliseconds = in_own_process(model_times, size, repeats if n < 1000 else few)
        name = f"model, forward + loss + backward, T={T} B={B} d={d} n={n} layers={layers} K={K}"
        rows += report(name, "ms", milliseconds, "torch.nn, float32")
    return rows


def model_times(size: tuple[int, ...], repeats: int) -> dict[str, float]:
    T, B, d, n, layers, K = size
    model = TextGenerationModel(sizes(d, n, layers, K))
    bf16 = TextGenerationModel(sizes(d, n, layers, K, precision="bf16"))
    library = model.to_torch()
    text = torch.randint(K, (T + 1, B))
    variants = {"torch.nn, float32": forward_backward(partial(library_logits, library), nn.ModuleList(library), text)}
    for compiled in (False, True) if lstm_kernel.compiled() else (False,):
        for precision, ours in (("float32", model), ("bf16", bf16)):
            call = with_kernel(compiled, forward_backward(ours, ours, text))
            variants[f"ours, compiled, {precision}" if compiled else f"ours, {precision}"] = call
    return interleaved_medians(variants, repeats)


def sizes(d: int, n: int, layers: int, K: int, precision: str = "float32") -> Namespace:
    return Namespace(vocabulary_size=K, embedding_size=d, lstm_hidden_dim=n, lstm_num_layers=layers, precision=precision)


def library_logits(modules: tuple[nn.Embedding, nn.LSTM, nn.Linear], x: Tensor) -> Tensor:
    embedding, lstm, output = modules
    return output(lstm(embedding(x))[0])


def forward_backward(logits: Callable[[Tensor], Tensor], module: nn.Module, text: Tensor) -> Callable[[], None]:
    def step() -> None:
        module.zero_grad()
        F.cross_entropy(logits(text[:-1]).flatten(0, 1), text[1:].flatten()).backward()

    return step


def cutting(repeats: int) -> list[dict]:
    """Batches of 64 windows of 30 characters of the book."""
    corpus = dataset.Corpus(BOOK)
    windows, steps = dataset.RandomWindows(corpus, 30, 64, seed=0), count()
    text, number = BOOK.read_text(encoding="utf-8"), {character: k for k, character in enumerate(corpus.vocabulary)}

    def character_by_character() -> None:
        """As the handout's data set: one look-up a character, one window at a time."""
        windows = []
        for _ in range(64):
            start = np.random.randint(0, len(text) - 30)
            inputs = torch.tensor([number[character] for character in text[start : start + 30]])
            targets = torch.tensor([number[character] for character in text[start + 1 : start + 31]])
            windows.append((inputs, targets))
        dataset.text_collate_fn(windows)

    variants = {"character by character": character_by_character, "ours": lambda: windows.batch(next(steps))}
    rates = {name: 64 * 30_000 / milliseconds for name, milliseconds in interleaved_medians(variants, repeats).items()}
    return report("characters cut into batches, T=30 B=64", "1/s", rates, "character by character")


def training(train_steps: int) -> list[dict]:
    """Medians of three runs each, taken in turns."""
    loops, runs = zip(*((plain_loop(train_steps), whole_run(train_steps)) for _ in range(3)))
    rates = {"plain loop over torch.nn": median(loops), "part2/train.py": median(run["steps"] / run["seconds"] for run in runs)}
    return report("training steps, part2/train.py --txt_file assets/grimm.txt", "1/s", rates, "plain loop over torch.nn")


def precisions(train_steps: int) -> list[dict]:
    losses = {
        f"{precision}, seed {seed}": whole_run(train_steps, "--precision", precision, "--seed", str(seed))["held_out_loss"]
        for seed in range(3)
        for precision in ("float32", "bf16")
    }
    return report(f"held-out loss of the tales after {train_steps} steps", "nats", losses, "float32, seed 0")


def whole_run(train_steps: int, *words: str) -> dict[str, float]:
    """Return the result of part2/train.py."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--txt_file", str(BOOK), "--train_steps", str(train_steps), "--device", "cpu", "--run_dir", folder, *words]
        subprocess.run([sys.executable, str(ROOT / "part2" / "train.py"), *words], check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))


def plain_loop(train_steps: int) -> float:
    """Return steps a second of the same training without held-out text, schedule, log and checkpoints."""
    corpus = dataset.Corpus(BOOK, held_out=0.1)
    batches = dataset.RandomWindows(corpus, 30, 64, seed=0)
    library = TextGenerationModel(sizes(64, 128, 2, len(corpus.vocabulary))).to_torch()
    parameters = [*nn.ModuleList(library).parameters()]
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
