"""Run folders: new, resumed or refused; what config.json, the logs and a checkpoint hold."""

import functools
import json
import os
import signal
import time
from argparse import Namespace

import pytest
import torch

from common.errors import CommandError
from common.run_folder import RunFolder, load_checkpoint, read_metrics
from tests.harness import POSIX, tensorboard_losses


def arguments(run_dir, resume=False, **others):
    return Namespace(run_dir=str(run_dir), resume=resume, **{"size": 3, **others})


def trained(run_dir, steps=1, **options):
    """A folder with a run of so many steps, each with a checkpoint."""
    with RunFolder(arguments(run_dir), "part/train.py", "run", ("loss",), **options) as run:
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
        with RunFolder(args, "part/train.py", "run", ("loss",)) as run:
            assert run.path == tmp_path / "runs" / "part" / name
            run.log(1, loss=0.5)
            run.save_checkpoint(1, state={})
            run.log(2, loss=0.25)
    assert read_metrics(run.path / "metrics.csv") == {"loss": [(1, 0.5), (2, 0.25)]}
    with RunFolder(Namespace(run_dir=None, resume=True, size=3), "part/train.py", "run", ("loss",)) as resumed:
        assert resumed.path == run.path and resumed.checkpoint["step"] == 1
        assert resumed.read_metrics() == {"loss": [(1, 0.5)]}  # what came after the checkpoint will come again
    with pytest.raises(CommandError, match="no run to resume"):
        RunFolder(Namespace(run_dir=None, resume=True), "part/train.py", "other", ())


def test_a_command_that_fails_before_training_leaves_no_folder_and_two_runs_never_share_one(tmp_path, monkeypatch):
    monkeypatch.setattr("common.run_folder.ROOT", tmp_path)
    first, second = (
        RunFolder(Namespace(run_dir=None, resume=False), "part/train.py", "run", ("loss",)) for _ in range(2)
    )
    assert not list(tmp_path.iterdir())
    with first, pytest.raises(CommandError, match=r"another run has taken .*run in the meantime: start this one again"):
        second.__enter__()


@pytest.mark.parametrize("cut", ["1", "11", "110,", "110,0.12"])
def test_a_row_that_a_kill_has_cut_is_dropped(tmp_path, cut):
    with RunFolder(arguments(tmp_path), "part/train.py", "run", ("loss", "accuracy")) as run:
        for step in (50, 100):
            run.log(step, loss=0.5)
        run.save_checkpoint(100, state={})
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole + cut.encode())
    with RunFolder(arguments(tmp_path, resume=True), "part/train.py", "run", ("loss", "accuracy")):
        pass
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_tensorboard_reads_a_run_resumed_within_a_second_in_order(tmp_path):
    """Event files of one second are read in the order of process ids: here the killed run's is the last of all."""
    killed = trained(tmp_path / "run", steps=2)
    (file,) = killed.path.glob("events.out.tfevents.*")
    file.rename(file.with_name(f"events.out.tfevents.{int(time.time()):010d}.zzz.9.0"))
    with RunFolder(arguments(killed.path, resume=True), "part/train.py", "run", ("loss",)) as run:
        run.log(3, loss=0.25)
    assert tensorboard_losses(killed.path) == [(1, 1), (2, 0.5), (3, 0.25)]


def test_a_folder_with_a_run_is_resumed_or_kept(tmp_path):
    trained(tmp_path)
    with pytest.raises(CommandError, match="already holds a run: add --resume to continue it"):
        RunFolder(arguments(tmp_path), "part/train.py", "run", ("loss",))
    with pytest.raises(CommandError, match="was trained with --size 3, not 4: resume it with its own arguments"):
        RunFolder(arguments(tmp_path, resume=True, size=4), "part/train.py", "run", ("loss",))
    assert RunFolder(arguments(tmp_path, resume=True), "part/train.py", "run", ("loss",)).saved_step == 1


def test_a_run_of_an_earlier_version_is_not_resumed(tmp_path):
    """Its checkpoint holds no state of the loop under that name."""
    with RunFolder(arguments(tmp_path), "part/train.py", "run", ("loss",)) as run:
        run.save_checkpoint(1, seconds=2.5)
    with pytest.raises(
        CommandError, match="holds a run of an earlier version, which cannot be resumed: start a new one"
    ):
        RunFolder(arguments(tmp_path, resume=True), "part/train.py", "run", ("loss",))


def test_a_resumed_run_is_not_finished(tmp_path):
    trained(tmp_path).write_result({"accuracy": 1.0})
    assert (tmp_path / "result.json").exists()
    with RunFolder(arguments(tmp_path, resume=True), "part/train.py", "run", ("loss",)):
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
SCRIPT = "part/train.py"
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
    with RunFolder(arguments(tmp_path, resume=True), "part/train.py", "run", ("loss",)) as run:
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
        RunFolder(arguments(tmp_path, resume=True), "part/train.py", "run", ("loss",))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_missing_folder_is_not_resumed(tmp_path):
    with pytest.raises(CommandError, match="holds no run that could be resumed"):
        RunFolder(arguments(tmp_path / "none", resume=True), "part/train.py", "run", ("loss",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("files", [*FOREIGN.values(), {"metrics.csv": "mine"}, {"result.json": "{}"}, {"-": ""}])
def test_a_new_run_wants_an_empty_folder(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CommandError, match=r"is not empty \(it holds .*\): choose another --run_dir"):
        RunFolder(arguments(tmp_path), SCRIPT, "run", ("loss",))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("files", [files for files in KILLED.values() if "config.json" in files])
def test_a_new_run_does_not_replace_one_without_a_checkpoint(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CommandError, match="already holds a run: add --resume to continue it"):
        RunFolder(arguments(tmp_path), SCRIPT, "run", ("loss",))


def test_a_run_folder_is_no_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CommandError, match="file is no folder"):
        RunFolder(arguments(tmp_path / "file"), SCRIPT, "run", ("loss",))


def test_one_process_at_a_time_has_the_folder(tmp_path):
    """Whoever comes second, with a new run or --resume, is told who is there; after that the folder is free."""
    late = RunFolder(arguments(tmp_path), SCRIPT, "run", ("loss",))
    in_use = rf"is in use by process {os.getpid()} on \S+: wait until that has ended, or choose another --run_dir"
    with RunFolder(arguments(tmp_path), SCRIPT, "run", ("loss",)) as run:
        run.log(1, loss=0.5)
        run.save_checkpoint(1, state={})
        with pytest.raises(CommandError, match=in_use):
            RunFolder(arguments(tmp_path, resume=True), SCRIPT, "run", ("loss",))
        with pytest.raises(CommandError, match=in_use):
            late.__enter__()
        run.log(2, loss=0.25)
    assert read_metrics(tmp_path / "metrics.csv") == {"loss": [(1, 0.5), (2, 0.25)]}
    with pytest.raises(CommandError, match="already holds a run"):
        late.__enter__()
    del late
    with RunFolder(arguments(tmp_path, resume=True), SCRIPT, "run", ("loss",)) as resumed:
        assert resumed.saved_step == 1


@POSIX
def test_a_killed_process_lets_go_of_the_folder(tmp_path):
    child = os.fork()
    if not child:
        with RunFolder(arguments(tmp_path), SCRIPT, "run", ("loss",)):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with RunFolder(arguments(tmp_path, resume=True), SCRIPT, "run", ("loss",)) as run:
        assert run.checkpoint is None


def test_a_damaged_checkpoint_leaves_the_one_before_it(tmp_path):
    trained(tmp_path, steps=3)
    damaged = tmp_path / "checkpoint.pt"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    hint = (
        r"checkpoint\.pt is damaged .*; the checkpoint before it is kept: delete .*checkpoint\.pt, and --resume goes on"
    )
    with pytest.raises(CommandError, match=hint):
        RunFolder(arguments(tmp_path, resume=True), SCRIPT, "run", ("loss",))
    damaged.unlink()
    with RunFolder(arguments(tmp_path, resume=True), SCRIPT, "run", ("loss",)) as run:
        assert run.saved_step == 2 and run.read_metrics() == {"loss": [(1, 1), (2, 0.5)]}
    (tmp_path / "checkpoint.previous.pt").write_bytes(b"")
    with pytest.raises(CommandError, match=r"checkpoint\.previous\.pt is damaged or not a checkpoint \(\w+\)$"):
        RunFolder(arguments(tmp_path, resume=True), SCRIPT, "run", ("loss",))


@pytest.mark.parametrize(
    ("metrics", "lost"),
    [
        (None, 3),
        ("", 3),
        ("step,loss\n", 3),
        ("step,loss\n1,1.0\n", 2),
        ("step,loss\n1,1.0\nx,0.5\n3,0.25\n", 1),
        ("step,loss\n1,1.0\n2,\0\n3", 1),
        ("step,loss\n1,1.0\n2,0.\ufffd5\n3,0.25\n", 1),
        ("a,b\n1,1.0\n", 3),
    ],
)
def test_lost_rows_of_metrics_are_counted(tmp_path, capsys, metrics, lost):
    trained(tmp_path, steps=3)
    (tmp_path / "metrics.csv").unlink()
    if metrics is not None:
        (tmp_path / "metrics.csv").write_text(metrics)
    with RunFolder(arguments(tmp_path, resume=True), SCRIPT, "run", ("loss",)) as run:
        run.log(4, loss=0.125)
    assert f"metrics.csv has lost {lost} rows: the curves will have gaps\n" in capsys.readouterr().err
    assert (tmp_path / "metrics.csv").read_text().endswith("4,0.125\n")


def test_a_run_of_another_script_is_named(tmp_path):
    trained(tmp_path)
    with pytest.raises(CommandError, match=r"holds a run of part/train\.py, not of other/train\.py"):
        RunFolder(arguments(tmp_path, resume=True, batch_size=3), "other/train.py", "run", ("loss",))


def test_a_full_disk_is_one_line_that_says_what_is_kept(tmp_path):
    def run_out(saved):
        with RunFolder(arguments(tmp_path / str(saved)), SCRIPT, "run", ("loss",)) as run:
            if saved:
                run.save_checkpoint(1, state={})
            raise OSError(28, "No space left on device")

    with pytest.raises(CommandError, match="No space left on device; no checkpoint had been written yet"):
        run_out(False)
    with pytest.raises(CommandError, match="the checkpoint of step 1 is whole, --resume goes on from it"):
        run_out(True)


def test_free_arguments_may_differ_when_a_run_is_resumed(tmp_path):
    columns, free = ("loss",), ("train_steps",)
    with RunFolder(arguments(tmp_path, train_steps=10, device="cpu"), "part/train.py", "run", columns, free) as run:
        run.save_checkpoint(1, state={})
    assert "train_steps" not in load_checkpoint(tmp_path / "checkpoint.pt")["arguments"]
    assert json.loads((tmp_path / "config.json").read_text())["arguments"]["train_steps"] == 10
    later = arguments(tmp_path, resume=True, train_steps=20, device="cuda", data_dir="elsewhere")
    assert RunFolder(later, "part/train.py", "run", columns, free).saved_step == 1
    with pytest.raises(CommandError, match="was trained without --train_steps, not with 20"):
        RunFolder(later, "part/train.py", "run", columns)


def test_a_resumed_run_keeps_what_its_free_arguments_began_with(tmp_path):
    def run(train_steps, resume):
        args = arguments(tmp_path, resume=resume, train_steps=train_steps)
        return RunFolder(args, "part/train.py", "run", ("loss",), free_arguments=("train_steps",))

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
    run = RunFolder(arguments(tmp_path), "part/train.py", "run", ("loss",))
    run.metadata = metadata
    with run:
        run.save_checkpoint(1, state={"step": 1})
        run.save_best(1, model={"W": torch.ones(2)})
        best = run.load_best()
    config, checkpoint = json.loads((tmp_path / "config.json").read_text()), load_checkpoint(tmp_path / "checkpoint.pt")
    for holder in (config, checkpoint, best):
        assert {name: holder[name] for name in metadata} == metadata
    assert checkpoint["state"] == {"step": 1} and torch.equal(best["model"]["W"], torch.ones(2))
    resumed = RunFolder(arguments(tmp_path, resume=True), "part/train.py", "run", ("loss",))
    assert resumed.recorded("vocabulary") == "abc" and resumed.recorded("recurrence") == {"name": "bptt"}
