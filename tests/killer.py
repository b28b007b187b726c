"""Train while being killed again and again, and print how often.

    python -m tests.killer MODULE MODE FOLDER ARGUMENTS...

MODULE has a function `main` that trains; it is called with ARGUMENTS in children of this process, which imports
everything once and forks for each training, so that many kills take little time. MODE is one of:

* write: a training in FOLDER/k kills itself at its k-th durable write and is resumed to its end, for k = 1, 2, ...
  until one ends before that write.
* random: a training in FOLDER is killed at random moments and resumed, 40 times, and then runs to its end. A kill only
  counts if the killed training had found a checkpoint.
"""

import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable

import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

import common.figure  # noqa: F401

Main = Callable[[], None]
NUM_RANDOM_KILLS = 40


def main() -> None:
    module, mode, folder, *words = sys.argv[1:]
    kill = {"write": kill_at_every_write, "random": kill_at_random_moments}[mode]
    print(kill(importlib.import_module(module).main, folder, words))


def kill_at_every_write(training: Main, folder: str, words: list[str]) -> int:
    kills = 0
    while was_killed(fork(training, f"{folder}/{kills + 1}", words, kill_at_write=kills + 1)):
        kills += 1
        was_killed(fork(training, f"{folder}/{kills}", words))
    return kills


def kill_at_random_moments(training: Main, folder: str, words: list[str]) -> int:
    random.seed(0)
    longest = 0.4 + 2 * seconds_to_checkpoint(training, f"{folder}-timed", words)
    kills = 0
    for _ in range(NUM_RANDOM_KILLS):
        had_checkpoint = os.path.exists(f"{folder}/checkpoint.pt")
        child = fork(training, folder, words)
        time.sleep(random.uniform(0.05, longest))
        os.kill(child, signal.SIGKILL)
        if was_killed(child) and had_checkpoint:
            kills += 1
    was_killed(fork(training, folder, words))
    return kills


def seconds_to_checkpoint(training: Main, folder: str, words: list[str]) -> float:
    """Return how long a training takes to its first checkpoint, at most 60 s: long on a busy machine."""
    began = time.monotonic()
    child = fork(training, folder, words)
    while not os.path.exists(f"{folder}/checkpoint.pt") and time.monotonic() < began + 60:
        time.sleep(0.01)
    seconds = time.monotonic() - began
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return seconds


def fork(training: Main, folder: str, words: list[str], kill_at_write: int = 0) -> int:
    """Train in a child, which resumes the run if the folder exists, and return the child's process id."""
    sys.argv = ["train.py", *words, "--run_dir", folder]
    if os.path.isdir(folder):
        sys.argv.append("--resume")
    child = os.fork()
    if child:
        return child
    count_writes(kill_at_write)
    training()
    os._exit(0)


def count_writes(kill_at_write: int) -> None:
    """Let this process kill itself before its `kill_at_write`-th call of os.fsync or os.replace."""
    calls = 0

    def counted(write: Callable[..., None]) -> Callable[..., None]:
        def count_and_write(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls == kill_at_write:
                os.kill(os.getpid(), signal.SIGKILL)
            write(*arguments)

        return count_and_write

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def was_killed(child: int) -> bool:
    """Wait for a child and return whether it was killed; where it failed, end as it did."""
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        sys.exit(os.WEXITSTATUS(status))
    return False


if __name__ == "__main__":
    main()
