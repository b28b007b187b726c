"""part4/experiments/numpy_network.py: a small experiment from its runs to its figure."""

import csv
import json
import sys

import pytest

import common.experiment
import part4.experiments.numpy_network as study
from common.errors import CommandError


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["part4/experiments/numpy_network.py", *words])
    study.main()


def test_the_experiment_from_its_runs_to_its_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common.experiment, "ROOT", tmp_path)
    monkeypatch.setattr(study, "RUNS", tmp_path / "runs")
    words = "--dataset synthetic --num_train 128 --epochs 2 --seeds 0 1".split()
    run(monkeypatch, *words)
    results = tmp_path / "runs" / "part4" / "numpy"
    with open(results / "part4_numpy.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["epoch"]) for row in rows] == [("0", "1"), ("0", "2"), ("1", "1"), ("1", "2")]
    for row in rows:
        folder = tmp_path / "runs" / f"seed{row['seed']}_dataset_synthetic_num_train_128_num_epochs_2"
        result = json.loads((folder / "result.json").read_text())
        assert float(row["test_accuracy"]) == result["test_accuracy"]
        assert float(row["linear_test_accuracy"]) == result["linear_test_accuracy"]
    printed = capsys.readouterr().out
    assert "linear classifier, synthetic shapes: test accuracy 0." in printed
    (results / "part4_numpy.pdf").unlink()
    run(monkeypatch, *words, "--draw_only")
    assert capsys.readouterr().out == printed and (results / "part4_numpy.pdf").exists()


def test_the_figure_of_a_single_epoch(tmp_path):
    study.draw(common.experiment.read_results(study.NAME)[-1:], tmp_path)
    assert (tmp_path / "part4_numpy.png").exists()


def test_more_training_images_than_there_are_start_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RUNS", tmp_path)
    with pytest.raises(CommandError, match="9999999"):
        run(monkeypatch, "--dataset", "synthetic", "--num_train", "9999999")
    assert not list(tmp_path.iterdir())
