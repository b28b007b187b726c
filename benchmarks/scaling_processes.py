"""What `benchmarks/scaling.py` measures, in each of the processes that torchrun starts for it, with one thread each.

    torchrun --standalone --nproc_per_node 2 -m benchmarks.scaling_processes steps FILE
    torchrun --standalone --nproc_per_node 2 -m benchmarks.scaling_processes text FILE --text TEXT --folder FOLDER

steps: a training step of part 2's model, by process 0 alone while the other waits, and by both at once, with and
without the sum of the gradients; and the sum of messages of many sizes. Every round measures each variant once, so that
a slow moment of the machine affects all of them.

text: the training of `part2/train.py` on a text of any size, its memory and its speed.

Process 0 writes the measurements to FILE, as JSON.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.part2 import HANDOUT, LARGE
from common.command import ArgumentParser, positive_int, run_command
from common.distributed import all_gather, all_reduce, all_reduce_gradients, process_group, rank, rank_zero_first
from part2 import dataset
from part2.model import TextGenerationModel

MODELS = {"2 × 128": HANDOUT, "1 × 1024": LARGE}  # named after layers and hidden units
MESSAGES = [4**k for k in range(6, 14)]  # bytes: 4 KiB to 64 MiB
NUM_DRAWN, NUM_STEPS = 300, 150
WARM_UP_ROUNDS = 2


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("what", choices=("steps", "text"), help="what to measure")
    parser.add_argument("file", type=Path, help="where process 0 writes")
    parser.add_argument(
        "--repeats",
        type=positive_int,
        default=8,
        help="rounds for the large model; ten times as many for the small one",
    )
    parser.add_argument("--text", type=Path, help="text to train on")
    parser.add_argument("--folder", type=Path, help="where a large text is encoded")
    args = parser.parse_args()
    if args.what == "text" and not (args.text and args.folder):
        parser.error("text needs --text and --folder")
    torch.set_num_threads(1)
    with process_group(batch_size=64):
        measured = steps(args.repeats) if args.what == "steps" else train_on(args.text, args.folder)
    if os.environ.get("RANK", "0") == "0":
        args.file.write_text(json.dumps(measured), encoding="utf-8")


def steps(repeats: int) -> list[dict[str, Any]]:
    """Return one row for each measurement: its median over all rounds as the value, and the fastest round."""
    rows = []
    for name, size in MODELS.items():
        model = size.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        variants = {}
        for share, batch in (("whole", size.B), ("half", size.B // 2)):
            text = torch.randint(size.K, (size.T + 1, batch))
            make_step = partial(training_step, model, optimizer, text)
            variants[f"alone, {share} batch"] = make_step(communicate=False, alone=True)
            variants[f"both, {share} batch each, nothing sent"] = make_step(communicate=False)
            variants[f"both, {share} batch each"] = make_step()
        variants["gradients summed"] = partial(all_reduce_gradients, model)
        rows += timed(name, variants, repeats if size.n > 500 else 10 * repeats)
        counts = {
            "operations a step": count_operations(model, make_step(communicate=False)),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "embedding's parameters": model.embedding.weight.numel(),
        }
        rows += [{"what": name, "variant": variant, "value": number, "unit": ""} for variant, number in counts.items()]
    messages = {num_bytes: partial(all_reduce, torch.ones(num_bytes // 4)) for num_bytes in MESSAGES}
    return rows + timed("message", messages, 5 * repeats)


def training_step(
    model: TextGenerationModel,
    optimizer: torch.optim.Optimizer,
    text: Tensor,
    communicate: bool = True,
    alone: bool = False,
) -> Callable[[], None]:
    """Return one step of `part2/train.py` on (T + 1, B) characters.

    Args:
        communicate: sum the gradients over the processes.
        alone: only process 0 takes the step.
    """

    def step() -> None:
        if alone and rank() > 0:
            return
        loss = F.cross_entropy(model(text[:-1]).flatten(0, 1), text[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if communicate:
            all_reduce_gradients(model, loss)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=5.0)
        optimizer.step()

    return step


def timed(what: str, variants: dict[Any, Callable[[], Any]], rounds: int) -> list[dict[str, Any]]:
    """Time calls that all processes begin together, each by the slowest process."""
    times = {name: [] for name in variants}
    for _ in range(WARM_UP_ROUNDS + rounds):
        for name, call in variants.items():
            all_reduce(torch.zeros(1))  # waits for all processes
            started = time.perf_counter()
            call()
            times[name].append(all_gather(torch.tensor([time.perf_counter() - started])).max().item())
    rows = []
    for name, values in times.items():
        counted = values[WARM_UP_ROUNDS:]
        rows.append({"what": what, "variant": name, "value": median(counted), "fastest": min(counted), "unit": "s"})
    return rows


def count_operations(model: TextGenerationModel, step: Callable[[], None]) -> int:
    """Return the number of operations in a training step as a GPU would run it, without the kernel for CPUs."""
    for layer in model.layers:
        layer.recurrence = "bptt"
    with Operations() as operations:
        step()
    return operations.number


class Operations(TorchDispatchMode):
    """Counts the operations that compute something: on a GPU, about as many kernels are launched."""

    def __enter__(self) -> "Operations":
        self.number = 0
        return super().__enter__()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not (function.is_view or "empty" in function.__name__ or "detach" in function.__name__):
            self.number += 1
        return function(*args, **kwargs or {})


def train_on(text: Path, folder: Path) -> dict[str, float]:
    """Return what training on a text costs with the default sizes of `part2/train.py`.

    Memory is that of the process that needs most.
    """
    with patch.object(dataset, "ROOT", folder), rank_zero_first():
        started = time.perf_counter()
        corpus = dataset.Corpus(text, held_out=0.1)
        measured = {"text opened or encoded, s": time.perf_counter() - started}
    _held_out = list(dataset.held_out_batches(corpus))  # as in training, it stays in memory
    windows = dataset.RandomWindows(corpus, HANDOUT.T, HANDOUT.B, seed=0)

    encoded = list(folder.rglob("*.tokens")) if text.stat().st_size > dataset.IN_MEMORY else []
    for path in encoded:
        drop_from_cache(path)
    for source in ("from the disk", "again") if encoded else ("again",):
        all_reduce(torch.zeros(1))
        started = time.perf_counter()
        for step in range(NUM_DRAWN):
            windows.batch(step)
        all_reduce(torch.zeros(1))
        measured[f"windows drawn {source}, 1/s"] = NUM_DRAWN * HANDOUT.B / (time.perf_counter() - started)

    model = HANDOUT._replace(K=len(corpus.vocabulary)).model()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    memory, times = Counter(), []
    for step in range(NUM_STEPS):
        started = time.perf_counter()
        inputs, targets, _ = windows.batch(step)
        training_step(model, optimizer, torch.cat([inputs, targets[-1:]]))()
        times.append(time.perf_counter() - started)
        memory |= resident_memory()  # the union of two counters takes the maximum of each kind
    measured["training steps, 1/s"] = 1 / median(times)
    for kind, num_bytes in memory.items():
        measured[f"{kind}, MB"] = all_gather(torch.tensor([num_bytes / 1e6])).max().item()
    return measured


def drop_from_cache(path: Path) -> None:
    """Drop a file from the system's cache, so that it is read from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_memory() -> Counter[str]:
    """Return this process's bytes in memory: at their peak, and now those of its own and those of mapped files."""
    kinds = {"VmHWM": "peak", "RssAnon": "private", "RssFile": "mapped files"}
    memory: Counter[str] = Counter()
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        field, _, value = line.partition(":")  # as in "VmHWM:    250640 kB"
        if field in kinds:
            memory[kinds[field]] = 1024 * int(value.split()[0])
    return memory


if __name__ == "__main__":
    run_command(main)
