"""Several processes that train one model, started by PyTorch's own launcher, on one machine or many.

    torchrun --standalone --nproc_per_node 2 part2/train.py ...

Every process holds the whole model and computes on its `share` of each batch. The loss of a share is its part of the batch's
mean, so that the sums over the processes, of the losses as of the gradients, are what one process would have computed: all
take its step, and stay equal. Process 0 alone reads and writes the run folder. Where torchrun did not start the script there is
one process, its share is everything, and nothing here does anything.

The communication is that of torch.distributed: gloo between CPUs, NCCL between GPUs.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.errors import CommandError

Rows = TypeVar("Rows", np.ndarray, Tensor)
LAUNCHER_HAS_STORE = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
RUN_FOLDER = "run folder"  # a key in that store
attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")  # until the processes have met and named it


@contextmanager
def process_group(batch_size: int, least: int = 1) -> Iterator[None]:
    """Within the block the processes that torchrun started train together.

    Raises:
        CommandError: the batch cannot be shared out equally, `least` rows or more to each.
    """
    global attempt
    if not launched():
        yield
        return
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if batch_size % processes or batch_size < least * processes:
        enough = f"{processes}, at least {least * processes}" if least > 1 else processes
        raise CommandError(f"--batch_size {batch_size} cannot be shared by {processes} processes: take a multiple of {enough}")
    if not LAUNCHER_HAS_STORE:
        raise CommandError("training in several processes needs PyTorch 2.5 or newer")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _together():
        attempt = _meet(rank, processes)
        store = dist.PrefixStore(attempt, _launcher_store())
        dist.init_process_group(backend, store=store, rank=rank, world_size=processes)
    yield
    dist.destroy_process_group()  # after an error it may wait for processes that have ended


def launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    return dist.get_rank() if num_processes() > 1 else 0


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(rows: Rows) -> Rows:
    """Return this process's part of a batch's rows: one of as many blocks as there are processes, equal if they can be."""
    return rows[len(rows) * rank() // num_processes() : len(rows) * (rank() + 1) // num_processes()]


def gather(rows: Tensor) -> Tensor:
    """Return all processes' rows, equally many each: the opposite of `share`."""
    parts = [rows]
    if num_processes() > 1:
        parts = [torch.empty_like(rows) for _ in range(num_processes())]
        with _together():
            dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def total(value: Tensor) -> Tensor:
    """Return the sum of the processes' values."""
    if num_processes() > 1:
        value = value.clone()
        with _together():
            dist.all_reduce(value)
    return value


def total_gradients(model: nn.Module, *values: Tensor | float) -> tuple[Tensor | float, ...]:
    """Replace each gradient by its sum over the processes, and return the sums of `values`, all in one message.

    The running statistics of batch normalisation, where each process has seen its share, are replaced by their means.
    """
    if num_processes() == 1:
        return values
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    scalars = [torch.as_tensor(value, dtype=gradients[0].dtype, device=gradients[0].device) for value in values]
    for buffer in statistics:
        buffer /= num_processes()
    tensors = [*gradients, *statistics, *(scalar.detach() for scalar in scalars)]
    message = total(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = [part.view(tensor.shape) for part, tensor in zip(message.split([tensor.numel() for tensor in tensors]), tensors)]
    for tensor, part in zip([*gradients, *statistics], parts):
        tensor.copy_(part)
    return tuple(parts[len(parts) - len(values) :])


def from_first(make: Callable[[], Any]) -> Any:
    """Return to every process what `make` returns in process 0, which alone calls it."""
    value = [make() if rank() == 0 else None]
    if num_processes() > 1:
        with _together():
            dist.broadcast_object_list(value)
    return value[0]


def by_first(function: Callable[..., None]) -> Callable[..., None]:
    """Let only process 0 call a function."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> None:
        if rank() == 0:
            function(*args, **kwargs)

    return called


@contextmanager
def first_goes_first() -> Iterator[None]:
    """Let process 0 through the block before the others: what it downloads or encodes they then find."""
    if rank() > 0:
        from_first(lambda: None)
    yield
    if rank() == 0:
        from_first(lambda: None)


def own_gpu(name: str) -> str:
    """Choose the GPU that is this process's alone, and return its name.

    Raises:
        CommandError: `name` is one GPU for all, or there are too few.
    """
    if num_processes() == 1:
        return name
    number = int(os.environ["LOCAL_WORLD_SIZE"])
    if name != "cuda":
        raise CommandError(f"--device {name} is one GPU for {number} processes: --device cuda gives one to each")
    if number > torch.cuda.device_count():
        raise CommandError(
            f"{number} processes on this machine need a GPU each, and it has {torch.cuda.device_count()}: "
            "start fewer (--nproc_per_node), or use --device cpu"
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # NCCL's, too
    return f"cuda:{os.environ['LOCAL_RANK']}"


def launcher() -> str:
    """Return what stands before the script in the command line that started it."""
    if not launched():
        return "python"
    processes, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return f"torchrun {'--standalone' if processes == here else f'--nnodes {processes // here}'} --nproc_per_node {here}"


def remember_run(path: Path) -> None:
    """Tell those that torchrun may start in our place, with the same command line, which folder to go on with."""
    if launched():
        _launcher_store().set(RUN_FOLDER, str(path))


def remembered_run() -> str | None:
    """Return the folder of the run that was begun under this torchrun and lost a process; None for a new run.

    Raises:
        CommandError: torchrun has started a script that does not share its work.
    """
    if not launched():
        return None
    if not dist.is_initialized():
        raise CommandError("this script trains in one process: start it with python")
    store = _launcher_store()
    return store.get(RUN_FOLDER).decode() if store.check([RUN_FOLDER]) else None


def first_to_fail(message: str) -> bool:
    """Whether to print why this process ends: the first to end does, once. The others have the same reason, or miss it."""
    if not launched():
        return True
    if not LAUNCHER_HAS_STORE:
        return os.environ["RANK"] == "0"
    try:
        add = _launcher_store().add
        return add(f"failures in {attempt}", 1) == 1 and add(f"failures: {message}", 1) == 1
    except RuntimeError:  # the launcher itself is gone
        return True


def leave(exit_code: int) -> None:
    """End a script, and a process of several at once, without the interpreter's own end.

    Threads of gloo's may outlive the group: after an error, and where an import within it (torch._dynamo) holds on to it. One
    that has yet to free a tensor needs the interpreter, and aborts the process if that has ended (SIGABRT, "terminate called
    without an active exception").
    """
    if launched():
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(exit_code)
    if exit_code:
        sys.exit(exit_code)


@cache
def _launcher_store() -> "dist.TCPStore":
    """The launcher's own store of keys and values, which outlives the processes that it starts."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False)


def _meet(rank: int, processes: int) -> str:
    """Return a name that the processes of this attempt agree on: the key under which they find each other.

    Processes that were lost have left theirs in the launcher's store (pytorch/pytorch#135712), and on several machines the
    number of restarts is not the same. So process 0 answers whoever is there, until all have had its answer.
    """
    store, name = _launcher_store(), uuid4().hex
    if rank > 0:
        store.set(f"process {rank}", name)
        attempt = store.get(f"attempt of {name}").decode()
        store.add(f"ready for {attempt}", 1)
    else:
        attempt = name
        while store.add(f"ready for {attempt}", 0) < processes - 1:
            for other in range(1, processes):
                if store.check([f"process {other}"]):
                    store.set(f"attempt of {store.get(f'process {other}').decode()}", attempt)
            time.sleep(0.01)
    return attempt


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        time.sleep(1)  # torchrun reports the process that it finds ended, looking ten times a second: not us, but the lost one
        reason = str(error).splitlines()[0].split(". ")[0]
        raise CommandError(f"the other processes cannot be reached: {reason}") from None
