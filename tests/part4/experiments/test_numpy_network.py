"""part4/experiments/numpy_network.py: a small experiment from its runs to its figure."""

import csv
import json
import sys

import common.experiment
import part4.experiments.numpy_network as study


def test_the_experiment_from_its_runs_to_its_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common.experiment, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(study, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(study, "SEEDS", (0, 1))
    monkeypatch.setattr(study, "SETTINGS", {"dataset": "synthetic", "num_train": 128, "num_epochs": 2})
    monkeypatch.setattr(sys, "argv", ["part4/experiments/numpy_network.py"])
    study.main()
    with open(tmp_path / "results" / "part4_numpy.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["epoch"]) for row in rows] == [("0", "1"), ("0", "2"), ("1", "1"), ("1", "2")]
    for row in rows:
        result = json.loads((tmp_path / "runs" / f"seed{row['seed']}" / "result.json").read_text())
        assert float(row["test_accuracy"]) == result["test_accuracy"]
        assert float(row["linear_test_accuracy"]) == result["linear_test_accuracy"]
    printed = capsys.readouterr().out
    assert "linear classifier, synthetic shapes: test accuracy 0." in printed
    (tmp_path / "figures" / "part4_numpy.pdf").unlink()
    monkeypatch.setattr(sys, "argv", ["part4/experiments/numpy_network.py", "--draw_only"])
    study.main()
    assert capsys.readouterr().out == printed and (tmp_path / "figures" / "part4_numpy.pdf").exists()
