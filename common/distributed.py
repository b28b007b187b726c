"""Several processes that train one model, started by PyTorch's own launcher, on one machine or many.

    torchrun --standalone --nproc_per_node 2 part2/train.py ...

Every process holds the whole model and computes on its shard of each batch. The loss of a shard is its share of the
batch's mean, so that losses and gradients, summed over the processes, are those of one process with the whole batch:
all processes take the same step and stay equal. Only process 0 reads and writes the run folder. A script that torchrun
did not start is one process whose shard is the whole batch; there the functions below have nothing to do.

The processes communicate with torch.distributed: gloo between CPUs, NCCL between GPUs.
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
attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")  # until the processes have agreed on a name, see _rendezvous


@contextmanager
def process_group(batch_size: int, shard_size: int = 1) -> Iterator[None]:
    """Let the processes that torchrun started train together within the block.

    Raises:
        CommandError: the batch cannot be divided into equal shards of at least `shard_size` rows.
    """
    global attempt
    if not is_torchelastic_launched():
        yield
        return
    processes = int(os.environ["WORLD_SIZE"])
    if batch_size % processes or batch_size < shard_size * processes:
        multiple = f"{processes}, at least {shard_size * processes}" if shard_size > 1 else processes
        raise CommandError(
            f"--batch_size {batch_size} cannot be divided among {processes} processes: take a multiple of {multiple}"
        )
    if not LAUNCHER_HAS_STORE:
        raise CommandError("training in several processes needs PyTorch 2.5 or newer")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _named_errors():
        attempt = _rendezvous(int(os.environ["RANK"]), processes)
        store = dist.PrefixStore(attempt, _launcher_store())
        dist.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=processes)
    yield
    dist.destroy_process_group()  # not after an error: it might wait for processes that have ended


def is_torchelastic_launched() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's number, counted from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shard(rows: Rows) -> Rows:
    """Return this process's shard of a batch's rows: one of `world_size` blocks of equal size (or almost equal)."""
    start = len(rows) * rank() // world_size()
    end = len(rows) * (rank() + 1) // world_size()
    return rows[start:end]


def all_gather(rows: Tensor) -> Tensor:
    """Return the rows of all processes in their order, where each has equally many: the inverse of `shard`."""
    parts = [rows]
    if world_size() > 1:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        with _named_errors():
            dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def all_reduce(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes."""
    if world_size() > 1:
        value = value.clone()
        with _named_errors():
            dist.all_reduce(value)
    return value


def all_reduce_gradients(model: nn.Module, *values: Tensor | float) -> tuple[Tensor, ...]:
    """Replace each gradient by its sum over the processes and return the sums of `values`, all with one message.

    The running statistics of batch normalisation, which each process has for its shard, are replaced by their means.
    """
    if world_size() == 1:
        return tuple(torch.as_tensor(value) for value in values)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    scalars = [torch.as_tensor(value, dtype=gradients[0].dtype, device=gradients[0].device) for value in values]
    for buffer in statistics:
        buffer /= world_size()
    tensors = [*gradients, *statistics, *(scalar.detach() for scalar in scalars)]
    message = all_reduce(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = message.split([tensor.numel() for tensor in tensors])
    sums = [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]
    replaced = [*gradients, *statistics]
    for tensor, total in zip(replaced, sums):
        tensor.copy_(total)
    return tuple(sums[len(replaced) :])


def broadcast_from_rank_zero(make: Callable[[], Any]) -> Any:
    """Call `make` in process 0 only, and return its result in every process."""
    value = [make() if rank() == 0 else None]
    if world_size() > 1:
        with _named_errors():
            dist.broadcast_object_list(value)
    return value[0]


def rank_zero_only(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a function that only process 0 is to call; in the other processes it does nothing."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> None:
        if rank() == 0:
            function(*args, **kwargs)

    return called


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Let process 0 execute the block before the others, which then find the files that it has made."""
    if rank() > 0:
        broadcast_from_rank_zero(lambda: None)
    yield
    if rank() == 0:
        broadcast_from_rank_zero(lambda: None)


def local_cuda_device(name: str) -> str:
    """Return the name of this process's own GPU; `name` unchanged if there is only one process.

    Raises:
        CommandError: `name` is one GPU for all processes, or there are too few GPUs.
    """
    if world_size() == 1:
        return name
    number = int(os.environ["LOCAL_WORLD_SIZE"])
    if name != "cuda":
        raise CommandError(f"--device {name} is one GPU for {number} processes: --device cuda gives one to each")
    if number > torch.cuda.device_count():
        raise CommandError(
            f"{number} processes on this machine need a GPU each, but it has {torch.cuda.device_count()}: "
            "start fewer (--nproc_per_node), or use --device cpu"
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # NCCL communicates from the current device
    return f"cuda:{os.environ['LOCAL_RANK']}"


def launcher() -> str:
    """Return the words before the script in the command that started it: "python", or torchrun with its options."""
    if not is_torchelastic_launched():
        return "python"
    processes, processes_here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    machines = "--standalone" if processes == processes_here else f"--nnodes {processes // processes_here}"
    return f"torchrun {machines} --nproc_per_node {processes_here}"


def store_run_folder(path: Path) -> None:
    """Keep the run folder's path in torchrun's store, for processes that it starts anew after one was lost."""
    if is_torchelastic_launched():
        _launcher_store().set(RUN_FOLDER, str(path))


def stored_run_folder() -> str | None:
    """Return the folder of a run that was begun under this torchrun and lost a process; None for a new run.

    Raises:
        CommandError: torchrun has started a script that trains in one process only.
    """
    if not is_torchelastic_launched():
        return None
    if not dist.is_initialized():
        raise CommandError("this script trains in one process: start it with python")
    store = _launcher_store()
    return store.get(RUN_FOLDER).decode() if store.check([RUN_FOLDER]) else None


def is_first_failure(message: str) -> bool:
    """Return whether this process is to print why it ends.

    Only the first to fail does: the others fail for the same reason, or because they have lost the first.
    """
    if not is_torchelastic_launched():
        return True
    if not LAUNCHER_HAS_STORE:
        return os.environ["RANK"] == "0"
    try:
        add = _launcher_store().add
        return add(f"failures in {attempt}", 1) == 1 and add(f"failures: {message}", 1) == 1
    except RuntimeError:  # the launcher itself is gone
        return True


def exit_process(exit_code: int) -> None:
    """End a script; a process that torchrun started ends at once, without the interpreter's own shutdown.

    Threads of gloo may outlive the process group, after an error or because an import within the group (torch._dynamo)
    keeps a reference to it. A thread that still has a tensor to free needs the interpreter, and aborts the process if
    that has ended (SIGABRT, "terminate called without an active exception").
    """
    if is_torchelastic_launched():
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(exit_code)
    if exit_code:
        sys.exit(exit_code)


@cache
def _launcher_store() -> "dist.TCPStore":
    """Return the launcher's own key-value store, which outlives the processes that it starts."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False)


def _rendezvous(rank: int, processes: int) -> str:
    """Return a name for this attempt that all its processes know: the prefix of their keys in the launcher's store.

    Processes that were lost have left their keys there (pytorch/pytorch#135712), and with several machines the number
    of restarts differs. So process 0 answers every process that asks, until all of them have its answer.
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
def _named_errors() -> Iterator[None]:
    """Turn the error of a lost connection within the block into a CommandError."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(1)  # torchrun checks ten times a second which process has ended: let it find the lost one first
        reason = str(error).splitlines()[0].split(". ")[0]
        raise CommandError(f"the other processes cannot be reached: {reason}") from None
