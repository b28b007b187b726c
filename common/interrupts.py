"""When a script ends from outside before it has begun to train: Ctrl-C while it imports, the end of its experiment.

PyTorch and the like take seconds to import. Scripts call `exit_on_interrupt()` before that; `run_command` then calls
`allow_interrupts()` and `stop_with_experiment()`.
"""

import ctypes
import os
import signal
import sys
from types import FrameType

EXPERIMENT = "EXPERIMENT_PROCESS"  # in a run's environment: the number of the process that has started it
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def exit_on_interrupt() -> None:
    """Let Ctrl-C end the process at once (not where whoever started it has switched Ctrl-C off)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def allow_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_with_experiment() -> None:
    """Let a run stop, with a checkpoint, when the experiment that has started it is gone (on Linux)."""
    parent = os.environ.pop(EXPERIMENT, None)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was gone before
        os.kill(os.getpid(), signal.SIGTERM)


def _exit(number: int, _: FrameType | None) -> None:
    os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode(errors="backslashreplace"))
    os._exit(128 + number)
