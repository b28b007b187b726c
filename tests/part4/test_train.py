"""part4/train.py as a command: what it prints, its exit code and its run folder; and resumed runs, bit for bit."""

import json
import os
import re
import signal
import sys

import numpy as np
import pytest
import torch
from torch import nn

import part4.cifar10
import part4.train
from common.errors import CommandError
from common.run_folder import read_metrics
from common.training import TrainingBatches
from part4.cifar10 import load_images
from tests.harness import (
    POSIX,
    ROOT,
    assert_same_run,
    contents,
    failure_of,
    one_line,
    run_script,
    tensorboard_losses,
    train_under_fire,
)
from tests.part4.few_images import FEW
from tests.part4.test_cifar10 import NEEDS_COPIES

SMALL = ["--dataset", "synthetic", "--num_train", "260", "--batch_size", "32", "--epochs", "3", "--print_every", "4"]


def train(*words, script="part4/train.py", **options):
    return run_script(script, *words, **options)


def in_process(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["part4/train.py", *map(str, words)])
    part4.train.main()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run: 8 steps in each epoch, which leaves out 4 images."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    done = train(*SMALL, "--run_dir", folder)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert re.fullmatch(
        r"debug, synthetic shapes: accuracy 0\.\d{4} on 1,000 test images, 0\.\d{4} in validation, at epoch \d of 3; "
        r"\d+\.\d s; run folder .*run\n",
        done.stdout,
    )
    return folder


def test_the_run_folder(reference):
    names = {re.sub(r"^events\..*", "events", path.name) for path in reference.iterdir()}
    files = ["config.json", "metrics.csv", "events", "checkpoint.pt", "best.pt", "result.json"]
    assert names == {*files, "curves.png", "curves.pdf", "checkpoint.previous.pt", ".lock"}
    metrics = read_metrics(reference / "metrics.csv")
    assert metrics["loss"] == tensorboard_losses(reference)
    assert [step for step, _ in metrics["loss"]] == [4, 8, 12, 16, 20, 24]
    assert [step for step, _ in metrics["validation_accuracy"]] == [8, 16, 24]
    # 24 steps: the learning rate falls after 14.4 and after 21.6
    assert [value for _, value in metrics["learning_rate"]] == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.001, 0.0001])
    result = json.loads((reference / "result.json").read_text())
    assert result["images"] == "synthetic shapes" and result["num_train"] == 260 and result["parameters"] == 30_730
    assert json.loads((reference / "config.json").read_text())["images"] == load_images("synthetic").checksum


def test_the_best_epoch_is_kept_and_its_accuracy_can_be_counted_again(reference):
    """In NumPy, from best.pt alone: the debug network is one matrix."""
    best = torch.load(reference / "best.pt", weights_only=True)
    result = json.loads((reference / "result.json").read_text())
    accuracies = [value for _, value in read_metrics(reference / "metrics.csv")["validation_accuracy"]]
    assert result["best_epoch"] == accuracies.index(max(accuracies)) + 1 and best["step"] == 8 * result["best_epoch"]
    W, b = best["model"]["1.weight"].double().numpy(), best["model"]["1.bias"].double().numpy()
    mean, std = (best[name].double().numpy()[:, None, None] for name in ("mean", "std"))
    data = load_images("synthetic", num_train=260)
    for images, accuracy in ((data.test, result["test_accuracy"]), (data.validation, result["validation_accuracy"])):
        x = (images.pixels.numpy() / 255 - mean) / std
        right = np.argmax(x.reshape(len(x), -1) @ W.T + b, axis=1) == images.labels.numpy()
        assert right.mean() == pytest.approx(accuracy, abs=1e-9)


def test_a_network_that_grows_worse_is_not_kept(tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.4, 0.5, 0.1])
    monkeypatch.setattr(part4.train, "evaluate", lambda *_: (1.0, next(accuracies)))
    in_process([*SMALL, "--run_dir", tmp_path], monkeypatch)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 8
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["best_epoch"], result["validation_accuracy"], result["test_accuracy"]) == (1, 0.5, 0.1)


def test_the_schedule_is_the_handouts():
    """150 epochs of 10 steps: divided by 10 at epochs 90 and 135; other lengths in proportion."""
    rates = [part4.train.schedule(step, 1500) for step in range(1500)]
    assert rates[:900] == [1] * 900
    assert rates[900:1350] == pytest.approx([0.1] * 450) and rates[1350:] == pytest.approx([0.01] * 150)
    assert [part4.train.schedule(step, 20) for step in (11, 12, 17, 18)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_every_image_has_its_turn():
    """Each once in an epoch, with its label, in an order that depends on the epoch and the seed."""
    data, batches = load_images("synthetic", num_train=100), TrainingBatches(100, 20, seed=0, drop_last=True)
    assert batches.steps_per_epoch == 5
    epochs = [[data.train.take(batches.indices(step)) for step in range(k, k + 5)] for k in (0, 5)]
    flat = [[image.numpy().tobytes() for batch in epoch for image in batch.pixels] for epoch in epochs]
    assert flat[0] != flat[1] and sorted(flat[0]) == sorted(flat[1])
    assert sorted(flat[0]) == sorted(image.numpy().tobytes() for image in data.train.pixels)
    label = {image.numpy().tobytes(): k for image, k in zip(data.train.pixels, data.train.labels)}
    assert all(label[image.numpy().tobytes()] == k for batch in epochs[1] for image, k in zip(*batch))
    again, other = TrainingBatches(100, 20, seed=0), TrainingBatches(100, 20, seed=1)
    assert torch.equal(again.indices(7), batches.indices(7)) and not torch.equal(other.indices(7), batches.indices(7))


class Small(nn.Sequential):
    """A network with all that a step may depend on: convolution, running statistics and dropout."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(256, 10)
        )


@POSIX
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stopped_in_an_epoch_or_killed_then_resumed_it_ends_in_the_same_bits(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(part4.train, "get_model", lambda *_, **__: Small())
    words = [*SMALL, "--precision", precision]
    in_process([*words, "--run_dir", tmp_path / "whole"], monkeypatch)
    real, steps = part4.train.augment, 0

    def disturbed(*arguments):
        nonlocal steps
        steps += 1
        if steps == 11:  # a request to stop: the step is finished and saved
            os.kill(os.getpid(), signal.SIGTERM)
        if steps == 15:  # a crash: the next run goes on from the last checkpoint
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr(part4.train, "augment", disturbed)
    message = r"stopped at step 11; go on with: python part4/train\.py .* --resume"
    with pytest.raises(CommandError, match=message) as stop:
        in_process([*words, "--run_dir", tmp_path / "run"], monkeypatch)
    assert stop.value.exit_code == 143
    with pytest.raises(MemoryError):
        in_process([*words, "--run_dir", tmp_path / "run", "--resume"], monkeypatch)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 11
    in_process([*words, "--run_dir", tmp_path / "run", "--resume"], monkeypatch)
    assert steps == 11 + 4 + 13
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_same_seed_same_run_from_inside_the_part(reference, tmp_path):
    assert train(*SMALL, "--run_dir", tmp_path, cwd=ROOT / "part4", script="train.py").returncode == 0
    assert_same_run(tmp_path, reference)


@POSIX
@pytest.mark.slow
def test_killed_at_every_write(reference, tmp_path):
    """Two durable writes each for config, metrics, result and best weights, three for a checkpoint (metrics first),
    and one that moves the checkpoint before it away."""
    accuracies = [value for _, value in read_metrics(reference / "metrics.csv")["validation_accuracy"]]
    improvements = sum(value > max(accuracies[:k], default=-1) for k, value in enumerate(accuracies))
    writes = 3 * 2 + 3 * 3 + 2 + 2 * improvements
    assert train_under_fire("part4.train", "write", tmp_path, *SMALL) == writes
    for number in range(1, writes + 1):
        assert_same_run(tmp_path / str(number), reference)
        assert not list((tmp_path / str(number)).glob(".*.tmp"))


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet18", "densenet121"])
def test_killed_at_random_moments(tmp_path, model, monkeypatch):
    words = [
        "--model_name",
        model,
        "--dataset",
        "synthetic",
        "--num_train",
        "64",
        "--batch_size",
        "16",
        "--epochs",
        "4",
    ]
    assert train_under_fire("tests.part4.few_images", "random", tmp_path / "killed", *words) > 0
    monkeypatch.setattr(part4.cifar10, "NUM_SYNTHETIC", FEW)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the killed runs
    in_process([*words, "--run_dir", tmp_path / "whole"], monkeypatch)
    torch.set_num_threads(threads)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_divergence_stops_with_a_clear_line(tmp_path):
    error = one_line(train(*SMALL, "--lr", "1e30", "--run_dir", tmp_path), exit_code=1)
    assert re.search(r"diverged at step \d+: the loss is (nan|inf); no checkpoint had been written yet", error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model_name", "resnet50"], "argument --model_name: invalid choice: 'resnet50'"),
        (["--stem", "tiny"], "argument --stem: invalid choice: 'tiny'"),
        (["--dataset", "imagenet"], "argument --dataset: invalid choice: 'imagenet'"),
        (["--lr", "0"], "argument --lr/--learning_rate: must be a finite number above 0, not 0"),
        (["--batch_size", "1"], "must be at least 2, not 1: batch normalisation needs more than one image"),
        (["--batch_size", "many"], "argument --batch_size: invalid batch_size value: 'many'"),
        (["--batch_size", "5000"], "batch_size 5000 is more than the 4,500 training examples"),
        (["--num_train", "4501"], "num_train 4501 is more than the 4,500 training images there are"),
        (["--num_train", "0"], "argument --num_train: must be at least 1, not 0"),
        (["--epochs", "0"], "argument --epochs: must be at least 1, not 0"),
        (["--seed", "-1"], "argument --seed: must be at least 0, not -1"),
        (["--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--run_dir", "LICENSE/run"], "Not a directory: LICENSE/run"),
        (["--resume", "--run_dir", "no/such/run"], "no/such/run holds no run that could be resumed"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    assert message in failure_of(
        part4.train.main, "part4/train.py", ["--dataset", "synthetic", *words], monkeypatch, capsys
    )


def test_a_run_is_not_mixed_with_another(reference, tmp_path, monkeypatch):
    with pytest.raises(CommandError, match="already holds a run"):
        in_process([*SMALL, "--run_dir", reference], monkeypatch)
    with pytest.raises(CommandError, match=r"was trained with --lr 0\.01, not 0\.1"):
        in_process([*SMALL, "--lr", "0.1", "--run_dir", reference, "--resume"], monkeypatch)
    checkpoint = torch.load(reference / "checkpoint.pt", weights_only=True)
    torch.save({**checkpoint, "images": "others"}, tmp_path / "checkpoint.pt")
    (tmp_path / "metrics.csv").write_bytes((reference / "metrics.csv").read_bytes())
    assert "was trained on other images: resume it with its own" in one_line(
        train(*SMALL, "--run_dir", tmp_path, "--resume")
    )


@pytest.mark.slow
def test_every_flag_changes_the_training(tmp_path, monkeypatch):
    """Compared by the weights after the same few steps, one flag at a time."""
    resnet = ["--model_name", "resnet18", "--epochs", "1"]
    changes = [
        [],
        *(["--lr", "0.1"], ["--batch_size", "31"], ["--epochs", "2"], ["--seed", "1"], ["--num_train", "250"]),
        *(["--precision", "bf16"], resnet, [*resnet, "--stem", "cifar"]),
    ]
    seen = []
    for number, words in enumerate(changes):
        folder = tmp_path / str(number)
        in_process([*SMALL, *words, "--run_dir", folder], monkeypatch)
        model = contents(folder)[0]["model"]
        for other in seen:
            same = model.keys() == other.keys() and all(
                model[key].shape == other[key].shape and torch.equal(model[key], other[key]) for key in model
            )
            assert not same, words
        seen.append(model)


@pytest.mark.slow
def test_shapes_are_learnt(tmp_path):
    words = ["--model_name", "resnet18", "--dataset", "synthetic"]
    words += ["--num_train", "2000", "--epochs", "6", "--batch_size", "64"]
    assert train(*words, "--run_dir", tmp_path, timeout=600).returncode == 0
    assert json.loads((tmp_path / "result.json").read_text())["test_accuracy"] > 0.2


@NEEDS_COPIES
@pytest.mark.slow
def test_photographs_are_learnt(tmp_path):
    words = ["--model_name", "resnet18", "--num_train", "4000", "--epochs", "4", "--batch_size", "64"]
    assert train(*words, "--run_dir", tmp_path, timeout=600).returncode == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test_accuracy"] > 0.3 and result["images"].startswith("CIFAR-10")
