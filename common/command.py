"""The command line: parser, argument types, and how a command ends.

`run_command(main)` is the last line of every script. A command that cannot go on ends with one line on stderr and an
exit code, never with a traceback (see `common/errors.py`). Of several processes one prints the line. The argument types
have bounds, so that what follows can count on numbers that float32, int64 and the random generators can hold.
"""

import argparse
import errno
import io
import math
import os
import shlex
import signal
import sys
import threading
import traceback
from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from common.distributed import exit_process, is_first_failure, launcher
from common.errors import CommandError
from common.interrupts import allow_interrupts, stop_with_experiment
from common.paths import ROOT, readable

LARGEST_INT = 2**31 - 1
SMALLEST_FLOAT, LARGEST_FLOAT = 1e-30, 1e30
# What PyTorch says, without a type of its own, where memory is short or a size is beyond all memory
OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Storage size calculation overflowed",
    "integer multiplication overflow",
    "Invalid buffer size",
)


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and whose help shows the defaults.

    Args:
        doc: the script's docstring; its first line describes the command.
    """

    def __init__(self, doc: str = ""):
        super().__init__(description=doc.split("\n")[0], formatter_class=_HelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (--help lists all arguments)")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default is None or action.default is False
        return action.help if unset else super()._get_help_string(action)


def add_run_arguments(parser: ArgumentParser, folder: str, device: bool = True) -> None:
    """Add what every training script takes: its run folder, by default under runs/`folder`/, and its device, if any."""
    add = parser.add_argument
    help_text = f"run folder, absent or empty at first; by default a new one under runs/{folder}/"
    add("--run_dir", "--summary_path", type=non_empty, help=help_text)
    add("--resume", action="store_true", help="continue the run in --run_dir, or else the last run of this name")
    if device:
        add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def positive_int(text: str) -> int:
    """Argument type: an integer of at least 1, and below 2^31."""
    return _integer(text, 1, LARGEST_INT)


def non_negative_int(text: str) -> int:
    """Argument type: an integer of at least 0, and below 2^31."""
    return _integer(text, 0, LARGEST_INT)


def seed_number(text: str) -> int:
    """Argument type: an integer of at least 0, and below 2^63."""
    return _integer(text, 0, 2**63 - 1)


def positive_float(text: str) -> float:
    """Argument type: a number from 1e-30 to 1e30, so that float32 can hold it and what is computed from it."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise ArgumentTypeError(f"must be a finite number above 0, not {text}")
    return _bounded(value, text)


def non_negative_float(text: str) -> float:
    """Argument type: 0, or a number from 1e-30 to 1e30."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise ArgumentTypeError(f"must be a finite number of at least 0, not {text}")
    return _bounded(value, text) if value else value


def fraction(text: str) -> float:
    """Argument type: a number of at least 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise ArgumentTypeError(f"must be at least 0 and below 1, not {text}")
    return value


def positive_fraction(text: str) -> float:
    """Argument type: a number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return value


def non_empty(text: str) -> str:
    """Argument type: a name or text; not the empty one of a shell's variable that is not set."""
    if not text:
        raise ArgumentTypeError("must not be empty")
    return text


def _integer(text: str, smallest: int, largest: int) -> int:
    value = int(text)
    if value < smallest:
        raise ArgumentTypeError(f"must be at least {smallest}, not {text}")
    if value > largest:
        raise ArgumentTypeError(f"must be at most {largest}, not {text}")
    return value


def _bounded(value: float, text: str) -> float:
    if not SMALLEST_FLOAT <= value <= LARGEST_FLOAT:
        raise ArgumentTypeError(f"must be from {SMALLEST_FLOAT:g} to {LARGEST_FLOAT:g}, not {text}")
    return value


def program() -> list[str]:
    """Return the words that name the running program, as they were typed: a script's path, or -m and a module."""
    spec = sys.modules["__main__"].__spec__  # None for a script
    if spec and spec.origin and Path(spec.origin).resolve() == Path(sys.argv[0]).resolve():
        return ["-m", spec.name]
    return [sys.argv[0]]


def command_line() -> str:
    """Return the running command as it was typed, for a shell in the repository's root: `cd part1 && python train.py`.

    It names no folder outside the repository: a script that was started from there appears as started from the root.
    """
    inside = Path.cwd().is_relative_to(ROOT)
    folder = Path.cwd() if inside else ROOT
    words = program()
    if words[0] != "-m":
        path = Path(words[0]).resolve()
        words = [os.path.relpath(path, folder) if path.is_relative_to(ROOT) else path.name]
    line = " ".join([launcher(), *map(shlex.quote, [*words, *sys.argv[1:]])])
    return line if folder == ROOT else f"cd {shlex.quote(os.path.relpath(folder, ROOT))} && {line}"


def run_command(main: Callable[[], None]) -> None:
    """Run a script's `main` and end the process with the right exit code, and at most one line on stderr.

    With the environment variable TRACEBACK=1 the line comes after Python's own traceback.
    """
    allow_interrupts()
    stop_with_experiment()
    threading.excepthook = _thread_excepthook
    _let_streams_take_any_text()
    message, exit_code = "", 0
    try:
        main()
        sys.stdout.flush()
    except Exception as error:
        if os.environ.get("TRACEBACK") == "1":
            traceback.print_exc()
        message, exit_code = _ending(error)
    except KeyboardInterrupt:
        message, exit_code = "interrupted", 128 + signal.SIGINT
    except SystemExit:  # after --help
        drop_output()
        raise
    if message and is_first_failure(message):
        with suppress(OSError):
            print(f"{os.path.basename(sys.argv[0])}: {readable(message)}", file=sys.stderr, flush=True)
    exit_process(exit_code)


def _ending(error: Exception) -> tuple[str, int]:
    """Return the line that says why a command ends, and its exit code."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, CommandError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        drop_output()
        if isinstance(error, BrokenPipeError):  # nobody reads our output any more, as in `... | head`
            return "", 0
        # What is written to a file of ours names it.
        where = error.filename or ("its output" if error.errno in (errno.ENOSPC, errno.EIO) else "")
        return str(error.strerror or error) + (f": {where}" if where else ""), 2
    if isinstance(error, ModuleNotFoundError):
        return str(error), 2
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return f"there is not enough memory for this ({reason}): take smaller sizes or shorter inputs", 2
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"unexpected {type(error).__name__}: {reason} ({os.path.basename(place.filename)}, line {place.lineno}); "
        "TRACEBACK=1 in the environment shows where it comes from"
    ), 1


def _let_streams_take_any_text() -> None:
    """Let stdout and stderr escape what their encoding lacks, where Python would raise; if closed, swallow it all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """If stdout takes no more, let what is left go nowhere, so that Python does not end with an error of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _thread_excepthook(args: threading.ExceptHookArgs) -> None:
    """Ignore an OSError in TensorBoard's writer thread: the main thread meets the same error and reports it."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


class StopRequest:
    """Within the `with` block Ctrl-C and SIGTERM only set `signal_number`, so that a loop can stop between two steps.

    A second Ctrl-C interrupts at once. A second SIGTERM does not, since clusters send several.
    """

    def __enter__(self) -> "StopRequest":
        self.signal_number = 0
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
