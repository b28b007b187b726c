"""part4/experiments/robustness.py: CE and RCE by hand, and a small experiment from its runs to its figures."""

import csv
import json
import math
import shutil
import sys

import pytest
import torch

import common.experiment
import part4.cifar10
import part4.train
from common.errors import CommandError
from part4.cifar10 import load_images, normalise, to_unit
from part4.corruptions import CORRUPTIONS, SEVERITIES, gaussian_noise_transform, jpeg_transform
from part4.experiments import robustness
from part4.experiments.robustness import corruption_error, corruption_errors, relative_corruption_error
from part4.networks import get_model
from tests.harness import failure_of, one_line, run_script

SETTINGS = {"dataset": "synthetic", "num_train": 64, "batch_size": 32, "epochs": 2, "seed": 42}
MODELS = ("debug", "resnet18")


@pytest.fixture(scope="module", autouse=True)
def few_images():
    """100 test images instead of 1,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part4.cifar10, "NUM_SYNTHETIC", {"train": 200, "test": 100})
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of the linear classifier and one of ResNet-18."""
    folder = tmp_path_factory.mktemp("runs")
    words = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    for model in MODELS:
        with pytest.MonkeyPatch.context() as patch:
            command = ["part4/train.py", "--model_name", model, *words, "--run_dir", str(folder / model)]
            patch.setattr(sys, "argv", command)
            part4.train.main()
    return folder


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Where results and figures of a sweep of one's own go."""
    monkeypatch.setattr(common.experiment, "ROOT", tmp_path)
    return tmp_path / "runs" / "part4" / "robustness"


def run(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["part4/experiments/robustness.py", *map(str, words)])
        robustness.main()


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_ce_and_rce_by_hand():
    """Errors of 0.2 to 0.6 sum to 2.0, the reference's to 2.5; from 0.1 and 0.3 on they add 1.5 and 1.0."""
    errors, reference = [0.2, 0.3, 0.4, 0.5, 0.6], [0.3, 0.4, 0.5, 0.6, 0.7]
    assert corruption_error(errors, reference) == pytest.approx(0.8)
    assert relative_corruption_error(errors, 0.1, reference, 0.3) == pytest.approx(1.5)
    # subtracted once only, as the brackets could be read too, it would be (2.0 - 0.1) / (2.5 - 0.3)
    assert relative_corruption_error(errors, 0.1, reference, 0.3) != pytest.approx(1.9 / 2.2)
    assert corruption_error(reference, reference) == relative_corruption_error(reference, 0.3, reference, 0.3) == 1
    assert math.isnan(corruption_error(errors, [0] * 5))
    assert math.isnan(relative_corruption_error(errors, 0.1, [0.5] * 5, 0.5))


def made_up(model, clean, loss_a_severity):
    rows = [{"images": "X", "model": model, "corruption": "clean", "severity": 0, "accuracy": clean}]
    for k, corruption in enumerate(CORRUPTIONS, start=1):
        for severity in SEVERITIES:
            accuracy = clean - k * severity * loss_a_severity
            rows.append({**rows[0], "corruption": corruption, "severity": severity, "accuracy": accuracy})
    return rows


def test_the_table_of_corruption_errors():
    rows = [*made_up("resnet18", 0.9, 0.01), *made_up("vgg11", 0.8, 0.02)]
    found = {(row["model"], row["corruption"]): (row["CE"], row["RCE"]) for row in corruption_errors(rows)}
    assert all(found["resnet18", corruption] == ("1.0000", "1.0000") for corruption in (*CORRUPTIONS, "mean"))
    # noise: errors of 0.2 + 0.02 s and 0.1 + 0.01 s; JPEG: 0.2 + 0.08 s and 0.1 + 0.04 s
    assert set(found["vgg11", corruption] for corruption in (*CORRUPTIONS, "mean")) == {("2.0000", "2.0000")}
    more_rows = [*rows, *made_up("resnet34", 0.95, 0.01)]
    better = {(row["model"], row["corruption"]): row for row in corruption_errors(more_rows)}
    assert better["resnet34", "JPEG"]["CE"] == f"{(5 * 0.05 + 15 * 0.04) / (5 * 0.1 + 15 * 0.04):.4f}"
    assert better["resnet34", "JPEG"]["RCE"] == "1.0000"
    assert corruption_errors(made_up("vgg11", 0.8, 0.02)) == []


def test_accuracies_can_be_counted_again(runs, results, monkeypatch):
    few = {name: CORRUPTIONS[name] for name in ("Gaussian noise", "JPEG")}
    monkeypatch.setattr(robustness, "CORRUPTIONS", few)
    run("--runs", runs / "debug", runs / "resnet18", "--name", "mine")
    rows = {
        (row["model"], row["corruption"], int(row["severity"])): float(row["accuracy"])
        for row in table(results / "mine_robustness.csv")
    }
    assert len(rows) == 2 * (1 + 2 * 5)
    for name in MODELS:
        result = json.loads((runs / name / "result.json").read_text())
        assert rows[name, "clean", 0] == result["test_accuracy"]
    data, best = load_images("synthetic"), torch.load(runs / "debug" / "best.pt", weights_only=True)
    model = get_model("debug")
    model.load_state_dict(best["model"])
    for name, transform in (("Gaussian noise", gaussian_noise_transform(4)), ("JPEG", jpeg_transform(4))):
        images = torch.stack([transform(image) for image in to_unit(data.test.pixels)])
        right = model(normalise(images, best["mean"], best["std"])).argmax(dim=1) == data.test.labels
        assert rows["debug", name, 4] == pytest.approx(right.double().mean().item())


def test_the_experiment_from_its_runs_to_its_figures(runs, tmp_path, monkeypatch, capsys):
    """The runs are there already, so none is started; then all is drawn again from the results alone."""
    monkeypatch.setattr(common.experiment, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(common.experiment, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(robustness, "ARCHITECTURES", ("resnet18", "debug"))  # as LABELS has them
    monkeypatch.setattr(robustness, "SETTINGS", SETTINGS)
    monkeypatch.setattr(robustness, "RUNS", runs)
    monkeypatch.setattr(robustness, "CORRUPTIONS", {name: CORRUPTIONS[name] for name in ("contrast", "JPEG")})
    run("--allow_dirty")
    tables = {"part4_training", "part4_curves", "part4_robustness", "part4_corruption_errors"}
    assert {path.stem for path in (tmp_path / "results").iterdir()} == tables
    figures = {"part4_robustness", "part4_resnet18", "part4_curves"}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == figures
    for path in (tmp_path / "results").glob("*.json"):
        provenance = json.loads(path.read_text())
        assert provenance["command"] == "python part4/experiments/robustness.py --allow_dirty"
        assert provenance["seeds"] == [42]
    resnet, linear = table(tmp_path / "results" / "part4_training.csv")
    assert (linear["model"], linear["parameters"], linear["images"]) == ("debug", "30730", "synthetic shapes")
    assert (resnet["model"], resnet["epochs"], resnet["num_train"], resnet["lr"]) == ("resnet18", "2", "64", "0.01")
    curves = table(tmp_path / "results" / "part4_curves.csv")
    assert [(row["model"], row["epoch"]) for row in curves] == [
        (model, epoch) for model in ("resnet18", "debug") for epoch in "12"
    ]
    assert 0 <= float(curves[2]["validation_accuracy"]) <= 1 and float(curves[1]["loss"]) > 0
    printed = capsys.readouterr().out
    shutil.rmtree(tmp_path / "figures")
    run("--draw_only")
    assert capsys.readouterr().out == printed
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == figures


def test_runs_of_ones_own_leave_the_committed_results_alone(runs, results, monkeypatch, capsys):
    monkeypatch.setattr(robustness, "CORRUPTIONS", {"contrast": CORRUPTIONS["contrast"]})
    run("--runs", runs / "debug")
    printed = capsys.readouterr().out
    assert "linear: accuracy 0." in printed and "CE and RCE compare with ResNet-18: pass a run of it, too" in printed
    assert {path.name for path in results.glob("*.csv")} == {
        f"part4_{t}.csv" for t in ("training", "curves", "robustness")
    }
    assert {path.name for path in results.glob("*.png")} == {"part4_robustness.png", "part4_curves.png"}


def test_a_sweep_of_ones_own_draws_the_runs_that_are_finished(runs, results, monkeypatch, capsys):
    """Of three networks, two have been trained with these settings."""
    monkeypatch.setattr(robustness, "RUNS", runs)
    monkeypatch.setattr(robustness, "SETTINGS", SETTINGS)
    monkeypatch.setattr(robustness, "CORRUPTIONS", {"contrast": CORRUPTIONS["contrast"]})
    run("--models", "debug", "resnet18", "vgg11", "--draw_only")
    assert [row["model"] for row in table(results / "part4_training.csv")] == ["resnet18", "debug"]
    with pytest.raises(CommandError, match="no run of this sweep is finished"):
        run("--models", "debug", "--epochs", "1", "--draw_only")
    capsys.readouterr()


def test_what_cannot_stand_in_one_table_is_refused(runs, results, tmp_path):
    with pytest.raises(CommandError, match=r"are both runs of debug: pass one for each network"):
        run("--runs", runs / "debug", runs / "debug")
    message = r"nowhere holds no finished run of part4/train\.py: config\.json is missing"
    with pytest.raises(CommandError, match=message):
        run("--runs", tmp_path / "nowhere")
    shutil.copytree(runs / "debug", tmp_path / "run")
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    torch.save({**best, "images": "others"}, tmp_path / "run" / "best.pt")
    with pytest.raises(CommandError, match="was trained on other images than the synthetic shapes found here"):
        run("--runs", tmp_path / "run")
    torch.save({**best, "arguments": {"model_type": "RNN"}}, tmp_path / "run" / "best.pt")
    with pytest.raises(CommandError, match=r"holds no run of part4/train\.py"):
        run("--runs", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(CommandError, match=r"result\.json is missing"):
        run("--runs", tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_train", "127"], "argument --num_train: must be at least 128, a batch, not 127"),
        (["--models", "gru"], "argument --models: invalid choice: 'gru'"),
        (["--dataset", "synthetic", "--num_train", "999999"], "999999"),
        (["--jobs", "0"], "argument --jobs: must be at least 1, not 0"),
        (["--runs"], "argument --runs: expected at least one argument"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    assert message in failure_of(robustness.main, "part4/experiments/robustness.py", words, monkeypatch, capsys)


def test_as_a_module():
    assert "holds no finished run" in one_line(run_script("-m", "part4.experiments.robustness", "--runs", "part4"))


def test_the_experiment_trains_the_five_networks_of_the_question():
    assert set(robustness.ARCHITECTURES) == {"vgg11", "vgg11_bn", "resnet18", "resnet34", "densenet121"}
    assert set(robustness.LABELS) == {*robustness.ARCHITECTURES, "debug"}
    assert robustness.SETTINGS["dataset"] == "cifar10"
