"""Run folders: new, resumed or refused; what config.json, the logs and a checkpoint hold."""

import functools
import json
import time
from argparse import Namespace

import pytest
import torch

from common.errors import CommandError
from common.run_folder import RunFolder, load_checkpoint, read_metrics
from tests.harness import tensorboard_losses


def arguments(run_dir, resume=False, **others):
    return Namespace(run_dir=str(run_dir), resume=resume, **{"size": 3, **others})


def trained(run_dir, steps=1, **options):
    """A folder with a run of so many steps, each with a checkpoint."""
    with RunFolder(arguments(run_dir), "part/run", ("loss",), **options) as run:
        for step in range(1, steps + 1):
            run.log(step, loss=1 / step)
            run.save_checkpoint(step, state={})
    return run


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 nor a zip"])
def test_load_checkpoint_refuses_other_files(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "x.pt")


def test_load_checkpoint_notices_a_flipped_bit_in_the_weights(tmp_path):
    torch.save({"step": 1, "arguments": {}, "model": torch.full((1000,), 7.0)}, tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt")["step"] == 1
    content = bytearray((tmp_path / "x.pt").read_bytes())
    content[content.index(torch.full((10,), 7.0).numpy().tobytes()) + 2] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(tmp_path / "x.pt")


def test_load_checkpoint_runs_no_code(tmp_path):
    """A pickle that would call a function when it is loaded."""
    torch.save({"step": 1, "arguments": functools.partial(print, "owned")}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "x.pt")


def test_default_folders_are_numbered_and_the_last_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("common.run_folder.ROOT", tmp_path)
    args = Namespace(run_dir=None, resume=False, size=3)
    for name in ("run", "run-2", "run-3"):
        with RunFolder(args, "part/run", ("loss",)) as run:
            assert run.path == tmp_path / "runs" / "part" / name
            run.log(1, loss=0.5)
            run.save_checkpoint(1, state={})
            run.log(2, loss=0.25)
    assert read_metrics(run.path / "metrics.csv") == {"loss": [(1, 0.5), (2, 0.25)]}
    with RunFolder(Namespace(run_dir=None, resume=True, size=3), "part/run", ("loss",)) as resumed:
        assert resumed.path == run.path and resumed.checkpoint["step"] == 1
        assert resumed.read_metrics() == {"loss": [(1, 0.5)]}  # what came after the checkpoint will come again
    with pytest.raises(CommandError, match="no run to resume"):
        RunFolder(Namespace(run_dir=None, resume=True), "part/other", ())


def test_a_command_that_fails_before_training_leaves_no_folder_and_two_runs_never_share_one(tmp_path, monkeypatch):
    monkeypatch.setattr("common.run_folder.ROOT", tmp_path)
    first, second = (RunFolder(Namespace(run_dir=None, resume=False), "part/run", ("loss",)) for _ in range(2))
    assert not list(tmp_path.iterdir())
    with first, pytest.raises(CommandError, match=r"another run has taken .*run in the meantime: start this one again"):
        second.__enter__()


@pytest.mark.parametrize("cut", ["1", "11", "110,", "110,0.12"])
def test_a_row_that_a_kill_has_cut_is_dropped(tmp_path, cut):
    with RunFolder(arguments(tmp_path), "part/run", ("loss", "accuracy")) as run:
        for step in (50, 100):
            run.log(step, loss=0.5)
        run.save_checkpoint(100, state={})
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole + cut.encode())
    with RunFolder(arguments(tmp_path, resume=True), "part/run", ("loss", "accuracy")):
        pass
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_tensorboard_reads_a_run_resumed_within_a_second_in_order(tmp_path):
    """Event files of one second are read in the order of process ids: here the killed run's is the last of all."""
    killed = trained(tmp_path / "run", steps=2)
    (file,) = killed.path.glob("events.out.tfevents.*")
    file.rename(file.with_name(f"events.out.tfevents.{int(time.time()):010d}.zzz.9.0"))
    with RunFolder(arguments(killed.path, resume=True), "part/run", ("loss",)) as run:
        run.log(3, loss=0.25)
    assert tensorboard_losses(killed.path) == [(1, 1), (2, 0.5), (3, 0.25)]


def test_a_folder_with_a_run_is_resumed_or_kept(tmp_path):
    trained(tmp_path)
    with pytest.raises(CommandError, match="already holds a run: add --resume to continue it"):
        RunFolder(arguments(tmp_path), "part/run", ("loss",))
    with pytest.raises(CommandError, match="was trained with --size 3, not 4: resume it with its own arguments"):
        RunFolder(arguments(tmp_path, resume=True, size=4), "part/run", ("loss",))
    assert RunFolder(arguments(tmp_path, resume=True), "part/run", ("loss",)).saved_step == 1


def test_a_run_of_an_earlier_version_is_not_resumed(tmp_path):
    """Its checkpoint holds no state of the loop under that name."""
    with RunFolder(arguments(tmp_path), "part/run", ("loss",)) as run:
        run.save_checkpoint(1, seconds=2.5)
    with pytest.raises(
        CommandError, match="holds a run of an earlier version, which cannot be resumed: start a new one"
    ):
        RunFolder(arguments(tmp_path, resume=True), "part/run", ("loss",))


def test_a_resumed_run_is_not_finished(tmp_path):
    trained(tmp_path).write_result({"accuracy": 1.0})
    assert (tmp_path / "result.json").exists()
    with RunFolder(arguments(tmp_path, resume=True), "part/run", ("loss",)):
        assert not (tmp_path / "result.json").exists()


KILLED = {  # before its first checkpoint
    "empty": {},
    "while config.json was written": {".config.json.tmp": '{"argum'},
    "after config.json": {"config.json": '{"arguments": {"size": 3}, "command": "python part1/train.py"}'},
    "while logging": {
        "config.json": '{"arguments": {"size": 3}, "command": "python part1/train.py"}',
        "metrics.csv": "step,loss\n1,0.5\n2",
    },
}
FOREIGN = {
    "another config.json": {"config.json": '{"arguments": {}}'},
    "a list": {"config.json": "[]"},
    "no JSON": {"config.json": "colour = red"},
    "a text": {"notes.txt": "mine"},
    "a text beside what a kill has left": {".config.json.tmp": "", "notes.txt": "mine"},
}


@pytest.mark.parametrize("files", KILLED.values(), ids=KILLED)
def test_a_run_killed_before_its_first_checkpoint_is_resumed_as_new(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with RunFolder(arguments(tmp_path, resume=True), "part/run", ("loss",)) as run:
        assert run.checkpoint is None and run.saved_step == 0 and run.recorded("recurrence") is None
        run.log(1, loss=0.25)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["arguments"]["size"] == 3 and "commit" in config
    assert run.path == tmp_path and read_metrics(tmp_path / "metrics.csv") == {"loss": [(1, 0.25)]}
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_folder_is_not_resumed(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CommandError, match="holds no run that could be resumed: start one without --resume"):
        RunFolder(arguments(tmp_path, resume=True), "part/run", ("loss",))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_missing_folder_is_not_resumed(tmp_path):
    with pytest.raises(CommandError, match="holds no run that could be resumed"):
        RunFolder(arguments(tmp_path / "none", resume=True), "part/run", ("loss",))
    assert not list(tmp_path.iterdir())


def test_free_arguments_may_differ_when_a_run_is_resumed(tmp_path):
    columns, free = ("loss",), ("train_steps",)
    with RunFolder(arguments(tmp_path, train_steps=10, device="cpu"), "part/run", columns, free) as run:
        run.save_checkpoint(1, state={})
    assert "train_steps" not in load_checkpoint(tmp_path / "checkpoint.pt")["arguments"]
    assert json.loads((tmp_path / "config.json").read_text())["arguments"]["train_steps"] == 10
    later = arguments(tmp_path, resume=True, train_steps=20, device="cuda", data_dir="elsewhere")
    assert RunFolder(later, "part/run", columns, free).saved_step == 1
    with pytest.raises(CommandError, match="was trained without --train_steps, not with 20"):
        RunFolder(later, "part/run", columns)


def test_a_resumed_run_keeps_what_its_free_arguments_began_with(tmp_path):
    def run(train_steps, resume):
        args = arguments(tmp_path, resume=resume, train_steps=train_steps)
        return RunFolder(args, "part/run", ("loss",), free_arguments=("train_steps",))

    with run(200, resume=False) as begun:
        pass
    assert begun.recorded("eval_every") is None
    with run(200, resume=True) as begun:  # killed before its first checkpoint
        assert begun.keep("eval_every", 10) == 10
        begun.save_checkpoint(1, state={})
    resumed = run(10_000, resume=True)
    assert resumed.keep("eval_every", 500) == 10 and resumed.metadata == {"eval_every": 10}


def test_metadata_is_in_config_and_checkpoints(tmp_path):
    metadata = {"recurrence": {"name": "bptt"}, "vocabulary": "abc"}
    run = RunFolder(arguments(tmp_path), "part/run", ("loss",))
    run.metadata = metadata
    with run:
        run.save_checkpoint(1, state={"step": 1})
        run.save_best(1, model={"W": torch.ones(2)})
        best = run.load_best()
    config, checkpoint = json.loads((tmp_path / "config.json").read_text()), load_checkpoint(tmp_path / "checkpoint.pt")
    for holder in (config, checkpoint, best):
        assert {name: holder[name] for name in metadata} == metadata
    assert checkpoint["state"] == {"step": 1} and torch.equal(best["model"]["W"], torch.ones(2))
    resumed = RunFolder(arguments(tmp_path, resume=True), "part/run", ("loss",))
    assert resumed.recorded("vocabulary") == "abc" and resumed.recorded("recurrence") == {"name": "bptt"}
