"""Copy, adding and recall: the tasks, the GRU with biases, the rules of training, its run folder, and the sweep."""

import json
import math
import os
import re
import signal

import pytest
import torch
from torch.nn import functional as F

from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from common.machine import seeded_generator
from common.run_folder import read_metrics
from part1 import memory_tasks
from part1.experiments import memory_tasks as memory_sweep
from part1.memory_tasks import (
    MODELS,
    TASKS,
    BiasedGRU,
    State,
    accuracy_of,
    batches_between,
    lasts,
    loss_of,
    predict,
)
from part1.vanilla_rnn import VanillaRNN
from tests.harness import (
    POSIX,
    assert_same_run,
    contents,
    failure_of,
    one_line,
    run_script,
    sweeps_below,
    tensorboard_losses,
    train_under_fire,
)

SMALL = ["--task", "recall", "--model_type", "LSTM", "--init", "chrono", "--length", "100", "--curriculum", "0"]
SMALL += ["--num_hidden", "16", "--batch_size", "4", "--budget", "6100"]


def train(*words, **options):
    return run_script("part1/memory_tasks.py", *words, **options)


def draw(task, num, T, seed=0):
    return TASKS[task].draw(num, T, torch.Generator().manual_seed(seed))


# The tasks


@pytest.mark.parametrize("T", [2, 3, 17])
def test_copy_shows_ten_symbols_and_asks_for_them_after_the_delimiter(T):
    x, y = draw("copy", 200, T)
    assert x.shape == (200, T + 20, 10) and y.shape == (200, T + 20)
    for vectors, answers in zip(x.tolist(), y.tolist()):
        read = [vector.index(1) for vector in vectors]
        assert [vector[symbol] for vector, symbol in zip(vectors, read)] == [sum(map(abs, v)) for v in vectors]
        symbols = read[:10]
        assert read == symbols + [8] * (T - 1) + [9] + [8] * 10
        assert answers == [8] * (T + 10) + symbols and max(symbols) < 8
    assert x[:, :10].mean(dim=0)[:, :8].sub(1 / 8).abs().max() < 0.1  # each symbol is as frequent at each place


@pytest.mark.parametrize("T", [2, 5, 12])
def test_adding_marks_a_number_in_each_half_and_asks_for_their_sum(T):
    x, y = draw("adding", 3000, T)
    assert x.shape == (3000, T, 2) and y.shape == (3000,)
    places = set()
    for pairs, total in zip(x.tolist(), y.tolist()):
        marked = [t for t, (_, marker) in enumerate(pairs) if marker == 1]
        first, second = marked
        assert sum(marker for _, marker in pairs) == 2 and first < T // 2 <= second
        assert total == pytest.approx(pairs[first][0] + pairs[second][0], abs=1e-6)
        places.update(marked)
    assert places == set(range(T))
    numbers = x[..., 0]
    assert numbers.min() >= 0 and numbers.max() < 1 and numbers.mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("T", [2, 9])
def test_recall_marks_one_digit_at_any_step_and_asks_for_it(T):
    x, y = draw("recall", 3000, T)
    assert x.shape == (3000, T, 11) and y.shape == (3000,)
    counts = [0] * T
    for vectors, answer in zip(x.tolist(), y.tolist()):
        (place,) = (t for t, vector in enumerate(vectors) if vector[10])
        counts[place] += 1
        assert all(sorted(vector[:10]) == [0] * 9 + [1] for vector in vectors)
        assert vectors[place][10] == 1 and vectors[place].index(1) == answer
    assert max(counts) < 1.25 * 3000 / T and min(counts) > 0.75 * 3000 / T
    assert y.bincount().min() > 200


@pytest.mark.parametrize("task", TASKS)
def test_sequences_depend_on_the_generator_alone(task):
    for a, b, other in zip(draw(task, 5, 30), draw(task, 5, 30), draw(task, 5, 30, seed=1)):
        assert torch.equal(a, b) and not torch.equal(a, other)


def test_the_baselines_are_the_losses_of_who_remembers_nothing():
    _, y = draw("copy", 50, 30)
    p = torch.full((50, 50, 9), -math.inf)
    p[:, :40, 8] = 0  # surely a blank
    p[:, 40:, :8] = 0  # any symbol
    assert loss_of(p, y).item() == pytest.approx(TASKS["copy"].baseline(30)) == pytest.approx(10 * math.log(8) / 50)
    _, y = draw("adding", 100_000, 4)
    assert TASKS["adding"].baseline(4) == pytest.approx(0.167, abs=1e-3)
    assert loss_of(torch.ones(100_000, 1), y).item() == pytest.approx(TASKS["adding"].baseline(4), rel=0.02)
    _, y = draw("recall", 50, 7)
    assert loss_of(torch.zeros(50, 10), y).item() == pytest.approx(TASKS["recall"].baseline(7)) == math.log(10)


def test_losses_and_accuracies_by_hand():
    p = torch.randn(3, 25, 9)
    y = p.argmax(dim=2)
    y[:, :15] = 8  # before the answer, where it does not count
    y[0, -1] = (y[0, -1] + 1) % 9
    assert accuracy_of(p, y) == pytest.approx(29 / 30)
    expected = [-p[b, t].log_softmax(dim=0)[y[b, t]] for b in range(3) for t in range(25)]
    assert loss_of(p, y).item() == pytest.approx(sum(expected).item() / 75)
    assert accuracy_of(torch.eye(4, 10), torch.tensor([0, 1, 2, 9])) == 0.75
    sums = torch.tensor([[1.0], [0.5], [1.5]]), torch.tensor([1.03, 0.55, 1.47])
    assert accuracy_of(*sums) == pytest.approx(2 / 3)
    assert loss_of(*sums).item() == pytest.approx((0.03**2 + 0.05**2 + 0.03**2) / 3)


# The models


def build(task, model_type, init="default", num_hidden=8, T=30, **options):
    sizes = TASKS[task].input_dim, num_hidden, TASKS[task].num_outputs
    generator = torch.Generator().manual_seed(0)
    return MODELS[model_type](T, *sizes, 1, init=init, generator=generator, **options)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model_type", ["RNN", "LSTM"])
def test_the_outputs_are_those_of_torch_nn(task, model_type):
    model = build(task, model_type).double()
    x, y = draw(task, 4, 12)
    recurrence, output = model.to_torch()
    h, _ = recurrence(x.double().transpose(0, 1))
    expected = output(h).transpose(0, 1)
    p = predict(model, x, y)
    torch.testing.assert_close(p, expected if task == "copy" else expected[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("recurrence", ["loop", "bptt"])
def test_the_gru_has_biases(task, recurrence):
    """A plain loop over time, with b_z, b_r and b_c as vectors of their own."""
    model = build(task, "GRU", recurrence=recurrence).double()
    x, y = draw(task, 4, 12)
    (*W_x, b_z), (*U_x, b_r), (*V_x, b_c) = ([*part.t()] for part in model.W_x.detach().chunk(3))
    W_x, U_x, V_x = map(torch.stack, (W_x, U_x, V_x))  # (d, n) each
    W_h, U_h, V_h = (part.t() for part in model.W_h.detach().chunk(3))
    h, outputs = torch.zeros(4, 8).double(), []
    for x_t in x.double().unbind(dim=1):
        z = torch.sigmoid(x_t @ W_x + h @ W_h + b_z)
        r = torch.sigmoid(x_t @ U_x + h @ U_h + b_r)
        candidate = torch.tanh(x_t @ V_x + (r * h) @ V_h + b_c)
        h = (1 - z) * h + z * candidate
        outputs.append(h @ model.W_ph.t() + model.b_p)
    expected = torch.stack(outputs, dim=1) if task == "copy" else outputs[-1]
    torch.testing.assert_close(predict(model, x, y), expected, rtol=0, atol=1e-12)
    for bias in (b_z, b_r, b_c):
        assert bias.abs().min() > 0
    assert sum(p.numel() for p in model.parameters()) == 3 * (8 * TASKS[task].input_dim + 64 + 8) + (
        9 * TASKS[task].num_outputs
    )


def test_chrono_spreads_the_forgetting_times_of_the_gru():
    """Without input and state a share z of h is replaced at each step, so that it lasts for 1 / z steps."""
    model = BiasedGRU(101, 10, 2000, 10, 1, init="chrono", generator=torch.Generator().manual_seed(0))
    b_z, b_r, b_c = model.W_x[:, -1].detach().chunk(3)
    assert not b_r.any() and not b_c.any()
    times = 1 / torch.sigmoid(b_z) - 1
    assert 1 <= times.min() < 2 and 99 < times.max() <= 100.001
    assert abs(times.mean() - 50.5) < 2  # U(1, 100)
    plain = BiasedGRU(101, 10, 2000, 10, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.W_x[:, :-1], plain.W_x[:, :-1]) and torch.equal(model.W_h, plain.W_h)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("model_type", "init"), [(m, init) for m, Model in MODELS.items() for init in Model.INITS])
def test_every_model_reads_every_task(task, model_type, init):
    model = build(task, model_type, init)
    x, y = draw(task, 3, 30)
    loss_of(predict(model, x, y), y).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# The rules


def test_a_length_is_mastered_below_five_percent_and_the_last_one_three_times_in_a_row():
    state, lengths = State(length=10), []
    for steps_read, loss in enumerate([1, 0.0501, 0.0499, 0.06, 0.01, 0, 0.04, 0.01, 0.06, 0.01, 0.01]):
        state.steps_read = steps_read
        state.note_validation(loss, 33)
        lengths.append(state.length)
    assert lengths == [10, 10, 15, 15, 22, 33, 33, 33, 33, 33, 33]
    assert state.mastered == {10: 2, 15: 4, 22: 5}
    state.steps_read = 11
    state.note_validation(0.0, 33)
    assert state.mastered == {10: 2, 15: 4, 22: 5, 33: 11}


def test_the_shortest_curriculum_grows_too():
    state = State(length=2)
    for _ in range(3):
        state.note_validation(0, 5)
    assert [*state.mastered] == [2, 3, 4] and state.length == 5


def test_short_sequences_are_evaluated_every_2_000_steps_read_and_long_ones_every_20_batches():
    assert [batches_between(TASKS["recall"], T, 20) for T in (2, 10, 15, 99, 100, 1000)] == [1000, 200, 134, 21, 20, 20]
    assert batches_between(TASKS["copy"], 10, 20) == 67  # sequences of 30 steps
    assert batches_between(TASKS["copy"], 1000, 5) == 5


def test_the_budget_lasts_until_the_next_evaluation_or_training_ends():
    args = memory_tasks.build_parser().parse_args(["--task", "copy", "--budget", "50000"])
    whole = 20 * 1020
    assert lasts(args, State(length=1000, steps_read=50_000 - whole))
    assert not lasts(args, State(length=1000, steps_read=50_000 - whole + 1))
    assert lasts(args, State(length=1000, steps_read=50_000, batches=1))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing disturbed: three evaluations, of which each comes after 20 batches of 100 steps."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    done = train(*SMALL, "--run_dir", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(
        r"LSTM \(chrono\), recall, T = 100: not solved, no T mastered after 6,000 steps read; test loss \d\.\d{4}, "
        r"baseline 2\.3026, accuracy 0\.\d{4} on 2,000 fresh sequences; \d+\.\d s; run folder .*run\n",
        done.stdout,
    )
    return folder


def test_the_run_folder(reference):
    names = {re.sub(r"^events\..*", "events", path.name) for path in reference.iterdir()}
    assert names == {
        *("config.json", "metrics.csv", "events", "checkpoint.pt", "result.json", "curves.png", "curves.pdf"),
        *("checkpoint.previous.pt", ".lock"),
    }
    metrics = read_metrics(reference / "metrics.csv")
    assert metrics["loss"] == tensorboard_losses(reference)
    assert metrics["steps_read"] == [(20, 2000), (40, 4000), (60, 6000)]
    assert [length for _, length in metrics["length"]] == [100] * 3
    for (_, loss), (_, relative) in zip(metrics["validation_loss"], metrics["relative_loss"]):
        assert relative == pytest.approx(loss / math.log(10))


def test_the_reported_losses_can_be_computed_again(reference):
    """From the checkpoint alone: the sequences are drawn anew from the seed, 50 at a time."""
    checkpoint = torch.load(reference / "checkpoint.pt", weights_only=True)
    model = build("recall", "LSTM", num_hidden=16)
    model.load_state_dict(checkpoint["model"])
    metrics, result = read_metrics(reference / "metrics.csv"), json.loads((reference / "result.json").read_text())
    for stream, num, loss, accuracy in (
        ("validation, T = 100", 250, metrics["validation_loss"][-1][1], metrics["validation_accuracy"][-1][1]),
        ("test", 2_000, result["test_loss"], result["test_accuracy"]),
    ):
        generator = seeded_generator(0, stream)
        x, y = map(torch.cat, zip(*(TASKS["recall"].draw(50, 100, generator) for _ in range(num // 50))))
        p = model(x).detach()
        assert loss == pytest.approx(F.cross_entropy(p, y).item(), rel=1e-4)
        assert accuracy == pytest.approx((p.argmax(dim=1) == y).double().mean().item())
    assert result["solved"] is False and result["mastered"] == {} and result["longest_mastered"] == 0


QUICK = ["--task", "recall", "--model_type", "GRU", "--init", "chrono", "--num_hidden", "32", "--learning_rate", "0.01"]


def test_a_curriculum_solves_the_task_and_resumes_to_the_same_bits(tmp_path):
    """After half of the budget the run ends, and goes on with the other half as if it had not."""
    words = [*QUICK, "--curriculum", "5", "--length", "13"]
    for folder, budget, more in (("whole", 60_000, ()), ("halves", 5_500, ()), ("halves", 60_000, ["--resume"])):
        done = train(*words, "--budget", budget, "--run_dir", tmp_path / folder, *more)
        assert done.returncode == 0, done.stderr
        if budget == 5_500:
            assert "not solved" in done.stdout
    assert re.search(r"T = 13: solved after [\d,]+ steps read; test loss 0\.", done.stdout)
    metrics = read_metrics(tmp_path / "whole" / "metrics.csv")
    assert_same_run_with_other_budgets(tmp_path / "halves", tmp_path / "whole")

    steps_read, last_step, mastered, lengths = 0, 0, {}, [int(T) for _, T in metrics["length"]]
    assert list(dict.fromkeys(lengths)) == [5, 7, 10, 13]
    for k, (step, T) in enumerate(metrics["length"]):  # each T is that of all batches since the last evaluation
        steps_read, last_step = steps_read + (step - last_step) * T, step
        assert metrics["steps_read"][k] == (step, steps_read)
        good = metrics["relative_loss"][k][1] < 0.05
        last = k + 1 == len(lengths)
        assert last or (lengths[k + 1] > T) == (good and T < 13)
        if last or lengths[k + 1] > T:
            mastered[str(int(T))] = steps_read
    assert [loss < 0.05 for _, loss in metrics["relative_loss"][-3:]] == [True] * 3 and lengths[-3:] == [13] * 3
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["solved"] and result["mastered"] == mastered and result["longest_mastered"] == 13
    assert result["test_accuracy"] > 0.97 and result["test_loss"] < 0.05 * result["baseline"]


def assert_same_run_with_other_budgets(folder, reference):
    (found, *rest), (expected, *others) = contents(folder), contents(reference)
    assert rest == others and found["state"] == expected["state"]
    assert all(torch.equal(found["model"][name], expected["model"][name]) for name in expected["model"])


@pytest.mark.parametrize(("task", "model_type"), [("copy", "GRU"), ("adding", "LSTM"), ("recall", "RNN")])
def test_every_model_and_task_resumes_to_the_same_bits(task, model_type, tmp_path):
    words = ["--task", task, "--model_type", model_type, "--length", "120", "--curriculum", "70", "--eval_every", "3"]
    words += ["--num_hidden", "8", "--batch_size", "4"]
    for folder, budget, more in (("whole", 7_500, ()), ("halves", 3_000, ()), ("halves", 7_500, ["--resume"])):
        done = train(*words, "--budget", budget, "--run_dir", tmp_path / folder, *more)
        assert done.returncode == 0, done.stderr
    assert_same_run_with_other_budgets(tmp_path / "halves", tmp_path / "whole")


@POSIX
def test_stopped_by_a_signal_between_two_evaluations_then_resumed(reference, tmp_path, monkeypatch, capsys):
    """SIGTERM comes in the 27th batch."""
    batches, real = [], memory_tasks.predict

    def predict_and_stop(model, x, y):
        batches.append(torch.is_grad_enabled())
        if batches[-1] and sum(batches) == 27:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(model, x, y)

    words = [*SMALL, "--run_dir", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(memory_tasks, "predict", predict_and_stop)
        error = failure_of(memory_tasks.main, "part1/memory_tasks.py", words, patch, capsys, exit_code=143)
    assert "stopped at step 27; go on with: python part1/memory_tasks.py" in error
    assert train(*words, "--resume").returncode == 0
    assert_same_run(tmp_path / "run", reference)


@POSIX
def test_killed_at_every_write(reference, tmp_path):
    """Two durable writes each for config, metrics and result; three for each of three checkpoints (metrics first),
    of which the second and third first move the one before away."""
    assert train_under_fire("part1.memory_tasks", "write", tmp_path, *SMALL) == 3 * 2 + 3 * 3 + 2
    for number in range(1, 18):
        assert_same_run(tmp_path / str(number), reference)
        assert not list((tmp_path / str(number)).glob(".*.tmp"))


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
def test_killed_at_random_moments(tmp_path, model_type):
    words = [
        "--task",
        "adding",
        "--model_type",
        model_type,
        "--length",
        "40",
        "--num_hidden",
        "32",
        "--budget",
        "40000",
    ]
    assert train(*words, "--run_dir", tmp_path / "whole").returncode == 0
    assert train_under_fire("part1.memory_tasks", "random", tmp_path / "killed", *words) > 5
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_gradient_beyond_all_floats_is_left_out(tmp_path, monkeypatch, capsys):
    """Recurrent weights so large that over 300 steps each gradient explodes: the weights stay, and training ends."""

    class Exploding(VanillaRNN):
        def reset_parameters(self, *arguments):
            super().reset_parameters(*arguments)
            with torch.no_grad():
                self.W_hh.mul_(4)

    monkeypatch.setitem(MODELS, "RNN", Exploding)
    words = ["--task", "recall", "--length", "300", "--curriculum", "0", "--budget", "6000", "--batch_size", "2"]
    monkeypatch.setattr("sys.argv", ["part1/memory_tasks.py", *words, "--run_dir", str(tmp_path / "run")])
    memory_tasks.main()
    printed = capsys.readouterr()
    assert "not solved" in printed.out and not printed.err
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["model"]
    initial = Exploding(300, 11, 128, 10, 2, "cpu", "default", seeded_generator(0, "weights")).state_dict()
    assert all(torch.equal(saved[name], initial[name]) for name in initial)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "sorting"], "argument --task: invalid choice: 'sorting'"),
        (["--model_type", "biLSTM"], "argument --model_type: invalid choice: 'biLSTM'"),
        (["--init", "chrono"], "--init: RNN has default, orthogonal, identity, bistable, kaiming, not chrono"),
        (["--model_type", "GRU", "--init", "orthogonal"], "--init: GRU has default, kaiming, chrono, not orthogonal"),
        (["--model_type", "GRU", "--recurrence", "compiled"], "--recurrence: GRU has loop, bptt, not compiled"),
        (["--length", "0"], "argument --length: must be at least 1, not 0"),
        (["--length", "1"], "argument --length: must be at least 2, not 1"),
        (["--curriculum", "1"], "argument --curriculum: must be 0 or at least 2, not 1"),
        (["--curriculum", "-1"], "argument --curriculum: must be at least 0, not -1"),
        (["--budget", "2009"], "--budget: 2,009 steps read do not last until the first evaluation"),
        (["--curriculum", "0", "--length", "1000", "--budget", "20399"], "--budget: 20,399 steps read do not last"),
        (["--batch_size", "0"], "argument --batch_size: must be at least 1, not 0"),
        (["--learning_rate", "nan"], "argument --learning_rate/--lr: must be a finite number above 0, not nan"),
        (["--seed", "-1"], "argument --seed: must be at least 0"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--resume", "--run_dir", "no/such/run"], "no/such/run holds no run that could be resumed"),
        (["--run_dir", "LICENSE/run"], "Not a directory: LICENSE/run"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    assert message in failure_of(memory_tasks.main, "part1/memory_tasks.py", words, monkeypatch, capsys)


def test_a_run_is_not_overwritten_or_resumed_as_another(reference):
    before = (reference / "checkpoint.pt").read_bytes()
    assert "already holds a run" in one_line(train(*SMALL, "--run_dir", reference))
    error = one_line(train(*SMALL, "--task", "adding", "--run_dir", reference, "--resume"))
    assert "was trained with --task recall, not adding" in error
    assert (reference / "checkpoint.pt").read_bytes() == before


# The sweep


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory_tasks, "NUM_TEST", 50)
    return sweeps_below(tmp_path, memory_tasks, monkeypatch, capsys)


TINY = "--models RNN_default GRU_chrono --length 5 --budget 4500"


def test_the_smallest_sweep_is_drawn_beside_its_runs(sweep, tmp_path):
    """And again from the finished runs; of two tasks, the second with a seed that is not there yet."""
    words = f"{TINY} --task recall --seeds 1"
    printed = sweep(memory_sweep, words)
    results = tmp_path / "runs" / "part1" / "memory_tasks"
    names = [f"part1_memory_tasks{ending}" for ending in (".csv", ".json", "_curves.csv", "_curves.json")]
    names += ["part1_memory_tasks.pdf", "part1_memory_tasks.png"]
    assert {path.name for path in results.iterdir()} == {*names}
    (results / "part1_memory_tasks.pdf").unlink()
    assert printed.endswith(sweep(memory_sweep, words + " --draw_only"))
    assert (results / "part1_memory_tasks.pdf").exists()
    assert all(run.parent.name.endswith("_length_5_budget_4500") for run in tmp_path.rglob("result.json"))

    rows, curves = (read_results(f"part1_memory_tasks{ending}", results) for ending in ("", "_curves"))
    assert [(row["task"], row["model"], row["T"], row["seed"]) for row in rows] == [
        ("recall", "RNN_default", 5, 1), ("recall", "GRU_chrono", 5, 1),
    ]  # fmt: skip
    assert [(row["solved"], row["steps_read"]) for row in rows] == [("False", 4000)] * 2
    assert [point["steps_read"] for point in curves] == [2000, 4000] * 2
    assert "recall, GRU_chrono, T = 5, seed 1: not solved, longest T mastered 0, after 4,000 steps read" in printed


def test_a_part_adds_to_the_committed_results(sweep, tmp_path, monkeypatch):
    for name in ("RESULTS", "FIGURES"):
        monkeypatch.setattr(experiment, name, tmp_path / "report")
    monkeypatch.setattr(experiment, "working_tree", lambda: ("1234", []))
    monkeypatch.setattr(memory_sweep, "LENGTHS", {"copy": 6, "adding": 5, "recall": 4})
    monkeypatch.setattr(memory_sweep, "BUDGET", 2_500)
    sweep(memory_sweep, "--add --models LSTM_chrono --task recall --seeds 1")
    printed = sweep(memory_sweep, "--add --models LSTM_chrono --task copy recall --seeds 1")
    rows = read_results("part1_memory_tasks", tmp_path / "report")
    assert [(row["task"], row["T"], row["seed"]) for row in rows] == [("copy", 6, 1), ("recall", 4, 1)]
    curves = read_results("part1_memory_tasks_curves", tmp_path / "report")
    assert [(point["task"], point["steps_read"]) for point in curves] == [("copy", 2002), ("recall", 2000)]
    monkeypatch.setattr(experiment, "run_jobs", lambda *_: pytest.fail("there is nothing to run"))
    assert printed.endswith(sweep(memory_sweep, "--add --models LSTM_chrono --task copy --seeds 1"))


def test_the_whole_sweep_has_every_model_task_and_seed():
    args = memory_sweep.build_parser().parse_args(["--draw_only"])
    plan = memory_sweep.chosen_plan(args)
    assert args.committed and len(plan) == len(set(plan)) == 3 * 8 * 2
    assert {(task, T) for task, _, T, _ in plan} == {("copy", 1000), ("adding", 750), ("recall", 1000)}
    arguments = memory_sweep.training_job("copy", "GRU_chrono", 1000, 1).arguments
    assert arguments == {
        "task": "copy", "model_type": "GRU", "init": "chrono", "length": 1000, "budget": 1_000_000, "seed": 1,
    }  # fmt: skip
    for task, model, T, seed in plan:
        words = [
            f"--{name}={value}" for name, value in memory_sweep.training_job(task, model, T, seed).arguments.items()
        ]
        chosen = memory_tasks.build_parser().parse_args(words)
        assert chosen.init in MODELS[chosen.model_type].INITS


def test_a_curve_keeps_the_last_point_of_every_length(tmp_path):
    rows = [(100 * (k + 1), 10 if k < 450 else 15, 0.5 if k != 449 else 0.04) for k in range(1000)]
    lines = ["step,steps_read,length,relative_loss", *(f"{k},{','.join(map(str, row))}" for k, row in enumerate(rows))]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    curve = memory_sweep.curve_of(tmp_path, 100_000)
    assert len(curve) == 100
    assert {"steps_read": 45_000, "length": 10, "relative_loss": "0.04"} in curve
    assert curve[-1] == {"steps_read": 100_000, "length": 15, "relative_loss": "0.5"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "sorting"], "argument --task: invalid choice: 'sorting'"),
        (["--models", "GRU_bistable"], "argument --models: invalid choice: 'GRU_bistable'"),
        (["--seeds", "-1"], "argument --seeds: must be at least 0, not -1"),
        (["--length", "0"], "argument --length: must be at least 1, not 0"),
        (["--add", "--budget", "9"], "argument --add: only runs with the sweep's own settings can be added"),
    ],
)
def test_impossible_sweeps_are_refused(words, message):
    with pytest.raises(CommandError, match=message):
        memory_sweep.build_parser().parse_args(words)
