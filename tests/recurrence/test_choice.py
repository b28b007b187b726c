"""Which way a training takes, and that a resumed run keeps it."""

import json
import sys

import pytest
import torch

import part1.train
import part2.train
from common.paths import ROOT
from recurrence import kernel
from recurrence.choice import choose_recurrence
from tests.harness import assert_same_run

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LSTM, RNN = ("loop", "bptt", "compiled"), ("loop", "bptt")
COMPILED = {"name": "compiled", "kernel": kernel.version()}


@pytest.fixture
def available(monkeypatch):
    monkeypatch.setattr(kernel, "is_available", lambda: True)


@pytest.fixture
def unavailable(monkeypatch):
    monkeypatch.setattr(kernel, "is_available", lambda: False)


def test_auto_is_the_fastest_there_is(available):
    assert choose_recurrence("auto", LSTM, CPU) == COMPILED
    assert choose_recurrence("auto", LSTM, CUDA) == {"name": "bptt"}
    assert choose_recurrence("auto", RNN, CPU) == {"name": "bptt"}
    assert choose_recurrence("auto", ("numpy",), CPU) == {"name": "numpy"}
    assert choose_recurrence("loop", LSTM, CPU) == {"name": "loop"}


def test_auto_without_the_kernel(unavailable):
    assert choose_recurrence("auto", LSTM, CPU) == {"name": "bptt"}
    with pytest.raises(ValueError, match="asks for the compiled recurrence, which is not available here: python -m"):
        choose_recurrence("compiled", LSTM, CPU)


def test_what_a_model_does_not_have():
    with pytest.raises(ValueError, match="recurrence compiled: this model has loop, bptt"):
        choose_recurrence("compiled", RNN, CPU)


def test_a_resumed_run_keeps_its_way(available):
    assert choose_recurrence("auto", LSTM, CPU, {"name": "bptt"}) == {"name": "bptt"}
    assert choose_recurrence("auto", LSTM, CPU, COMPILED) == COMPILED
    assert choose_recurrence("compiled", LSTM, CPU, COMPILED) == COMPILED
    with pytest.raises(ValueError, match="begun with recurrence bptt: resume it with that, not with loop"):
        choose_recurrence("loop", LSTM, CPU, {"name": "bptt"})
    with pytest.raises(ValueError, match="begun with version 0123 of the compiled recurrence, and this is"):
        choose_recurrence("auto", LSTM, CPU, {"name": "compiled", "kernel": "0123"})


def test_a_resumed_run_whose_kernel_is_gone(unavailable):
    with pytest.raises(ValueError, match="was begun with the compiled recurrence, which is not available here"):
        choose_recurrence("auto", LSTM, CPU, COMPILED)


SMALL = ["--batch_size", "8", "--eval_every", "10"]
SCRIPTS = {
    "part1": (part1.train, ["--model_type", "LSTM", "--input_length", "4", "--num_hidden", "8", *SMALL]),
    "part2": (part2.train, ["--txt_file", "LICENSE", "--lstm_num_hidden", "8", "--sample_every", "5", *SMALL]),
}


@pytest.mark.parametrize("part", SCRIPTS)
@pytest.mark.parametrize("begun", ["bptt", "compiled"])
def test_a_kernel_compiled_or_lost_in_between_changes_no_bit(part, begun, tmp_path, monkeypatch, compiled_kernel):
    """A run begun without the kernel goes on without it, though it is there now; one begun with it needs it."""
    script, words = SCRIPTS[part]

    def train(folder, steps, *more, with_kernel):
        monkeypatch.setattr(kernel, "is_available", lambda: with_kernel)
        monkeypatch.chdir(ROOT)
        folder = str(tmp_path / folder)
        monkeypatch.setattr(sys, "argv", ["train.py", *words, "--train_steps", str(steps), "--run_dir", folder, *more])
        script.main()

    compiled = begun == "compiled"
    train("whole", 20, with_kernel=compiled)
    train("resumed", 10, with_kernel=compiled)
    if compiled:
        with pytest.raises(ValueError, match="was begun with the compiled recurrence, which is not available here"):
            train("resumed", 20, "--resume", with_kernel=False)
    train("resumed", 20, "--resume", with_kernel=True)
    assert_same_run(tmp_path / "resumed", tmp_path / "whole")
    expected = COMPILED if compiled else {"name": "bptt"}
    for name in ("config.json", "result.json"):
        assert json.loads((tmp_path / "whole" / name).read_text())["recurrence"] == expected
    checkpoint = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    assert checkpoint["recurrence"] == expected and "recurrence" not in checkpoint["arguments"]
