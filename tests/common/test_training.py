"""The training loop's surroundings: what is saved and restored, how a step ends, and which examples it reads."""

import math
import signal
from argparse import Namespace
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

import common.distributed
from common.errors import CommandError
from common.run_folder import RunFolder, load_checkpoint, read_metrics
from common.training import LoopState, Training, TrainingBatches, default_interval

COLUMNS = ("loss", "noise", "seconds")


@dataclass
class State(LoopState):
    """A loop's state with fields of its own."""

    lowest_loss: float = math.inf
    last_losses: list[float] = field(default_factory=list)


def parts(seed):
    """A model, an optimizer with a state, a scheduler and a generator, drawn from a seed."""
    torch.manual_seed(seed)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    generator = torch.Generator().manual_seed(seed)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "generator": generator}


def train(run_dir, steps, seed=0, resume=False, stop_at=None, checkpoint_every=2):
    """Train on noise for so many steps, as scripts do; returns the state and the parts."""
    run = RunFolder(Namespace(run_dir=str(run_dir), resume=resume), "part/train.py", "run", COLUMNS)
    state, saved = State(), parts(seed)
    model, optimizer, scheduler, generator = saved.values()
    with Training(run, steps, state, "a run", **saved) as training:
        while state.step < steps:
            state.step += 1
            x = torch.randn(8, 2, generator=generator)
            loss = (model(x) - x.sum(dim=1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            training.check_finite(loss=loss.item())
            optimizer.step()
            scheduler.step()
            state.lowest_loss = min(state.lowest_loss, loss.item())
            state.last_losses = [*state.last_losses, loss.item()][-3:]
            if state.step == stop_at:
                signal.raise_signal(signal.SIGTERM)
            values = {"loss": loss.item(), "noise": x[0, 0].item()}
            training.end_step(values, log=True, checkpoint=state.step % checkpoint_every == 0)
    return state, saved


def assert_equal(found, expected):
    """Compare what state_dict() gives: numbers, strings and tensors in dictionaries and lists."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_equal(found[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_equal(one, other)
    else:
        assert found == expected


def test_state_and_saved_parts_are_restored_as_a_whole(tmp_path):
    """The resumed run begins with other weights and another generator, and ends as if it had not been stopped."""
    state, saved = train(tmp_path / "whole", 10)
    train(tmp_path / "halves", 4)
    resumed_state, resumed = train(tmp_path / "halves", 10, seed=1, resume=True)
    for name in ("model", "optimizer", "scheduler"):
        assert_equal(resumed[name].state_dict(), saved[name].state_dict())
    assert torch.equal(resumed["generator"].get_state(), saved["generator"].get_state())
    assert resumed_state.seconds > 0
    resumed_state.seconds = state.seconds
    assert resumed_state == state and resumed_state.step == 10 and len(resumed_state.last_losses) == 3
    metrics = [read_metrics(tmp_path / name / "metrics.csv") for name in ("whole", "halves")]
    for name in ("loss", "noise"):
        assert metrics[0][name] == metrics[1][name] and len(metrics[0][name]) == 10


def test_what_a_checkpoint_holds(tmp_path):
    state, saved = train(tmp_path, 4)
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    assert set(checkpoint) == {"script", "step", "arguments", "metrics_rows", "state", *saved}
    assert checkpoint["step"] == checkpoint["metrics_rows"] == 4 and checkpoint["state"] == vars(state)
    assert isinstance(checkpoint["generator"], torch.Tensor)


def test_seconds_of_training_add_up(tmp_path):
    before, _ = train(tmp_path, 2)
    after, _ = train(tmp_path, 4, resume=True)
    assert after.seconds > before.seconds > 0
    seconds = [value for _, value in read_metrics(tmp_path / "metrics.csv")["seconds"]]
    assert seconds == sorted(seconds) and len(seconds) == 4


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_end_step_logs_saves_and_stops_on_a_signal(tmp_path, monkeypatch, number, exit_code):
    monkeypatch.setattr("sys.argv", ["part1/train.py", "--resume", "--size", "3"])
    run = RunFolder(Namespace(run_dir=str(tmp_path), resume=False), "part/train.py", "run", COLUMNS)
    previous, state = signal.getsignal(number), State(step=1_234)
    with pytest.raises(CommandError) as error, Training(run, 5_000, state, model=nn.Linear(1, 1)) as training:
        training.end_step({"loss": 0.5}, log=True, checkpoint=False)
        assert not (tmp_path / "checkpoint.pt").exists()
        signal.raise_signal(number)
        assert training.signal_number == number
        state.step += 1
        training.end_step({"loss": 0.25}, log=False, checkpoint=False)
    assert error.value.exit_code == exit_code
    assert str(error.value) == (
        f"stopped at step 1,235; go on with: python part1/train.py --size 3 --run_dir {tmp_path} --resume"
    )
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1_235
    assert read_metrics(tmp_path / "metrics.csv")["loss"] == [(1_234, 0.5)]
    assert signal.getsignal(number) == previous


def test_several_processes_stop_together(tmp_path):
    """A signal that another process has received stops this one, too; its own one waits until all have agreed."""
    for agreed, own in ((0, signal.SIGTERM), (signal.SIGINT, 0)):
        run = RunFolder(Namespace(run_dir=str(tmp_path / str(agreed)), resume=False), "part/train.py", "run", COLUMNS)
        with Training(run, 5, State(step=1)) as training:
            if own:
                signal.raise_signal(own)
                training.end_step({}, log=False, checkpoint=False, signal_number=agreed)
            else:
                with pytest.raises(CommandError, match="stopped at step 1") as error:
                    training.end_step({}, log=False, checkpoint=False, signal_number=agreed)
                assert error.value.exit_code == 128 + signal.SIGTERM
        assert (tmp_path / str(agreed) / "checkpoint.pt").exists() == bool(agreed)


def test_a_stopped_run_goes_on(tmp_path):
    train(tmp_path / "whole", 6)
    with pytest.raises(CommandError, match="stopped at step 3"):
        train(tmp_path / "stopped", 6, stop_at=3)
    train(tmp_path / "stopped", 6, resume=True)
    whole, stopped = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "stopped"))
    for checkpoint in (whole, stopped):
        checkpoint["state"].pop("seconds")
    assert_equal(stopped, whole)


def test_a_short_run_is_evaluated_twenty_times_a_long_one_at_the_longest_interval():
    assert [default_interval(steps, 500) for steps in (1, 19, 200, 9_999, 10_000, 1_000_000)] == [
        1,
        1,
        10,
        499,
        500,
        500,
    ]


def test_divergence_is_one_line(tmp_path):
    run = RunFolder(Namespace(run_dir=str(tmp_path), resume=False), "part/train.py", "run", COLUMNS)
    state = State(step=1_000)
    with Training(run, 5_000, state, model=nn.Linear(1, 1)) as training:
        training.check_finite(loss=0.5, gradient_norm=1e30)
        with pytest.raises(CommandError) as error:
            training.check_finite(loss=0.5, gradient_norm=math.inf)
        assert error.value.exit_code == 1 and str(error.value) == (
            "training diverged at step 1,000: the loss is 0.5, the gradient norm is inf; "
            "no checkpoint had been written yet; try a lower --learning_rate"
        )
        training.save_checkpoint()
        state.step += 1
        with pytest.raises(CommandError) as error:
            training.check_finite(validation_loss=math.nan)
        assert str(error.value) == (
            f"training diverged at step 1,001: the validation loss is nan; the checkpoint of step 1,000 in {tmp_path} "
            "is kept; try a lower --learning_rate"
        )


def test_every_epoch_reads_each_example_once_in_a_new_order():
    batches = TrainingBatches(num_examples=23, batch_size=5, seed=0)
    assert batches.steps_per_epoch == 5
    epochs = []
    for epoch in range(4):
        indices = [batches.indices(step) for step in range(5 * epoch, 5 * epoch + 5)]
        assert [len(one) for one in indices] == [5, 5, 5, 5, 3]
        epochs.append(torch.cat(indices).tolist())
        assert sorted(epochs[-1]) == list(range(23))
    assert len(set(map(tuple, epochs))) == 4
    assert batches.indices(0).dtype == torch.int64 and batches.indices(0).device.type == "cpu"


def test_drop_last_leaves_out_what_does_not_fill_a_batch():
    batches = TrainingBatches(num_examples=23, batch_size=5, seed=0, drop_last=True)
    assert batches.steps_per_epoch == 4
    epoch = torch.cat([batches.indices(step) for step in range(4)])
    assert len(epoch) == len(set(epoch.tolist())) == 20
    assert len(batches.indices(4)) == 5  # the next epoch's first
    with pytest.raises(ValueError, match="batch_size 24 is more than the 23 training examples"):
        TrainingBatches(num_examples=23, batch_size=24, seed=0, drop_last=True)
    assert TrainingBatches(num_examples=23, batch_size=24, seed=0).steps_per_epoch == 1


def test_a_batch_depends_on_the_seed_and_the_step_alone():
    forward = [
        TrainingBatches(20, 6, seed=0).indices(step).tolist() for step in range(12)
    ]  # a new object for each step
    batches = TrainingBatches(20, 6, seed=0)
    backward = [batches.indices(step).tolist() for step in reversed(range(12))]
    assert forward == backward[::-1]
    other_seed = TrainingBatches(20, 6, seed=1)
    assert [other_seed.indices(step).tolist() for step in range(12)] != forward


@pytest.mark.parametrize("batch_size", [6, 7])
def test_the_shards_of_all_processes_are_the_batch(batch_size, monkeypatch):
    batches = TrainingBatches(20, batch_size, seed=0)
    for step in range(2 * batches.steps_per_epoch):
        whole, shards = batches.indices(step), []
        monkeypatch.setattr(common.distributed, "world_size", lambda: 3)
        for rank in range(3):
            monkeypatch.setattr(common.distributed, "rank", lambda rank=rank: rank)
            shards.append(batches.indices(step))
        monkeypatch.undo()
        assert torch.equal(torch.cat(shards), whole)
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_an_order_of_its_own():
    """A subclass may choose the order of an epoch."""

    class InOrder(TrainingBatches):
        def order(self, epoch):
            return torch.arange(self.num_examples) + 100 * epoch

    batches = InOrder(4, 2, seed=0)
    assert [batches.indices(step).tolist() for step in range(4)] == [[0, 1], [2, 3], [100, 101], [102, 103]]
