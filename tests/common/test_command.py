"""The command line: argument types, how a command ends, and how it names itself."""

import os
import signal
import subprocess
import sys

import pytest

from common.command import (
    ArgumentParser,
    StopRequest,
    command_line,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.errors import CommandError, InputError
from common.paths import ROOT


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


@pytest.mark.parametrize("bug", [ZeroDivisionError(), ValueError("shapes do not match"), ImportError("a circle")])
def test_run_command_hides_no_bug(bug):
    with pytest.raises(type(bug)):
        run_command(lambda: raises(bug))


def test_an_input_error_is_a_value_error_for_who_calls_from_python():
    with pytest.raises(ValueError, match="the text is empty"):
        raises(InputError("the text is empty"))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (positive_int, {"1": 1, "12": 12}, ["0", "-1", "1.5", "x"]),
        (non_negative_int, {"0": 0}, ["-1", "x"]),
        (positive_float, {"1e-3": 0.001}, ["0", "-1", "nan", "inf", "x"]),
        (non_negative_float, {"0": 0.0, "2.5": 2.5}, ["-1", "nan", "inf", "x"]),
        (fraction, {"0": 0.0, "0.5": 0.5}, ["1", "-0.1", "nan", "x"]),
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
