"""The experiments' own computations: gradients of the states, optimizer paths, plans and figures."""

import json

import pytest
import torch
from torch.nn import functional as F

from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from common.machine import seeded_generator
from common.optimizers import OPTIMIZERS
from part1 import train
from part1.dataset import draw_palindromes
from part1.experiments import accuracy_by_length, gradient_flow, long_memory, optimizers, variants
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from tests.harness import sweeps_below


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
    rows = optimizers.all_paths((name,))
    assert rows[-1]["f"] < 0.1 * rows[0]["f"]


def test_adam_starts_with_steps_of_the_learning_rate():
    """Bias correction: the first step has the size of the learning rate in every coordinate."""
    (x_0, y_0, _), (x_1, y_1, _) = optimizers.path("adam", 0.1)[:2]
    assert (x_1 - x_0, y_1 - y_0) == pytest.approx((0.1, -0.1), rel=1e-4)


def test_a_converged_run_keeps_its_last_loss():
    losses = [(50 * k, 1.0 / k) for k in range(1, 11)]
    expected = (sum(1 / k for k in range(1, 11)) + 20 * 0.1) / 30
    assert optimizers.mean_over_run(losses, 1_500) == pytest.approx(expected)
    assert optimizers.mean_over_run([(20, 2.0)], 20) == 2.0  # shorter than the way to the first evaluation


def test_a_sweep_job_is_the_command_a_reader_would_type():
    job = accuracy_by_length.training_job("tuned", "LSTM", 100, 2)
    assert job.arguments["input_length"] == 99  # T counts the target digit
    assert job.arguments["init"] == "chrono" and job.arguments["seed"] == 2
    assert job.run_dir == accuracy_by_length.RUNS / "tuned" / "LSTM_T100_seed2"


@pytest.mark.parametrize("script", [accuracy_by_length, gradient_flow, long_memory])
def test_lengths_and_seeds_are_those_asked_for(script):
    args = script.build_parser().parse_args("--lengths 33 7 --seeds 4 --models LSTM --train_steps 20".split())
    assert (args.lengths, args.seeds, args.models, args.settings) == ((7, 33), (4,), ("LSTM",), {"train_steps": 20})
    if script is not gradient_flow:  # which has no function for its plan
        assert {run[-3:] for run in script.chosen_plan(args)} == {("LSTM", 7, 4), ("LSTM", 33, 4)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lengths", "1"], "argument --lengths: must be at least 2, not 1"),
        (["--seeds", "-1"], "argument --seeds: must be at least 0, not -1"),
        (["--models", "GRU"], "argument --models: invalid choice: 'GRU'"),
        (["--train_steps", "0"], "argument --train_steps: must be at least 1, not 0"),
    ],
)
@pytest.mark.parametrize("script", [accuracy_by_length, gradient_flow, long_memory])
def test_impossible_sweeps_are_refused(script, words, message):
    with pytest.raises(CommandError, match=message):
        script.build_parser().parse_args(words)


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
    monkeypatch.setattr(experiment, "FIGURES", tmp_path)
    monkeypatch.setattr("sys.argv", [script.__file__, "--draw_only"])
    script.main()
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png"}
    assert "results and figure" in capsys.readouterr().out


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    return sweeps_below(tmp_path, train, monkeypatch, capsys, runs=[accuracy_by_length])


@pytest.mark.parametrize(
    ("script", "words", "names"),
    [
        (accuracy_by_length, "--lengths 2 --models LSTM --families tuned", ["part1_accuracy_by_length"]),
        (gradient_flow, "--lengths 2 --models RNN --families handout", ["part1_gradient_flow"]),
        (long_memory, "--lengths 2 --models RNN", ["part1_long_memory", "part1_long_memory_gradients"]),
        (optimizers, "--optimizers sgd", ["part1_optimizers", "part1_optimizer_paths"]),
        (variants, "--families handout --lengths 3 --models GRU --datasets bss", ["part1_variants"]),
    ],
)
def test_the_smallest_sweep_is_drawn_beside_its_runs(script, words, names, sweep, tmp_path):
    """One length, one seed, one model; and again from the finished run."""
    words += " --seeds 1 --train_steps 2"
    printed = sweep(script, words)
    results = tmp_path / "runs" / "part1" / names[0].removeprefix("part1_")
    assert {path.name for path in results.iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("csv", "json", "pdf", "png")
    }
    (results / f"{names[0]}.pdf").unlink()
    assert printed.endswith(sweep(script, words + " --draw_only")) and (results / f"{names[0]}.pdf").exists()
    assert all(run.parent.name.endswith("_train_steps_2") for run in tmp_path.rglob("result.json"))


def test_variants_train_on_every_data_set(sweep, tmp_path, monkeypatch):
    """Lengths are those of the data set: of palindromes one less is read."""
    monkeypatch.setattr(train, "NUM_VALIDATION", 20)
    monkeypatch.setattr(train, "NUM_TEST", 100)
    printed = sweep(variants, "--lengths 4 --models GRU peepLSTM --seeds 0 1 --train_steps 1")
    rows = read_results("part1_variants", tmp_path / "runs" / "part1" / "variants")
    assert len(rows) == 7 * 2 * 2 and {row["T"] for row in rows} == {4}
    configs = [json.loads(path.read_text())["arguments"] for path in tmp_path.rglob("config.json")]
    assert {(c["dataset"], c["input_length"]) for c in configs} == {
        ("palindromes", 3), ("randomcomb", 4), ("bss", 4), ("bipalindrome", 4),
    }  # fmt: skip
    assert "handout, bss, peepLSTM: T = 4 0." in printed and " ± 0." in printed
    assert {path.name for path in (tmp_path / "runs" / "part1" / "variants").glob("*.pdf")} == {
        "part1_variants.pdf", "part1_variants_longer.pdf",
    }  # fmt: skip


def test_the_checks_are_run_where_the_handout_names_them():
    args = variants.build_parser().parse_args(["--families", "checks", "--seeds", "0"])
    runs = {(dataset, model, T) for family, dataset, model, T, _ in variants.chosen_plan(args)}
    assert runs == {
        ("randomcomb", "LSTM", 6), ("bss", "LSTM", 6), ("bipalindrome", "LSTM", 10),
        ("bss", "GRU", 6), ("randomcomb", "biLSTM", 5), ("bipalindrome", "peepLSTM", 6),
    }  # fmt: skip
    assert variants.SETTINGS["checks", "bss"] == {**variants.SETTINGS["handout", "bss"], "converged_accuracy": 1.0}


def test_variants_of_several_days_come_into_one_table(sweep, tmp_path, monkeypatch):
    """--add does the runs that the committed table lacks, and keeps its other rows."""
    monkeypatch.setattr(train, "NUM_VALIDATION", 20)
    monkeypatch.setattr(train, "NUM_TEST", 100)
    monkeypatch.setattr(experiment, "working_tree", lambda: ("1234", []))
    monkeypatch.setattr(experiment, "RESULTS", tmp_path)
    monkeypatch.setattr(experiment, "FIGURES", tmp_path)
    settings = variants.SETTINGS["handout", "bss"]
    monkeypatch.setitem(variants.SETTINGS, ("handout", "bss"), {**settings, "train_steps": 1})
    words = "--add --families handout --datasets bss --lengths 4 --models"
    sweep(variants, f"{words} peepLSTM --seeds 1")
    printed = sweep(variants, f"{words} GRU peepLSTM --seeds 1")
    rows = read_results("part1_variants", tmp_path)
    assert [(row["model"], row["seed"]) for row in rows] == [("GRU", 1), ("peepLSTM", 1)]
    assert "handout, bss, GRU: T = 4 0." in printed and "peepLSTM: T = 4 0." in printed
    monkeypatch.setattr(experiment, "run_jobs", lambda *_: pytest.fail("there is nothing to run"))
    assert printed.endswith(sweep(variants, f"{words} GRU --seeds 1"))


def test_draw_only_draws_what_there_is_of_a_sweep(sweep, tmp_path):
    words = "--models RNN --families tuned --train_steps 2 --lengths 5"
    sweep(accuracy_by_length, words + " --seeds 0")
    assert "tuned RNN, mean accuracy by length: 5: " in sweep(accuracy_by_length, words + " 9 --seeds 0 1 --draw_only")
    assert len(read_results(accuracy_by_length.NAME, tmp_path / "runs" / "part1" / "accuracy_by_length")) == 1
    with pytest.raises(CommandError, match="no run of this sweep is finished"):
        sweep(accuracy_by_length, words + " --seeds 2 --draw_only")


def test_sweep_averages_over_seeds_and_not_over_steps():
    base = {"family": "handout", "model": "RNN"}
    rows = [{**base, "T": T, "seed": s, "test_accuracy": a} for T, s, a in [(10, 0, 1.0), (5, 0, 0.5), (5, 1, 1.0)]]
    assert accuracy_by_length.by_curve(rows) == {("handout", "RNN"): {10: [1.0], 5: [0.5, 1.0]}}


def test_the_tuned_family_reaches_99_percent_at_every_length():
    """The committed results hold what the README says of them."""
    rows = read_results(accuracy_by_length.NAME)
    assert {(row["family"], row["model"], row["T"], row["seed"]) for row in rows} == set(accuracy_by_length.full_plan())
    assert min(row["test_accuracy"] for row in rows if row["family"] == "tuned") >= 0.99


def test_both_models_remember_a_digit_for_a_thousand_steps():
    """The committed results hold what the README says of them: accuracy 0.99, half an hour each."""
    rows = read_results(long_memory.NAME)
    assert {(row["model"], row["T"], row["seed"]) for row in rows} == set(long_memory.full_plan())
    longest = [row for row in rows if row["T"] == 1000]
    assert max(row["seconds"] for row in longest) < 30 * 60
    assert min(row["test_accuracy"] for row in rows) >= 0.99


def test_long_memory_averages_the_gradients_of_its_longest_runs(sweep, tmp_path):
    """Tiny runs, trained for a few steps; the rows against `state_gradients` called by hand."""
    sweep(long_memory, "--models RNN --lengths 5 9 --seeds 0 1 --train_steps 2")
    rows = read_results(long_memory.GRADIENTS, tmp_path / "runs" / "part1" / "long_memory")
    assert len(rows) == 2 * 8 and {row["T"] for row in rows} == {9}
    model = VanillaRNN(9, 10, 128, 10, 1)
    norms = []
    for seed in (0, 1):
        folder = tmp_path / "of_the_sweep" / f"RNN_T9_seed{seed}_train_steps_2"
        model.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["model"])
        palindromes = draw_palindromes(long_memory.NUM_PALINDROMES, 9, seeded_generator(seed, "gradient flow"))
        norms.append(gradient_flow.state_gradients(model.double(), palindromes).norm(dim=2).mean(dim=1)[3].item())
        model.float()
    (row,) = [row for row in rows if (row["model"], row["moment"], row["t"]) == ("RNN", "trained", 4)]
    assert float(row["norm"]) == pytest.approx(sum(norms) / 2, rel=1e-4)
