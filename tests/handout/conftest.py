"""Points the probes of this folder at a solution of the assignment: `pytest tests/handout --submission DIR`.

The probes know only the names that the handouts fix, so they judge any solution; without the option, this repository's.
DIR holds `part1/`, `part2/`, ... or is such a folder itself. For each part there are `probes_<part>.py`, plain
functions whose docstrings say what must hold, and `test_<part>.py`, which runs each in a process of its own
(`runner.py`): whatever a solution does, crash, exit or never return, it fails that one probe, with a reason.

pytest learns the two options only where `tests/handout` (or a file in it) is named on its command line.
"""

import inspect
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_addoption(parser):
    parser.addoption("--submission", type=Path, help="folder of the solution to probe (default: this repository)")
    parser.addoption(
        "--probe_timeout", type=float, default=120, help="seconds that a probe may take (default: %(default)s)"
    )


def pytest_configure(config):
    submission = config.getoption("--submission", default=None)
    if submission and not submission.is_dir():
        raise pytest.UsageError(f"--submission {submission}: there is no such folder")


def pytest_generate_tests(metafunc):
    """Run a test that takes a `probe` once for each of its part's probes, and for each model if the probe takes one."""
    if "probe" in metafunc.fixturenames:
        part = Path(metafunc.module.__file__).stem.removeprefix("test_")
        probes = runpy.run_path(str(HERE / f"probes_{part}.py"))
        calls = [
            (part, name, *arguments)
            for name, function in probes.items()
            if inspect.isfunction(function) and not name.startswith("_")
            for arguments in (
                [[model] for model in probes["MODELS"]] if inspect.signature(function).parameters else [[]]
            )
        ]
        metafunc.parametrize("probe", calls, ids=["-".join(call[1:]) for call in calls])


@pytest.fixture
def run_probe(pytestconfig):
    """A function that runs one probe and returns what it found: "passed", or the reason why not."""
    default_submission = pytestconfig.getoption("--submission", default=None) or HERE.parents[1]
    default_timeout = pytestconfig.getoption("--probe_timeout", default=120)

    def run_probe(part, probe, *arguments, submission=default_submission, timeout=default_timeout):
        folder = submission.resolve()
        folder = folder / part if (folder / part).is_dir() else folder
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            verdict = Path(scratch, "verdict.txt")
            command = [
                sys.executable,
                "-B",
                HERE / "runner.py",
                folder,
                HERE / f"probes_{part}.py",
                verdict,
                probe,
                *arguments,
            ]
            silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            process = subprocess.Popen(command, cwd=scratch, start_new_session=True, **silent)
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                return f"no answer within {timeout:g} s"
            finally:  # whatever it has started ends with it
                if os.name == "posix":
                    with suppress(OSError):
                        os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.wait()
            return (
                verdict.read_text(encoding="utf-8")
                if verdict.exists()
                else f"died without an answer, exit status {status}"
            )

    return run_probe
