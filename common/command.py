"""The command line: parser, argument types, and how a command ends.

`run_command(main)` is the last line of every script. A command that cannot go on ends with one line on stderr and an
exit code, never with a traceback (see `common/errors.py`). Of several processes one prints the line.
"""

import argparse
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from common.distributed import exit_process, is_first_failure, launcher
from common.errors import CommandError
from common.paths import ROOT


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
    add("--run_dir", "--summary_path", help=f"run folder; by default a new one under runs/{folder}/")
    add("--resume", action="store_true", help="continue the run in --run_dir, or else the last run of this name")
    if device:
        add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


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
    """Run a script's `main` and end the process with the right exit code."""
    threading.excepthook = _thread_excepthook
    try:
        main()
    except CommandError as error:
        message, exit_code = str(error), error.exit_code
    except KeyboardInterrupt:
        message, exit_code = "interrupted", 128 + signal.SIGINT
    except BrokenPipeError:  # nobody reads our output any more, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message, exit_code = "", 0
    except OSError as error:
        message, exit_code = str(error.strerror or error), 2
        if error.filename:
            message += f": {error.filename}"
    except ModuleNotFoundError as error:
        message, exit_code = str(error), 2
    else:
        message, exit_code = "", 0
    if message and is_first_failure(message):
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr, flush=True)
    exit_process(exit_code)


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
