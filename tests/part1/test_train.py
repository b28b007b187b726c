"""part1/train.py as its users meet it: a whole process, its closing line, its exit code and the folder it leaves."""

import json
import math
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.nn import functional as F

import part1.train
from common.run_folder import read_metrics
from tests.harness import (
    ENVIRONMENT,
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

SMALL = ["--input_length", "3", "--num_hidden", "16", "--batch_size", "16", "--train_steps", "60", "--eval_every", "20"]


def train(*words, script="part1/train.py", **options):
    return run_script(script, *words, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    done = train(*SMALL, "--run_dir", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal
    assert re.fullmatch(
        r"RNN, palindromes of 4 digits: accuracy 0\.\d{4} on 10,000 fresh ones "
        r"\(0\.\d{4} on the last 10 training batches\) "
        r"after 60 steps, not converged, \d+\.\d s; run folder .*run\n",
        done.stdout,
    )
    return folder


def test_the_run_folder(reference):
    names = {re.sub(r"^events\..*", "events", path.name) for path in reference.iterdir()}
    assert names == {
        *("config.json", "metrics.csv", "events", "checkpoint.pt", "result.json", "curves.png", "curves.pdf"),
        *("checkpoint.previous.pt", ".lock"),
    }
    config = json.loads((reference / "config.json").read_text())
    assert config["arguments"]["num_hidden"] == 16 and config["command"].startswith(
        "python part1/train.py --input_length 3"
    )
    metrics = read_metrics(reference / "metrics.csv")
    assert metrics["loss"] == tensorboard_losses(reference)
    assert [step for step, _ in metrics["loss"]] == [10, 20, 30, 40, 50, 60]
    assert [step for step, _ in metrics["validation_accuracy"]] == [20, 40, 60]
    assert {value for _, value in metrics["learning_rate"]} == {0.001}


def test_the_reported_accuracies_can_be_counted_again(reference):
    """From the checkpoint alone: the test set is drawn anew from the seed and the right answers counted by hand."""
    from common.machine import seeded_generator
    from part1.dataset import HeldOutSequences, PalindromeDataset
    from part1.vanilla_rnn import VanillaRNN

    checkpoint = torch.load(reference / "checkpoint.pt", weights_only=True)
    model = VanillaRNN(4, 1, 16, 10, 16)
    model.load_state_dict(checkpoint["model"])
    test = HeldOutSequences(PalindromeDataset(4), 2_000, 10_000, seeded_generator(0, "held out")).test
    right = sum(row.index(max(row)) == digit for row, digit in zip(model(test[:, :-1]).tolist(), test[:, -1].tolist()))
    result = json.loads((reference / "result.json").read_text())
    assert result["test_accuracy"] == right / 10_000
    assert result["last_10_batches_accuracy"] == pytest.approx(sum(checkpoint["state"]["last_accuracies"]) / 10)


def test_same_seed_same_run_from_inside_the_part_and_as_a_module(reference, tmp_path):
    assert train(*SMALL, "--run_dir", tmp_path / "inside", cwd=ROOT / "part1", script="train.py").returncode == 0
    assert_same_run(tmp_path / "inside", reference)
    command = [sys.executable, "-m", "part1.train", *SMALL, "--run_dir", str(tmp_path / "module")]
    assert subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True).returncode == 0
    assert_same_run(tmp_path / "module", reference)


CURRICULUM = [
    *("--model_type", "RNN", "--input_length", "11", "--input_dim", "10", "--optimizer", "adam", "--num_hidden", "64"),
    *("--curriculum", "1", "--print_every", "1", "--eval_every", "50"),
]


def test_a_curriculum_lengthens_what_is_mastered_and_resumes_to_the_same_bits(tmp_path):
    """After ten batches of at least 99.5 % half as long again, up to --input_length, and a learning rate that falls."""
    assert train(*CURRICULUM, "--train_steps", 400, "--run_dir", tmp_path / "whole").returncode == 0
    assert train(*CURRICULUM, "--train_steps", 130, "--run_dir", tmp_path / "halves").returncode == 0
    assert train(*CURRICULUM, "--train_steps", 400, "--run_dir", tmp_path / "halves", "--resume").returncode == 0
    whole, halves = (contents(tmp_path / name)[0]["model"] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    metrics = read_metrics(tmp_path / "whole" / "metrics.csv")
    lengths = [int(length) for _, length in metrics["length"]]
    assert list(dict.fromkeys(lengths)) == [2, 3, 4, 6, 9, 12][: len(set(lengths))] and len(set(lengths)) >= 4
    rates = [rate for _, rate in metrics["learning_rate"]]  # logged after the step, the length before
    for k in range(1, len(lengths) - 1):
        if rates[k] == rates[k - 1]:
            assert lengths[k + 1] == lengths[k]
        else:
            assert rates[k] == pytest.approx(rates[k - 1] / 1.5**0.5)
            assert lengths[k + 1] == min(int(1.5 * lengths[k]), 12)
            assert sum(accuracy for _, accuracy in metrics["accuracy"][k - 10 : k]) / 10 >= 0.995


def test_a_preset_changes_defaults_only(tmp_path):
    words = ["--preset", "long_memory", "--input_length", "30", "--train_steps", "1", "--learning_rate", "0.05"]
    for model, init, curriculum in (("RNN", "bistable", 0), ("LSTM", "chrono", 20)):
        assert train(*words, "--model_type", model, "--run_dir", tmp_path / model).returncode == 0
        arguments = json.loads((tmp_path / model / "config.json").read_text())["arguments"]
        assert (arguments["init"], arguments["curriculum"], arguments["learning_rate"]) == (init, curriculum, 0.05)


def test_training_ends_once_the_accuracy_asked_for_is_reached_three_times_in_a_row(tmp_path):
    words = ["--converged_accuracy", "1e-9", "--eval_every", "2", "--run_dir", tmp_path]
    assert train(*SMALL, *words).returncode == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["converged"] and result["steps"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(("model", "T"), [("RNN", 20), ("RNN", 200), ("LSTM", 5), ("LSTM", 200)])
def test_long_memory_holds(tmp_path, model, T):
    done = train("--model_type", model, "--input_length", T - 1, "--preset", "long_memory", "--run_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["converged"] and result["test_accuracy"] >= 0.99


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        *((model, "bss") for model in ("RNN", "LSTM", "biLSTM", "peepLSTM", "NumPyLSTM")),
        *(("GRU", dataset) for dataset in ("palindromes", "randomcomb", "bss", "bipalindrome")),
    ],
)
def test_every_model_and_data_set_resumes_to_the_same_bits(model, dataset, tmp_path, tried):
    words = ["--dataset", dataset, "--model_type", model, *SMALL[:-4], "--eval_every", "2", "--input_length", "4"]
    for steps, folder, more in ((6, "whole", ()), (3, "halves", ()), (6, "halves", ("--resume",))):
        ending = tried("part1.train", *words, "--train_steps", steps, "--run_dir", tmp_path / folder, *more)
        assert ending.code == 0, ending
    whole, halves = (contents(tmp_path / name)[0]["model"] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    assert (dataset != "palindromes") == ("embedding" in whole)
    assert ("always naming the largest class 0." in ending.out) == (dataset != "palindromes")


def test_the_data_sets_of_uva_2020_have_its_defaults(tmp_path, tried):
    words = ["--dataset", "bss", "--batch_size", "16", "--train_steps", "1", "--run_dir", tmp_path]
    assert tried("part1.train", *words).code == 0
    found = json.loads((tmp_path / "config.json").read_text())["arguments"]
    expected = {"input_length": 6, "num_hidden": 256, "batch_size": 16, "optimizer": "adam", "learning_rate": 1e-3}
    expected |= {"init": "kaiming", "max_norm": 10, "num_classes": 2, "input_dim": 1}
    assert {name: found[name] for name in expected} == expected
    result = json.loads((tmp_path / "result.json").read_text())
    assert 0.48 < result["largest_class"] < 0.53  # of 10,000 balanced ones


@POSIX
def test_killed_at_every_write(reference, tmp_path):
    """Two durable writes each for config, metrics and result; three for each of three checkpoints (metrics first),
    of which the second and third first move the one before away."""
    assert train_under_fire("part1.train", "write", tmp_path, *SMALL) == 3 * 2 + 3 * 3 + 2
    losses = [(step, float(loss.expected)) for step, loss in tensorboard_losses(reference)]
    for number in range(1, 18):
        assert_same_run(tmp_path / str(number), reference)
        assert not list((tmp_path / str(number)).glob(".*.tmp"))
        assert tensorboard_losses(tmp_path / str(number)) == losses


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("model", ["RNN", "LSTM", "NumPyLSTM", "GRU"])
def test_killed_at_random_moments(tmp_path, model):
    words = [
        "--model_type",
        model,
        "--input_length",
        "8",
        "--num_hidden",
        "32",
        "--train_steps",
        "400",
        "--optimizer",
        "adam",
    ]
    words += ["--eval_every", "25"]
    assert train(*words, "--run_dir", tmp_path / "whole").returncode == 0
    assert train_under_fire("part1.train", "random", tmp_path / "killed", *words) > 5
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@POSIX
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_then_resumed(tmp_path, reference, number, exit_code):
    words = [sys.executable, "part1/train.py", *SMALL, "--run_dir", str(tmp_path / "run")]
    slow = [*words, "--train_steps", "1000000", "--input_length", "200"]
    process = subprocess.Popen(slow, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.05)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == exit_code
    step = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"]
    assert re.fullmatch(
        rf"train\.py: stopped at step {step:,}; go on with: python part1/train\.py .* --resume\n", error
    )
    resume = error.split("python ")[1].split()
    resume[resume.index("--train_steps", resume.index("--train_steps") + 1) + 1] = str(step + 5)
    done = subprocess.run([sys.executable, *resume], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and f"after {step + 5:,} steps" in done.stdout, done.stderr


def test_more_steps_continue_a_finished_run(reference, tmp_path):
    assert train(*SMALL, "--train_steps", 30, "--run_dir", tmp_path).returncode == 0
    assert train(*SMALL, "--run_dir", tmp_path, "--resume").returncode == 0
    assert torch.equal(contents(tmp_path)[0]["model"]["W_hh"], contents(reference)[0]["model"]["W_hh"])


def test_a_short_run_has_a_curve_and_keeps_its_intervals_when_it_goes_on(tmp_path):
    words = [*SMALL[:-4], "--run_dir", tmp_path]
    assert train(*words, "--train_steps", 60).returncode == 0
    assert train(*words, "--train_steps", 66, "--resume").returncode == 0
    steps = [step for step, _ in read_metrics(tmp_path / "metrics.csv")["validation_loss"]]
    assert steps == list(range(3, 67, 3))
    assert "was trained without --eval_every, not with 20" in one_line(train(*words, "--eval_every", 20, "--resume"))


def test_divergence_stops_with_a_clear_line_and_a_good_checkpoint(tmp_path, monkeypatch, capsys):
    """The loss of the fifth step, and of all that follow, is not a number."""
    real, losses = F.cross_entropy, []

    def diverging(logits, target, **options):
        if not options:  # of a training batch
            losses.append(real(logits, target))
            return losses[-1] * (math.nan if len(losses) >= 5 else 1)
        return real(logits, target, **options)

    monkeypatch.setattr(F, "cross_entropy", diverging)
    words = [*SMALL, "--eval_every", "2", "--run_dir", tmp_path / "run"]
    error = failure_of(part1.train.main, "part1/train.py", words, monkeypatch, capsys, exit_code=1)
    assert "training diverged at step 5: the loss is nan" in error and "try a lower --learning_rate" in error
    assert "the checkpoint of step 4 in" in error
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 4 and all(torch.isfinite(value).all() for value in checkpoint["model"].values())


@POSIX
def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path):
    """A limit on file sizes replaces the full disk: the first checkpoint fits, the logs grow until a write fails."""
    import resource

    words = [*SMALL, "--train_steps", "100000", "--print_every", "1", "--run_dir", tmp_path]

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG instead of killing the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    error = one_line(train(*words, preexec_fn=limit))
    assert "cannot be written: File too large; the checkpoint of step " in error
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] > 0 and checkpoint["step"] % 20 == 0
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input_length", "0"], "argument --input_length: must be at least 1, not 0"),
        (["--batch_size", "-3"], "argument --batch_size: must be at least 1, not -3"),
        (["--num_hidden", "many"], "argument --num_hidden: invalid positive_int value: 'many'"),
        (["--learning_rate", "nan"], "argument --learning_rate/--lr: must be a finite number above 0, not nan"),
        (["--learning_rate", "0"], "argument --learning_rate/--lr: must be a finite number above 0"),
        (["--preset", "photographic"], "argument --preset: invalid choice: 'photographic'"),
        (["--curriculum", "-1"], "argument --curriculum: must be at least 0, not -1"),
        (["--seed", "-1"], "argument --seed: must be at least 0"),
        (["--num_classes", "5"], "palindromes need at least 10 classes here"),
        (["--input_dim", "3"], "argument --input_dim: of palindromes 1, digits as numbers, or 10, one-hot, not 3"),
        (["--model_type", "Transformer"], "argument --model_type: invalid choice: 'Transformer'"),
        (["--model_type", "gru"], "argument --model_type: invalid choice: 'gru'"),
        (["--dataset", "digits"], "argument --dataset: invalid choice: 'digits'"),
        (
            ["--dataset", "bss", "--input_length", "19"],
            "the length T of a BaumSweetSequenceDataset must be from 1 to 18",
        ),
        (["--dataset", "randomcomb", "--num_classes", "5"], "--num_classes: randomcomb need at least 6 classes here"),
        (
            ["--dataset", "bss", "--preset", "long_memory"],
            "--preset: long_memory is for palindromes, with RNN and LSTM",
        ),
        (["--model_type", "GRU", "--preset", "long_memory"], "--preset: long_memory is for palindromes, with RNN and"),
        (["--model_type", "peepLSTM", "--init", "chrono"], "--init: peepLSTM has default, kaiming, not chrono"),
        (
            ["--model_type", "GRU", "--recurrence", "compiled"],
            "argument --recurrence: GRU has loop, bptt, not compiled",
        ),
        (["--init", "chrono"], "RNN has default, orthogonal, identity, bistable, kaiming, not chrono"),
        (["--model_type", "NumPyLSTM", "--recurrence", "bptt"], "argument --recurrence: NumPyLSTM has numpy, not bptt"),
        (["--recurrence", "fast"], "argument --recurrence: invalid choice: 'fast'"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--run_dir", "LICENSE/run"], "Not a directory: LICENSE/run"),
        (["--resume", "--run_dir", "no/such/run"], "no/such/run holds no run that could be resumed"),
        (["--resume", "--run_dir", "part1"], "part1 holds no run that could be resumed"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    import part1.train

    assert message in failure_of(part1.train.main, "part1/train.py", words, monkeypatch, capsys)


def test_a_run_is_not_overwritten(reference):
    before = (reference / "checkpoint.pt").read_bytes()
    assert "already holds a run" in one_line(train(*SMALL, "--run_dir", reference))
    assert (reference / "checkpoint.pt").read_bytes() == before


def test_unfit_checkpoints_are_named(reference, tmp_path):
    def resume(*words):
        return one_line(train(*SMALL, *words, "--run_dir", tmp_path, "--resume"))

    good = (reference / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(good)
    assert "was trained with --model_type RNN, not LSTM" in resume("--model_type", "LSTM")
    assert "was trained with --learning_rate 0.001, not 0.1" in resume("--lr", "0.1")
    (tmp_path / "checkpoint.pt").write_bytes(good[: len(good) // 2])
    assert "checkpoint.pt is damaged or not a checkpoint" in resume()
    torch.save({"weights": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    assert "checkpoint.pt is not a checkpoint of this project" in resume()
    torch.save({"step": 1, "arguments": {}, "model": {}}, tmp_path / "checkpoint.pt")
    assert "holds a run of an earlier version, which cannot be resumed: start a new one" in resume()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "length"), [("RNN", 10), ("RNN", 4), ("LSTM", 4), ("NumPyLSTM", 5)])
def test_the_defaults_reach_near_perfect_accuracy(tmp_path, model, length):
    done = train("--model_type", model, "--input_length", length, "--run_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["converged"] and result["test_accuracy"] >= 0.99
    assert result["test_is_disjoint_from_training"] == (length == 10)


@pytest.mark.slow
def test_every_flag_changes_the_training(tmp_path, reference):
    """One flag at a time, compared by the weights after the same few steps."""
    base = contents(reference)[0]["model"]
    changes = [
        *(["--optimizer", name] for name in ("adam", "sgd", "momentum", "adagrad", "adadelta")),
        *(["--init", name] for name in ("orthogonal", "identity", "bistable", "kaiming")),
        *(["--learning_rate", "0.01"], ["--max_norm", "0.01"], ["--seed", "1"], ["--batch_size", "17"]),
        *(["--input_dim", "10"], ["--num_hidden", "17"], ["--num_classes", "11"], ["--input_length", "4"]),
        *(["--model_type", name] for name in ("LSTM", "GRU", "biLSTM", "peepLSTM")),
        *(["--dataset", name, "--optimizer", "rmsprop"] for name in ("randomcomb", "bss", "bipalindrome")),
        *(["--train_steps", "59"], ["--curriculum", "1"], ["--preset", "long_memory"]),
        ["--recurrence", "loop"],
    ]
    seen = [base]
    for number, words in enumerate(changes):
        folder = tmp_path / str(number)
        assert train(*SMALL, *words, "--run_dir", folder).returncode == 0, words
        model = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
        for other in seen:
            same = model.keys() == other.keys() and all(
                model[key].shape == other[key].shape and torch.equal(model[key], other[key]) for key in model
            )
            assert not same, words
        seen.append(model)
