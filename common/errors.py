"""How a command ends when it cannot go on: one line on stderr and an exit code, never a traceback.

`run_command(main)` is the last line of every script. Exit codes: 0 done, 1 the training diverged, 2 the user's input or the
machine stands in the way, 128 + signal number (130 for Ctrl-C) stopped from outside. Of several processes one prints the line.
"""

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType


class CommandError(Exception):
    """The command cannot go on; the message says in one line why, and what to do."""

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


class ArgumentParser(argparse.ArgumentParser):
    """argparse, with its complaints cut to one line."""

    def error(self, message: str):
        raise CommandError(f"{message} (--help lists all arguments)")


def positive_int(text: str) -> int:
    """Argument type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def non_negative_int(text: str) -> int:
    """Argument type: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, not {text}")
    return value


def non_negative_float(text: str) -> float:
    """Argument type: a finite number of at least 0."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, not {text}")
    return value


def fraction(text: str) -> float:
    """Argument type: a number of at least 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, not {text}")
    return value


def run_command(main: Callable[[], None]) -> None:
    """Run a script's `main` and leave the process with the right exit code."""
    threading.excepthook = _thread_excepthook
    try:
        main()
    except CommandError as error:
        message, exit_code = str(error), error.exit_code
    except KeyboardInterrupt:
        message, exit_code = "interrupted", 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has left, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message, exit_code = "", 0
    except OSError as error:
        message, exit_code = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 2
    else:
        message, exit_code = "", 0
    from common.distributed import first_to_fail, leave  # which imports this module

    if message and first_to_fail(message):
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr, flush=True)
    leave(exit_code)


def _thread_excepthook(args: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread of its own; where that fails, the main thread meets the same error and reports it."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


class StopRequest:
    """Within the `with` block Ctrl-C and SIGTERM only set `signal_number`; the loop stops itself between two steps.

    A second Ctrl-C interrupts at once; a second SIGTERM, which clusters send, does not.
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
