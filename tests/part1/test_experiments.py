"""The experiments' own computations: gradients of the states, optimizer paths, plans and figures."""

import pytest
import torch
from torch.nn import functional as F

from common.errors import CommandError
from common.machine import seeded_generator
from common.optimizers import OPTIMIZERS
from part1.dataset import draw_palindromes
from part1.experiments import accuracy_by_length, gradient_flow, long_memory, optimizers
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_state_gradients_equal_autograd_on_the_plain_loop(Model):
    """There each h(t) is a tensor of its own, whose gradient autograd can be asked for."""
    model = Model(8, 10, 6, 10, 5, generator=torch.Generator().manual_seed(0)).double()
    palindromes = draw_palindromes(5, 8, torch.Generator().manual_seed(0))
    model.recurrence, state, states = "loop", None, []
    for t in range(7):  # one step at a time
        if Model is LSTM:
            (h,), c = model.states(palindromes[:, t : t + 1], state)
            state = h, c
        else:
            (h,) = model.states(palindromes[:, t : t + 1], state)
            state = h
        states.append(h)
    for number, target in enumerate(palindromes[:, -1]):  # one palindrome's own loss at a time
        loss = F.cross_entropy((h @ model.W_ph.t() + model.b_p)[number : number + 1], target.unsqueeze(0))
        expected = torch.stack(torch.autograd.grad(loss, states, retain_graph=True))
        assert not expected[:, [k for k in range(5) if k != number]].any()
        found = gradient_flow.state_gradients(model, palindromes)[:, number]
        torch.testing.assert_close(found, expected[:, number], rtol=0, atol=1e-12)


def test_gradient_flow_averages_geometrically_over_seeds():
    base = {"family": "handout", "model": "RNN", "T": 3}
    rows = [
        {**base, "seed": seed, "moment": moment, "t": t, "norm": norm * t}
        for seed, norm in enumerate((1.0, 4.0))
        for moment in ("initial", "trained")
        for t in (1, 2)
    ]
    assert gradient_flow.mean_norms(rows, "handout", "RNN", 3) == {
        "initial": pytest.approx([2.0, 4.0]),
        "trained": pytest.approx([2.0, 4.0]),
    }


def test_sgd_path_is_the_one_of_the_formula():
    """Along each axis of the valley SGD multiplies the distance by 1 - learning rate times curvature."""
    points = optimizers.path("sgd", 0.03)
    for step, (x, y, f) in enumerate(points):
        assert x == pytest.approx(-4 * 0.97**step, rel=1e-5)
        assert y == pytest.approx(1.2 * (-0.5) ** step, rel=1e-5, abs=1e-9)
        assert f == pytest.approx((x**2 + 50 * y**2) / 2, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name):
    rows = [row for row in optimizers.all_paths() if row["optimizer"] == name]
    assert rows[-1]["f"] < 0.1 * rows[0]["f"]


def test_adam_starts_with_steps_of_the_learning_rate():
    """Bias correction: the first step has the size of the learning rate in every coordinate."""
    (x_0, y_0, _), (x_1, y_1, _) = optimizers.path("adam", 0.1)[:2]
    assert (x_1 - x_0, y_1 - y_0) == pytest.approx((0.1, -0.1), rel=1e-4)


def test_a_converged_run_keeps_its_last_loss(monkeypatch):
    monkeypatch.setattr(optimizers, "SETTINGS", {"train_steps": 1_500, "eval_every": 50})
    losses = [(50 * k, 1.0 / k) for k in range(1, 11)]
    expected = (sum(1 / k for k in range(1, 11)) + 20 * 0.1) / 30
    assert optimizers.mean_over_run(losses) == pytest.approx(expected)


def test_a_sweep_job_is_the_command_a_reader_would_type(tmp_path):
    job = accuracy_by_length.training_job("tuned", "LSTM", 100, 2, tmp_path)
    assert job.arguments["input_length"] == 99  # T counts the target digit
    assert job.arguments["init"] == "chrono" and job.arguments["seed"] == 2
    assert job.run_dir == tmp_path / "tuned" / "LSTM_T100_seed2"


def test_a_sweep_without_runs_says_so(monkeypatch):
    monkeypatch.setattr("sys.argv", ["accuracy_by_length", "--max_length", "2"])
    with pytest.raises(CommandError, match="at most 2 digits"):
        accuracy_by_length.main()


def test_the_sweep_has_enough_seeds_and_lengths():
    plan = accuracy_by_length.full_plan()
    assert len(plan) == len(set(plan))
    for family, model in accuracy_by_length.SETTINGS:
        seeds = {}
        for run_family, run_model, T, seed in plan:
            if (run_family, run_model) == (family, model):
                seeds.setdefault(T, []).append(seed)
        assert all(number == list(range(len(number))) and len(number) in (3, 5) for number in seeds.values())
        assert set(range(5, 65, 5)) <= set(seeds) if family == "handout" else max(seeds) == 100


@pytest.mark.parametrize("script", [accuracy_by_length, gradient_flow, optimizers, long_memory])
def test_figures_are_drawn_from_the_committed_results(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "FIGURES", tmp_path)
    monkeypatch.setattr("sys.argv", [script.__file__, "--draw_only"])
    script.main()
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png"}
    assert "results and figure" in capsys.readouterr().out


def test_sweep_averages_over_seeds_and_not_over_steps():
    base = {"family": "handout", "model": "RNN"}
    rows = [{**base, "T": T, "seed": s, "test_accuracy": a} for T, s, a in [(10, 0, 1.0), (5, 0, 0.5), (5, 1, 1.0)]]
    assert accuracy_by_length.by_curve(rows) == {("handout", "RNN"): {10: [1.0], 5: [0.5, 1.0]}}


def test_the_tuned_family_reaches_99_percent_at_every_length():
    """The committed results hold what the README says of them."""
    from common.experiment import read_results

    rows = read_results(accuracy_by_length.NAME)
    assert {(row["family"], row["model"], row["T"], row["seed"]) for row in rows} == set(accuracy_by_length.full_plan())
    assert min(row["test_accuracy"] for row in rows if row["family"] == "tuned") >= 0.99


def test_both_models_remember_a_digit_for_a_thousand_steps():
    """The committed results hold what the README says of them: accuracy 0.99, half an hour each."""
    from common.experiment import read_results

    rows = read_results(long_memory.NAME)
    assert {(row["model"], row["T"], row["seed"]) for row in rows} == set(long_memory.full_plan())
    longest = [row for row in rows if row["T"] == 1000]
    assert max(row["seconds"] for row in longest) < 30 * 60
    assert min(row["test_accuracy"] for row in rows) >= 0.99


def test_long_memory_averages_the_gradients_of_its_own_runs(tmp_path, monkeypatch):
    """Two tiny runs of each model, trained for a few steps; the rows against `state_gradients` called by hand."""
    from part1 import train

    monkeypatch.setattr(long_memory, "RUNS", tmp_path)
    monkeypatch.setattr(long_memory, "LENGTHS", (5, 9))
    monkeypatch.setattr(long_memory, "NUM_SEEDS_LONGEST", 2)
    for model in long_memory.MODELS:
        for seed in (0, 1):
            job = long_memory.training_job(model, 9, seed)
            words = [f"--{name}={value}" for name, value in job.arguments.items()]
            monkeypatch.setattr("sys.argv", ["part1/train.py", *words, f"--run_dir={job.run_dir}", "--train_steps=2"])
            train.main()
    rows = long_memory.gradients()
    assert len(rows) == 2 * 2 * 8
    model = VanillaRNN(9, 10, 128, 10, 1)
    norms = []
    for seed in (0, 1):
        folder = long_memory.training_job("RNN", 9, seed).run_dir
        model.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["model"])
        palindromes = draw_palindromes(long_memory.NUM_PALINDROMES, 9, seeded_generator(seed, "gradient flow"))
        norms.append(gradient_flow.state_gradients(model.double(), palindromes).norm(dim=2).mean(dim=1)[3].item())
        model.float()
    (row,) = [row for row in rows if (row["model"], row["moment"], row["t"]) == ("RNN", "trained", 4)]
    assert float(row["norm"]) == pytest.approx(sum(norms) / 2, rel=1e-4)
