"""Which way a training takes, and that a resumed run keeps it."""

import json
import sys

import pytest
import torch

import part1.train
import part2.train
from common.paths import ROOT
from recurrence import gpu, kernel
from recurrence.choice import RECURRENCES, choose_recurrence
from tests.harness import assert_same_run

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILED = {"name": "compiled", "kernel": kernel.version()}


@pytest.fixture
def available(monkeypatch):
    monkeypatch.setattr(gpu, "is_available", lambda device: False)
    monkeypatch.setattr(kernel, "why_not", lambda: None)


@pytest.fixture
def unavailable(monkeypatch):
    monkeypatch.setattr(kernel, "why_not", lambda: "no compiler")


def test_auto_is_the_fastest_there_is(available):
    assert choose_recurrence("auto", RECURRENCES, CPU) == COMPILED
    assert choose_recurrence("auto", RECURRENCES, CUDA) == {"name": "bptt"}
    assert choose_recurrence("auto", ("loop", "bptt"), CPU) == {"name": "bptt"}
    assert choose_recurrence("auto", ("numpy",), CPU) == {"name": "numpy"}
    assert choose_recurrence("loop", RECURRENCES, CPU) == {"name": "loop"}


def test_auto_on_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "is_available", lambda device: device == CUDA)
    assert choose_recurrence("auto", RECURRENCES, CUDA) == {"name": "triton", "kernel": gpu.version()}
    with pytest.raises(ValueError, match="recurrence compiled: it is for CPUs, and the device is cuda"):
        choose_recurrence("compiled", RECURRENCES, CUDA)
    with pytest.raises(ValueError, match="recurrence triton: it needs Triton and an NVIDIA GPU, and the device is cpu"):
        choose_recurrence("triton", RECURRENCES, CPU)


def test_auto_without_the_kernel(unavailable):
    assert choose_recurrence("auto", RECURRENCES, CPU) == {"name": "bptt"}
    with pytest.raises(ValueError, match="recurrence compiled: no compiler"):
        choose_recurrence("compiled", RECURRENCES, CPU)


def test_what_a_model_does_not_have():
    with pytest.raises(ValueError, match="the recurrence is auto, loop or bptt, not compiled"):
        choose_recurrence("compiled", ("loop", "bptt"), CPU)


def test_a_resumed_run_keeps_its_way(available):
    assert choose_recurrence("auto", RECURRENCES, CPU, {"name": "bptt"}) == {"name": "bptt"}
    assert choose_recurrence("auto", RECURRENCES, CPU, COMPILED) == COMPILED
    assert choose_recurrence("compiled", RECURRENCES, CPU, COMPILED) == COMPILED
    with pytest.raises(ValueError, match="begun with recurrence bptt: resume it with that, not with loop"):
        choose_recurrence("loop", RECURRENCES, CPU, {"name": "bptt"})
    with pytest.raises(ValueError, match="begun with version 0123 of the compiled recurrence, and this is"):
        choose_recurrence("auto", RECURRENCES, CPU, {"name": "compiled", "kernel": "0123"})


def test_a_resumed_run_whose_kernel_is_gone(unavailable):
    with pytest.raises(ValueError, match="the run was begun with recurrence compiled: no compiler"):
        choose_recurrence("auto", RECURRENCES, CPU, COMPILED)


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
        monkeypatch.setattr(kernel, "why_not", lambda: None if with_kernel else "no compiler")
        monkeypatch.chdir(ROOT)
        folder = str(tmp_path / folder)
        monkeypatch.setattr(sys, "argv", ["train.py", *words, "--train_steps", str(steps), "--run_dir", folder, *more])
        script.main()

    compiled = begun == "compiled"
    train("whole", 20, with_kernel=compiled)
    train("resumed", 10, with_kernel=compiled)
    if compiled:
        with pytest.raises(ValueError, match="the run was begun with recurrence compiled: no compiler"):
            train("resumed", 20, "--resume", with_kernel=False)
    train("resumed", 20, "--resume", with_kernel=True)
    assert_same_run(tmp_path / "resumed", tmp_path / "whole")
    expected = COMPILED if compiled else {"name": "bptt"}
    for name in ("config.json", "result.json"):
        assert json.loads((tmp_path / "whole" / name).read_text())["recurrence"] == expected
    checkpoint = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    assert checkpoint["recurrence"] == expected and "recurrence" not in checkpoint["arguments"]
