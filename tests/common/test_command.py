"""The command line: argument types, how a command ends, and how it names itself."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.command import (
    ArgumentParser,
    StopRequest,
    command_line,
    fraction,
    non_empty,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_fraction,
    positive_int,
    run_command,
    seed_number,
)
from common.errors import CommandError, InputError
from common.paths import ROOT
from tests.harness import POSIX


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (CommandError("no such model"), 2, "no such model"),
        (CommandError("diverged", exit_code=1), 1, "diverged"),
        (OSError(28, "No space left on device", "x.pt"), 2, "No space left on device: x.pt"),
        (OSError("no reason"), 2, "no reason"),
        (InputError("the text is empty"), 2, "the text is empty"),
        (FileNotFoundError("a.txt does not exist"), 2, "a.txt does not exist"),
        (ModuleNotFoundError("molecules need rdkit"), 2, "molecules need rdkit"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_run_command_ends_in_one_line(error, exit_code, line, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: raises(error))
    assert stop.value.code == exit_code
    assert capsys.readouterr().err.endswith(f": {line}\n")


@pytest.mark.parametrize(
    ("bug", "reason"),
    [
        (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError: division by zero"),
        (ValueError("shapes\ndo not match"), "unexpected ValueError: shapes"),
        (ImportError(), "unexpected ImportError: ImportError"),
    ],
)
def test_a_bug_is_one_line_and_its_traceback_can_be_had(bug, reason, capsys, monkeypatch):
    for wanted in ("0", "1"):
        monkeypatch.setenv("TRACEBACK", wanted)
        with pytest.raises(SystemExit) as stop:
            run_command(lambda: raises(bug))
        printed = capsys.readouterr().err
        *before, last = printed.splitlines()
        assert stop.value.code == 1
        assert f"{reason} (test_command.py, line " in last and "TRACEBACK=1 in the environment" in last
        assert ("Traceback" in printed) is (wanted == "1") and bool(before) is (wanted == "1")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(2**31 - 1, 2**31 - 1, 2**31 - 1),
        lambda: torch.empty(2**45, dtype=torch.float64),
        lambda: torch.zeros(2**40) + torch.zeros(2**40),
        lambda: np.zeros(2**50),
        lambda: bytearray(2**50),
    ],
)
def test_too_little_memory_is_one_line(make, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: make() and None)
    assert stop.value.code == 2 and "there is not enough memory for this" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["two\nlines", "a\x1b[31mred", "\udcff.txt", "\x9b2J", "a\u2028b", "bell\a"])
def test_a_message_stays_on_its_line(text, capsys):
    with pytest.raises(SystemExit):
        run_command(lambda: raises(CommandError(text)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


OUTPUT = "from common.command import run_command\nrun_command(lambda: print({}))"


def output_of(text, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("environment", {})}
    command = [sys.executable, "-c", OUTPUT.format(text)]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=60, **options)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_any_text_can_be_printed(encoding):
    done = output_of(r"'é日\udcff'", stdout=subprocess.PIPE, environment={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.decode(encoding).strip() == "é日\udcff".encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_output_to_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = output_of("'x'", stdout=full)
    assert (done.returncode, done.stderr) == (2, b"-c: No space left on device: its output\n")


@POSIX
def test_output_that_nobody_reads_or_that_is_closed_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = output_of("'x' * 10**6", stdout=writer)
    assert (done.returncode, done.stderr) == (0, b"")
    done = output_of("'x'", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, b"")


@POSIX
def test_ctrl_c_during_imports_is_one_line():
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell switches it off for what runs in the background
from common.interrupts import exit_on_interrupt
exit_on_interrupt()
os.kill(os.getpid(), signal.SIGINT)
import torch
print("not reached")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "-c: interrupted\n")


def test_an_input_error_is_a_value_error_for_who_calls_from_python():
    with pytest.raises(ValueError, match="the text is empty"):
        raises(InputError("the text is empty"))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (positive_int, {"1": 1, "2147483647": 2**31 - 1}, ["0", "-1", "1.5", "x", "", "2147483648", "9" * 5000]),
        (non_negative_int, {"0": 0}, ["-1", "x", "2147483648"]),
        (seed_number, {"0": 0, "9223372036854775807": 2**63 - 1}, ["-1", "x", "9223372036854775808", "9" * 40]),
        (positive_float, {"1e-3": 0.001, "1e30": 1e30}, ["0", "-1", "nan", "inf", "x", "1e308", "1e31", "1e-320"]),
        (non_negative_float, {"0": 0.0, "2.5": 2.5}, ["-1", "nan", "inf", "x", "1e-320", "1e39"]),
        (fraction, {"0": 0.0, "0.5": 0.5}, ["1", "-0.1", "nan", "x"]),
        (positive_fraction, {"1": 1.0, "0.5": 0.5}, ["0", "1.1", "nan", "x"]),
        (non_empty, {"a b": "a b"}, [""]),
    ],
)
def test_argument_types(kind, good, bad):
    parser = ArgumentParser()
    parser.add_argument("--value", type=kind)
    for text, value in good.items():
        assert parser.parse_args([f"--value={text}"]).value == value
    for text in bad:
        with pytest.raises(CommandError, match="argument --value"):
            parser.parse_args([f"--value={text}"])


def test_help_shows_the_first_line_of_the_docstring_and_the_defaults():
    parser = ArgumentParser("Train a model.\n\nMore about it.")
    parser.add_argument("--size", default=3, help="number of units")
    parser.add_argument("--name", help="name of the run")
    text = parser.format_help()
    assert "Train a model." in text and "More about it" not in text
    assert "number of units (default: 3)" in text and "None" not in text


def test_a_second_ctrl_c_interrupts_but_not_a_second_sigterm():
    with StopRequest() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-m", "package.module"], "python -m package.module --name 'two words'"),
        (
            ["package/module.py"],
            "python module.py --name 'two words'",
        ),  # outside the repository: no path of the machine
    ],
)
def test_the_command_line_of_a_module_and_of_a_script(tmp_path, words, line):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("from common.command import command_line; print(command_line())")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words, "--name", "two words"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == line + "\n", done.stderr


def test_the_command_line_of_a_script_of_the_repository(monkeypatch):
    """Relative to the root, from wherever it was started; this process runs a module, but not that of argv."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / "part1" / "train.py"), "--input_length", "5"])
    assert command_line() == "python part1/train.py --input_length 5"
