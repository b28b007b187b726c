"""What `benchmarks/scaling.py` measures, in each of the processes that torchrun starts for it, one thread each.

    torchrun --standalone --nproc_per_node 2 benchmarks/scaling_processes.py steps FILE
    torchrun --standalone --nproc_per_node 2 benchmarks/scaling_processes.py text FILE --text TEXT --folder FOLDER

steps: a training step of part 2's model, of process 0 alone while the other waits, and of both at once, with and without the
sum of the gradients; and the sum of messages of many sizes. In every round each variant has its turn, so that a slow moment
of the machine hits all. text: the training of `part2/train.py` on a text of any size, its memory and its speed.

Process 0 writes what was found to FILE, as JSON.
"""

import json
import os
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.part1 import with_kernel
from common.distributed import first_goes_first, gather, process_group, rank, total, total_gradients
from common.errors import ArgumentParser, positive_int, run_command
from part2 import dataset
from part2.model import TextGenerationModel

MODELS = {  # name: (T, B, d, n, layers, K), the handout's sizes and the large one of `benchmarks/part2.py`
    "2 × 128": (30, 64, 64, 128, 2, 63),
    "1 × 1024": (30, 128, 256, 1024, 1, 63),
}
MESSAGES = [4**k for k in range(6, 14)]  # bytes: 4 KiB to 64 MiB
NUM_DRAWN, NUM_STEPS = 300, 150


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("steps", "text"))
    parser.add_argument("file", type=Path, help="where process 0 writes")
    parser.add_argument("--repeats", type=positive_int, default=8, help="rounds with the large model; ten times as many small")
    parser.add_argument("--text", type=Path, help="what to train on")
    parser.add_argument("--folder", type=Path, help="where a large text is encoded")
    args = parser.parse_args()
    if args.what == "text" and not (args.text and args.folder):
        parser.error("text needs --text and --folder")
    torch.set_num_threads(1)
    with process_group(batch_size=64):
        found = steps(args.repeats) if args.what == "steps" else train_on(args.text, args.folder)
    if os.environ.get("RANK", "0") == "0":
        args.file.write_text(json.dumps(found), encoding="utf-8")


def steps(repeats: int) -> list[dict[str, Any]]:
    """Return what was measured, the median of all rounds as its value, and the fastest round."""
    rows = []
    for name, (T, B, d, n, layers, K) in MODELS.items():
        sizes = Namespace(vocabulary_size=K, embedding_size=d, lstm_hidden_dim=n, lstm_num_layers=layers)
        model = TextGenerationModel(sizes)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        variants = {}
        for size, batch in (("whole", B), ("half", B // 2)):
            text = torch.randint(K, (T + 1, batch))
            variants |= {
                f"alone, {size} batch": training_step(model, optimizer, text, communicate=False, alone=True),
                f"both, {size} batch each, nothing sent": training_step(model, optimizer, text, communicate=False),
                f"both, {size} batch each": training_step(model, optimizer, text),
            }
        variants["gradients summed"] = lambda model=model: total_gradients(model)
        rows += timed(name, variants, repeats if n > 500 else 10 * repeats)
        with Operations() as operations:  # as a GPU would be given them
            with_kernel(False, training_step(model, optimizer, text, communicate=False))()
        counts = {
            "operations a step": operations.number,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "embedding's parameters": model.embedding.weight.numel(),
        }
        rows += [{"what": name, "variant": variant, "value": number, "unit": ""} for variant, number in counts.items()]
    messages = {size: torch.ones(size // 4) for size in MESSAGES}
    return rows + timed("message", {size: lambda m=message: total(m) for size, message in messages.items()}, 5 * repeats)


def training_step(
    model: TextGenerationModel,
    optimizer: torch.optim.Optimizer,
    text: Tensor,
    communicate: bool = True,
    alone: bool = False,
) -> Callable[[], None]:
    """Return one step of `part2/train.py` on (T + 1, B) characters."""

    def step() -> None:
        if alone and rank() > 0:
            return
        loss = F.cross_entropy(model(text[:-1]).flatten(0, 1), text[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if communicate:
            total_gradients(model, loss)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=5.0)
        optimizer.step()

    return step


def timed(what: str, variants: dict[Any, Callable[[], Any]], rounds: int) -> list[dict[str, Any]]:
    """Time each call, begun together, by the slower process; the first two rounds are not counted."""
    times = {name: [] for name in variants}
    for _ in range(rounds + 2):
        for name, call in variants.items():
            total(torch.zeros(1))  # all are here
            started = time.perf_counter()
            call()
            times[name].append(gather(torch.tensor([time.perf_counter() - started])).max().item())
    return [
        {"what": what, "variant": name, "value": median(values[2:]), "fastest": min(values[2:]), "unit": "s"}
        for name, values in times.items()
    ]


class Operations(TorchDispatchMode):
    """Counts the operations that compute something: on a GPU about as many kernels are launched."""

    def __enter__(self) -> "Operations":
        self.number = 0
        return super().__enter__()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.number += not (function.is_view or "empty" in function.__name__ or "detach" in function.__name__)
        return function(*args, **kwargs or {})


def train_on(text: Path, folder: Path) -> dict[str, float]:
    """Return what `part2/train.py` costs on a text at its default sizes, of the process that needs most."""
    dataset.ROOT = folder
    with first_goes_first():
        started = time.perf_counter()
        corpus = dataset.Corpus(text, held_out=0.1)
        found = {"text opened or encoded, s": time.perf_counter() - started}
    _held_out = list(dataset.held_out_batches(corpus))  # as in training, it stays in memory
    T, B, d, n, layers, _ = MODELS["2 × 128"]
    windows = dataset.RandomWindows(corpus, T, B, seed=0)

    encoded = list(folder.rglob("*.tokens")) if text.stat().st_size > dataset.IN_MEMORY else []
    for path in encoded:
        forget(path)
    for cached in ("from the disk", "again") if encoded else ("again",):
        total(torch.zeros(1))
        started = time.perf_counter()
        for step in range(NUM_DRAWN):
            windows.batch(step)
        total(torch.zeros(1))
        found[f"windows drawn {cached}, 1/s"] = NUM_DRAWN * B / (time.perf_counter() - started)

    sizes = Namespace(vocabulary_size=len(corpus.vocabulary), embedding_size=d, lstm_hidden_dim=n, lstm_num_layers=layers)
    model = TextGenerationModel(sizes)
    optimizer, memory, times = torch.optim.Adam(model.parameters(), lr=2e-3), Counter(), []
    for step in range(NUM_STEPS):
        started = time.perf_counter()
        inputs, targets, _ = windows.batch(step)
        training_step(model, optimizer, torch.cat([inputs, targets[-1:]]))()
        times.append(time.perf_counter() - started)
        memory |= resident_memory()  # of each kind the highest
    found["training steps, 1/s"] = 1 / median(times)
    for name, value in memory.items():
        found[f"{name}, MB"] = gather(torch.tensor([value / 1e6])).max().item()
    return found


def forget(path: Path) -> None:
    """Drop a file from the system's cache, so that it is read from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_memory() -> Counter[str]:
    """Return bytes in memory: the most so far, now those of this process alone, and now those of files that are mapped."""
    names = {"VmHWM": "peak", "RssAnon": "private", "RssFile": "mapped files"}
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return Counter({names[words[0][:-1]]: 1024 * int(words[1]) for words in lines if words and words[0][:-1] in names})


if __name__ == "__main__":
    run_command(main)
