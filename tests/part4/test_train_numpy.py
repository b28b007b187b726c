"""The NumPy network: its gradients against PyTorch's, and part4/train_numpy.py as a command."""

import json
import os
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.command import run_command
from common.run_folder import read_metrics
from part4 import numpy_network, train_numpy
from part4.cifar10 import load_images, normalise, to_unit
from part4.numpy_network import draw_weights, momentum_step, network_backward, network_forward, softmax_cross_entropy
from part4.sources import SIDE
from tests.harness import (
    POSIX,
    ROOT,
    assert_same_run,
    bits,
    contents,
    failure_of,
    one_line,
    run_script,
    tensorboard_losses,
    train_under_fire,
)

SMALL = ["--num_train", "100", "--channels", "3", "4", "--batch_size", "30", "--num_epochs", "3", "--print_every", "2"]


def train(*words, script="part4/train_numpy.py", **options):
    return run_script(script, *words, **options)


def train_here(*words):
    """Train in this process, for speed, with `run_command(main)` as in the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["part4/train_numpy.py", *map(str, words)])
        patch.chdir(ROOT)
        run_command(train_numpy.main)


def torch_logits(weights, x):
    """Equations 1-4 in PyTorch."""
    h = x
    for k in range(1, len(weights) // 2):
        h = F.max_pool2d(F.relu(F.conv2d(h, weights[f"W_{k}"], weights[f"b_{k}"], padding=1)), 2)
    return F.linear(h.flatten(1), weights["W_p"], weights["b_p"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run of the script, started from inside its folder."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    done = train(*SMALL, "--run_dir", folder, cwd=ROOT / "part4", script="train_numpy.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal
    assert re.fullmatch(
        r"synthetic shapes, 100 training images: accuracy 0\.\d{4} on 1,000 test images, linear classifier 0\.\d{4}; "
        r"3 epochs, \d+\.\d s; run folder .*run\n",
        done.stdout,
    )
    return folder


def test_a_short_run_has_a_curve_and_keeps_its_intervals_when_it_goes_on(tmp_path):
    words = [*SMALL[:-4], "--run_dir", tmp_path]  # 3 steps in an epoch
    train_here(*words, "--num_epochs", 1)
    train_here(*words, "--num_epochs", 14, "--resume")  # of 42 steps every second one would be logged
    assert [step for step, _ in read_metrics(tmp_path / "metrics.csv")["loss"]] == list(range(1, 43))


@pytest.mark.parametrize("channels", [[], [4], [3, 4, 5]])
def test_loss_and_all_gradients_equal_pytorch(channels):
    """In float64, with an odd side that the pooling windows do not tile; without blocks it is the linear classifier."""
    generator = np.random.default_rng(0)
    weights = {
        name: weight + 0.1 * generator.standard_normal(weight.shape)
        for name, weight in draw_weights(channels, 11, 10, generator).items()
    }
    x, labels = generator.standard_normal((6, 3, 11, 11)), generator.integers(10, size=6)
    p, caches, h = network_forward(weights, x)
    loss, d_p = softmax_cross_entropy(p, labels)
    gradients = network_backward(weights, d_p, caches, h)

    tensors = {name: torch.from_numpy(weight).requires_grad_() for name, weight in weights.items()}
    expected = F.cross_entropy(torch_logits(tensors, torch.from_numpy(x)), torch.from_numpy(labels))
    expected.backward()
    assert abs(loss - expected.item()) < 1e-10
    assert gradients.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(gradients[name], tensor.grad.numpy(), rtol=0, atol=1e-10, err_msg=name)


def test_momentum_is_pytorchs_sgd():
    generator = np.random.default_rng(0)
    weights = {"w": generator.standard_normal(5)}
    parameter = torch.tensor(weights["w"], requires_grad=True)
    optimizer, velocities = torch.optim.SGD([parameter], lr=0.1, momentum=0.9), {"w": np.zeros(5)}
    for _ in range(4):
        gradient = generator.standard_normal(5)
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        momentum_step(weights, velocities, {"w": gradient}, 0.1, 0.9)
        np.testing.assert_allclose(weights["w"], parameter.detach().numpy(), rtol=0, atol=1e-12)


def test_the_softmax_does_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        loss, d_p = softmax_cross_entropy(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]))
    assert loss == pytest.approx(5e3) and np.allclose(d_p, [[0, 0], [-0.5, 0.5]])


def test_at_first_all_classes_are_equally_likely():
    x = np.random.default_rng(0).standard_normal((64, 3, SIDE, SIDE)).astype(np.float32)
    for channels in ([], [16, 32, 64]):
        p, _, _ = network_forward(draw_weights(channels, SIDE, 10, np.random.default_rng(1)), x)
        assert p.dtype == np.float32
        assert softmax_cross_entropy(p, np.arange(64) % 10)[0] == pytest.approx(np.log(10), abs=0.05)


def test_one_batch_can_be_overfitted():
    generator = np.random.default_rng(0)
    x, labels = generator.standard_normal((16, 3, 8, 8)).astype(np.float32), generator.integers(10, size=16)
    weights = draw_weights([8, 8], 8, 10, generator)
    velocities = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for _ in range(150):
        p, caches, h = network_forward(weights, x)
        loss, d_p = softmax_cross_entropy(p, labels)
        momentum_step(weights, velocities, network_backward(weights, d_p, caches, h), 0.05, 0.9)
    assert loss < 0.01


def test_an_image_that_is_too_small_for_the_blocks_is_refused():
    with pytest.raises(ValueError, match="4 blocks halve the side to nothing"):
        draw_weights([2] * 4, 8, 10, np.random.default_rng(0))


def test_the_network_is_numpy_alone():
    assert not [name for name, value in vars(numpy_network).items() if "torch" in repr(value)]


def test_the_run_folder(reference):
    names = {re.sub(r"^events\..*", "events", path.name) for path in reference.iterdir()}
    files = ["config.json", "metrics.csv", "events", "checkpoint.pt", "result.json", "curves.png", "curves.pdf"]
    assert names == {*files, "checkpoint.previous.pt", ".lock"}
    config = json.loads((reference / "config.json").read_text())
    assert config["arguments"]["channels"] == [3, 4] and config["images"] == load_images("synthetic").checksum
    metrics = read_metrics(reference / "metrics.csv")
    assert metrics["loss"] == tensorboard_losses(reference)
    assert [step for step, _ in metrics["loss"]] == [2, 3, 4, 6, 8, 9]  # 100 images: 3 batches of 30 an epoch
    assert [step for step, _ in metrics["linear_validation_accuracy"]] == [3, 6, 9]
    result = json.loads((reference / "result.json").read_text())
    assert result["images"] == "synthetic shapes" and result["train_images"] == 100 and result["steps"] == 9


def test_the_reported_accuracies_can_be_counted_again(reference):
    """From the checkpoint's best weights, in PyTorch."""
    best = torch.load(reference / "checkpoint.pt", weights_only=True)["best"]
    result = json.loads((reference / "result.json").read_text())
    data, metrics = load_images("synthetic", num_train=100), read_metrics(reference / "metrics.csv")
    for model, prefix in (("network", ""), ("linear", "linear_")):
        accuracies = [accuracy for _, accuracy in metrics[f"{prefix}validation_accuracy"]]
        assert best[model]["epoch"] == 1 + accuracies.index(max(accuracies)) == result[f"{prefix}best_epoch"]
        for images, reported in ((data.validation, max(accuracies)), (data.test, result[f"{prefix}test_accuracy"])):
            logits = torch_logits(best[model]["weights"], normalise(to_unit(images.pixels), data.mean, data.std))
            found = (logits.argmax(dim=1) == images.labels).double().mean().item()
            assert found == pytest.approx(reported, abs=0.003)  # float32: a tie may go the other way


def test_same_seed_same_run(reference, tmp_path):
    train_here(*SMALL, "--run_dir", tmp_path)
    assert_same_run(tmp_path, reference)


@POSIX
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_within_an_epoch_then_resumed(tmp_path, reference, number, exit_code, capsys, monkeypatch):
    """The signal comes in the middle of step 5 of 9; the resumed run ends as the undisturbed one."""
    steps = 0

    def step_under_fire(*arguments):
        nonlocal steps
        momentum_step(*arguments)
        steps += 1
        if steps == 9:  # two models take 2 in each step: the network's in step 5
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(train_numpy, "momentum_step", step_under_fire)
        with pytest.raises(SystemExit) as stop:
            train_here(*SMALL, "--run_dir", tmp_path)
    assert stop.value.code == exit_code
    error = capsys.readouterr().err
    assert re.fullmatch(r"train_numpy\.py: stopped at step 5; go on with: python part4/\S+ .* --resume\n", error)
    train_here(*error.split("python part4/train_numpy.py ")[1].split())
    assert_same_run(tmp_path, reference)


def test_more_epochs_continue_a_finished_run(reference, tmp_path):
    train_here(*SMALL, "--num_epochs", 2, "--run_dir", tmp_path)
    train_here(*SMALL, "--run_dir", tmp_path, "--resume")
    (found, _, found_result), (expected, _, expected_result) = contents(tmp_path), contents(reference)
    assert found_result == expected_result
    for part in ("model", "velocities", "best"):
        assert bits(found[part]) == bits(expected[part]), part


@POSIX
@pytest.mark.slow
def test_killed_at_every_write(reference, tmp_path):
    """Two durable writes each for config, metrics and result, three for each of three checkpoints (metrics first),
    of which the second and third first move the one before away."""
    assert train_under_fire("part4.train_numpy", "write", tmp_path, *SMALL) == 3 * 2 + 3 * 3 + 2
    for number in range(1, 18):
        assert_same_run(tmp_path / str(number), reference)


@POSIX
@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    words = [*SMALL, "--num_train", "2000", "--num_epochs", "12"]
    assert train(*words, "--run_dir", tmp_path / "whole").returncode == 0
    assert train_under_fire("part4.train_numpy", "random", tmp_path / "killed", *words) > 3
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_divergence_stops_with_a_clear_line(tmp_path, capsys, monkeypatch):
    words = [*SMALL, "--learning_rate", "1e30", "--run_dir", tmp_path]
    line = failure_of(train_numpy.main, "part4/train_numpy.py", words, monkeypatch, capsys, exit_code=1)
    assert re.search(r"diverged at step \d+: the loss of the network is (nan|inf); .*try a lower --learning_rate", line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_size", "0"], "argument --batch_size: must be at least 1, not 0"),
        (["--batch_size", "101", "--num_train", "100"], "batch_size 101 is more than the 100 training examples"),
        (["--num_train", "1000000"], "num_train 1000000 is more than the 4,500 training images there are"),
        (["--channels", "0"], "argument --channels: must be at least 1, not 0"),
        (["--channels", *["2"] * 6], "6 blocks halve 32 pixels to nothing; at most 5 fit"),
        (["--learning_rate", "nan"], "argument --learning_rate/--lr: must be a finite number above 0, not nan"),
        (["--linear_learning_rate", "0"], "argument --linear_learning_rate: must be a finite number above 0"),
        (["--momentum", "1"], "argument --momentum: must be at least 0 and below 1"),
        (["--seed", "-1"], "argument --seed: must be at least 0"),
        (["--dataset", "mnist"], "argument --dataset: invalid choice: 'mnist'"),
        (["--run_dir", "LICENSE/run"], "Not a directory: LICENSE/run"),
        (["--resume", "--run_dir", "no/such/run"], "no/such/run holds no run that could be resumed"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    assert message in failure_of(train_numpy.main, "part4/train_numpy.py", words, monkeypatch, capsys)


def test_a_run_is_resumed_with_its_own_images_only(reference, tmp_path):
    folder = shutil.copytree(reference, tmp_path / "run")
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({**checkpoint, "images": "others"}, folder / "checkpoint.pt")
    assert "was trained on other images: resume it with its own" in one_line(
        train(*SMALL, "--run_dir", folder, "--resume")
    )


def test_a_run_is_resumed_with_its_own_arguments_only(reference, capsys):
    with pytest.raises(SystemExit):
        train_here(*SMALL, "--channels", "3", "--run_dir", reference, "--resume")
    assert "was trained with --channels [3, 4], not [3]" in capsys.readouterr().err
    assert (reference / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["synthetic", "cifar10"])
def test_the_network_beats_the_linear_classifier(tmp_path, dataset):
    if dataset == "cifar10" and not os.environ.get("DATA_DIR"):
        pytest.skip("needs CIFAR-10: set DATA_DIR to a folder that has cifar10/")
    words = ["--dataset", dataset, "--num_train", "4500", "--num_epochs", "5", "--batch_size", "64"]
    done = train(*words, "--run_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test_accuracy"] > result["linear_test_accuracy"] + (0.5 if dataset == "synthetic" else 0.08)


@pytest.mark.slow
def test_every_flag_changes_the_training(tmp_path, reference):
    """Compared by both models' weights after the same few steps, one flag at a time."""
    seen = [contents(reference)[0]["model"]]
    changes = [["--channels", "3"], ["--num_train", "99"], ["--batch_size", "29"], ["--learning_rate", "0.03"]]
    changes += [["--linear_learning_rate", "0.01"], ["--momentum", "0.5"], ["--num_epochs", "2"], ["--seed", "1"]]
    for number, words in enumerate(changes):
        train_here(*SMALL, *words, "--run_dir", tmp_path / str(number))
        model = torch.load(tmp_path / str(number) / "checkpoint.pt", weights_only=True)["model"]
        for other in seen:
            same = all(
                model[kind].keys() == other[kind].keys()
                and all(torch.equal(model[kind][name], other[kind][name]) for name in model[kind])
                for kind in model
            )
            assert not same, words
        seen.append(model)
