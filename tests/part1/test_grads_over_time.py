"""The gradient over time: against finite differences, and what the script and the experiment write."""

import csv

import pytest
import torch
from torch.nn import functional as F

from common.errors import CommandError
from common.experiment import read_results
from common.machine import seeded_generator
from part1 import train
from part1.dataset import draw_palindromes
from part1.experiments import accuracy_by_length
from part1.experiments import grads_over_time as sweep_script
from part1.grads_over_time import MODELS, load_run, state_gradients
from part1.lstm import LSTM
from tests.harness import ROOT, run_script, sweeps_below

T, n = 7, 5
SMALL = ("--input_length", 6, "--num_hidden", 5, "--batch_size", 4)


@pytest.mark.parametrize("name", MODELS)
def test_state_gradients_equal_finite_differences(name):
    """Each unit of each h(t) is moved a little, c(t) stays, and the equations go on from there."""
    model = MODELS[name](T, 1, n, 10, 1, generator=torch.Generator().manual_seed(0), recurrence="loop").double()
    palindrome = draw_palindromes(1, T, torch.Generator().manual_seed(0))

    def step(h, c, t):
        x = palindrome[:, t : t + 1]
        if name == "RNN":
            return model.states(x, h)[-1], c
        h, c = model.states(x, (h, c))
        return h[-1], c

    @torch.no_grad()
    def loss(moved=None, unit=0, by=0.0):
        h = c = torch.zeros(1, n).double()
        for t in range(T - 1):
            h, c = step(h, c, t)
            if t == moved:
                h = h + by * torch.eye(n)[unit]
        return F.cross_entropy(h @ model.W_ph.T + model.b_p, palindrome[:, -1]).item()

    found = state_gradients(model, palindrome)[:, 0]
    assert found.shape == (T - 1, n)
    for t in range(T - 1):
        for unit in range(n):
            difference = (loss(t, unit, 1e-5) - loss(t, unit, -1e-5)) / 2e-5
            assert found[t, unit].item() == pytest.approx(difference, rel=1e-5, abs=1e-10)


def rows_of(folder):
    with open(folder / "grads_over_time.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_untrained_models_are_those_of_train_py(tried, tmp_path):
    """First weights and norms, of the first palindrome and on average; a line for each model."""
    ending = tried("part1.grads_over_time", *SMALL, "--seed", 3, "--lstm_init", "chrono", "--output", tmp_path)
    assert ending.code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        f"grads_over_time.{end}" for end in ("csv", "json", "pdf", "png")
    }
    rows = rows_of(tmp_path)
    assert [(row["name"], row["t"]) for row in rows] == [(name, str(t)) for name in MODELS for t in range(1, T)]
    for name, init in (("RNN", "default"), ("LSTM", "chrono")):
        model = MODELS[name](T, 1, 5, 10, 4, init=init, generator=seeded_generator(3, "weights")).double()
        palindromes = draw_palindromes(4, T, seeded_generator(3, "gradient flow"))
        norms = state_gradients(model, palindromes).norm(dim=2)
        mine = [row for row in rows if row["name"] == name]
        assert [float(row["mean"]) for row in mine] == pytest.approx(norms.mean(dim=1).tolist(), rel=1e-5)
        assert [float(row["first_palindrome"]) for row in mine] == pytest.approx(norms[:, 0].tolist(), rel=1e-5)
        first, last = norms.mean(dim=1)[[0, -1]]
        assert (
            f"{name}, untrained: |dL/dh(1)| / |dL/dh(6)| = {first:.1e} / {last:.1e} = {first / last:.1e}" in ending.out
        )


def test_it_runs_from_inside_the_part_too(tmp_path):
    done = run_script("grads_over_time.py", *SMALL, "--output", tmp_path, cwd=ROOT / "part1")
    assert done.returncode == 0 and len(rows_of(tmp_path)) == 2 * (T - 1), done.stderr


@pytest.fixture(scope="module")
def run_dir(tried, tmp_path_factory):
    """A short run of train.py."""
    run = tmp_path_factory.mktemp("grads") / "run"
    words = ("--model_type", "LSTM", "--init", "chrono", "--train_steps", 3, "--batch_size", 8)
    assert tried("part1.train", "--input_length", 4, "--num_hidden", 5, *words, "--run_dir", run).code == 0
    return run


def test_a_run_is_shown_before_and_after_training(run_dir, tried, tmp_path):
    ending = tried("part1.grads_over_time", *SMALL, "--checkpoint", run_dir, "--output", tmp_path)
    assert ending.code == 0
    rows = [row for row in rows_of(tmp_path) if row["name"].endswith("run")]
    models, palindromes = load_run(run_dir, 4)
    assert palindromes.shape == (4, 5) and ending.out.count(", after training: |dL/dh(1)| / |dL/dh(4)| = ") == 1
    for moment, label in (("initial", "before training"), ("trained", "after training")):
        norms = state_gradients(models[moment], palindromes).norm(dim=2).mean(dim=1).tolist()
        assert [float(row["mean"]) for row in rows if row["moment"] == label] == pytest.approx(norms, rel=1e-5)


def test_load_run_returns_the_first_and_the_last_weights(run_dir):
    models, _ = load_run(run_dir, 1)
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)["model"]
    first = LSTM(5, 1, 5, 10, 8, init="chrono", generator=seeded_generator(0, "weights"))
    for name, weights in models["trained"].state_dict().items():
        assert torch.equal(weights, saved[name].double())
        assert torch.equal(models["initial"].state_dict()[name], first.state_dict()[name].double())
        assert not torch.equal(weights, first.state_dict()[name].double())


def test_what_is_no_run_on_palindromes_is_one_line(run_dir, tried, tmp_path):
    words = ("part1.grads_over_time", *SMALL, "--output", tmp_path / "out", "--checkpoint")
    assert "does not exist: the checkpoint of a run of part1/train.py is expected" in tried(*words, tmp_path).line
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    for changed, message in (
        ({"model_type": "GRU"}, "holds no RNN or LSTM that part1/train.py trained on palindromes"),
        ({"dataset": "randomcomb"}, "holds no RNN or LSTM that part1/train.py trained on palindromes"),
        ({"num_hidden": 6}, "holds no model that fits together"),
    ):
        torch.save({**checkpoint, "arguments": {**checkpoint["arguments"], **changed}}, tmp_path / "checkpoint.pt")
        assert message in tried(*words, tmp_path).line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input_length", 0), "argument --input_length: must be at least 1, not 0"),
        (("--rnn_init", "chrono"), "argument --rnn_init: invalid choice: 'chrono'"),
        (("--input_dim", 2), "argument --input_dim: invalid choice: 2"),
    ],
)
def test_impossible_arguments_are_one_line(words, message, tried):
    assert tried("part1.grads_over_time", *words).line.startswith(message)


# The experiment


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    return sweeps_below(tmp_path, train, monkeypatch, capsys, runs=[accuracy_by_length])


def test_the_smallest_sweep_is_drawn_beside_its_runs(sweep, tmp_path):
    words = "--length 3 --models RNN --seeds 0 1 --train_steps 1"
    printed = sweep(sweep_script, words)
    folder = tmp_path / "runs" / "part1" / "grads_over_time"
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.{end}" for name in (sweep_script.NAME, sweep_script.RUNS_NAME) for end in ("csv", "json")),
        *(f"{sweep_script.NAME}.{end}" for end in ("pdf", "png")),
    }
    assert printed.endswith(sweep(sweep_script, words + " --draw_only"))
    rows, runs = read_results(sweep_script.NAME, folder), read_results(sweep_script.RUNS_NAME, folder)
    assert len(rows) == 2 * 2 * 2 * 2 and [(run["family"], run["seed"]) for run in runs] == [
        ("handout", 0), ("handout", 1), ("tuned", 0), ("tuned", 1),
    ]  # fmt: skip
    models, palindromes = load_run(tmp_path / "accuracy" / "tuned" / "RNN_T3_seed1_train_steps_1", 500)
    norm = state_gradients(models["trained"], palindromes).norm(dim=2).mean(dim=1)[1].item()
    wanted = {"family": "tuned", "seed": 1, "moment": "trained", "t": 2}
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    assert row["norm"] == pytest.approx(norm, rel=1e-5)


def test_impossible_lengths_are_refused():
    with pytest.raises(CommandError, match="argument --length: must be at least 2, not 1"):
        sweep_script.build_parser().parse_args(["--length", "1"])
