"""part2/train.py as its users meet it: a whole process, its closing lines, its exit code and the folder it leaves."""

import json
import math
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from common.run_folder import read_metrics
from part2.dataset import HELD_OUT, Corpus, held_out_batches
from part2.model import load_model
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

TINY = ["--lstm_num_hidden", "16", "--embedding_size", "8", "--batch_size", "8", "--seq_length", "12"]
SMALL = [*TINY, "--train_steps", "60", "--eval_every", "20", "--txt_file", str(ROOT / "LICENSE")]
CARRIED = [*SMALL, "--stateful", "--dropout_keep_prob", "0.8", "--schedule", "cosine", "--precision", "bf16"]
CARRIED += ["--average_weights", "0.9"]
POEMS = [*TINY, "--poems", "builtin", "--patience", "0", "--num_epochs", "4"]


def train(*words, script="part2/train.py", **options):
    return run_script(script, *words, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    done = train(*SMALL, "--run_dir", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal
    *stages, summary, command = done.stdout.splitlines()
    assert [line for line in stages if not line.startswith(" ")] == [f"step {step}:" for step in (12, 24, 36, 48, 60)]
    assert len(stages) == 5 * 6 and all(len(line) >= 4 + 30 for line in stages if line.startswith(" "))
    assert re.fullmatch(
        r"LICENSE: held-out loss \d\.\d{4} nats a character, \d\.\d{3} bits, perplexity \d+\.\d\d, at step 60 of 60; "
        r"\d+\.\d s; run folder .*run",
        summary,
    )
    assert command.startswith(f"write with it: python part2/generate.py --checkpoint {folder} --prompt ")
    written = run_script(*shlex.split(command.split("python ")[1]))
    assert written.returncode == 0 and len(written.stdout) > 200, written.stderr
    return folder


def test_the_run_folder(reference):
    names = {re.sub(r"^events\..*", "events", path.name) for path in reference.iterdir()}
    assert names == {
        *("config.json", "metrics.csv", "events", "checkpoint.pt", "best.pt", "result.json", "samples.json"),
        *("curves.png", "curves.pdf", "00060", "projector_config.pbtxt", "checkpoint.previous.pt", ".lock"),
    }
    metrics = read_metrics(reference / "metrics.csv")
    assert metrics["loss"] == tensorboard_losses(reference)
    assert [step for step, _ in metrics["loss"]] == [10, 20, 30, 40, 50, 60]
    assert [step for step, _ in metrics["held_out_perplexity"]] == [20, 40, 60]
    assert {value for _, value in metrics["learning_rate"]} == {2e-3}
    for (_, loss), (_, bits) in zip(metrics["loss"], metrics["bits_per_character"]):
        assert bits == pytest.approx(loss / math.log(2))
    samples = json.loads((reference / "samples.json").read_text())
    assert [stage["step"] for stage in samples] == [12, 24, 36, 48, 60]
    for stage in samples:
        assert len({text[0] for text in stage["texts"]}) == 5 and {len(text) for text in stage["texts"]} == {30}
        assert [text[0] for text in stage["texts"]] == [text[0] for text in samples[0]["texts"]]


def test_the_printed_command_works_from_a_folder_with_spaces(tmp_path):
    done = train(*SMALL, "--run_dir", tmp_path / "my 'first' run")
    assert done.returncode == 0, done.stderr
    command = shlex.split(done.stdout.splitlines()[-1].split("python ")[1])
    assert run_script(*command).returncode == 0


@pytest.mark.parametrize("source", [["--poems", "builtin", "--num_epochs", "1"], SMALL])
def test_printing_never_ends_a_run(tmp_path, source):
    """A stream that lacks the characters, one that nobody reads, and a full disk: the run is finished all the same."""
    words = [*TINY, *source, "--sample_every", "1"]
    done = train(*words, "--run_dir", tmp_path / "cp1252", env={**ENVIRONMENT, "PYTHONIOENCODING": "cp1252"})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert ("\\u" in done.stdout) is ("--poems" in source)
    command = [sys.executable, "part2/train.py", *words, "--run_dir", str(tmp_path / "head")]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert (process.wait(120), process.stderr.read()) == (0, b"")
    with open("/dev/full", "w") as full:
        done = train(*words, "--run_dir", tmp_path / "full", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode in (0, 2) and done.stderr.count("\n") == (1 if done.returncode else 0)
    for name in ("head", "full"):
        assert_same_run(tmp_path / name, tmp_path / "cp1252")


def test_a_text_in_latin_1(tmp_path):
    (tmp_path / "text.txt").write_bytes("Müßiggang ist aller Laster Anfang. ".encode("latin-1") * 50)
    words = [*TINY, "--train_steps", "4", "--txt_file", tmp_path / "text.txt", "--run_dir", tmp_path / "run"]
    assert "text.txt is not UTF-8 text: line 1, byte 2 is 0xfc; name its encoding" in one_line(train(*words))
    assert not (tmp_path / "run").exists()
    assert train(*words, "--encoding", "latin-1").returncode == 0
    assert "ß" in torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["vocabulary"]


def test_tensorboard_shows_samples_and_the_projector(reference):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(reference))
    events.Reload()
    assert len(events.Tensors("samples/text_summary")) == 5
    vocabulary = torch.load(reference / "best.pt", weights_only=True)["vocabulary"]
    (metadata,) = reference.glob("00060/*/metadata.tsv")
    assert len(metadata.read_text(encoding="utf-8").splitlines()) == len(vocabulary)


def test_the_reported_perplexity_can_be_computed_again(reference):
    """From best.pt and the text alone, one held-out stream after the other, one character at a time."""
    model, checkpoint = load_model(reference)
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    tail = [checkpoint["vocabulary"].index(character) for character in text[-int(len(text) * 0.1) - 1 :]]
    length = -(-(len(tail) - 1) // 16)
    loss, correct = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(tail) - 1, length):
            stream, state = tail[start : start + length + 1], None
            for character, following in pairwise(stream):
                logits, state = model.run(torch.tensor([[character]]), state)
                loss += F.cross_entropy(logits[0], torch.tensor([following])).item()
                correct += logits.argmax().item() == following
    result = json.loads((reference / "result.json").read_text())
    assert result["held_out_loss"] == pytest.approx(loss / (len(tail) - 1), rel=1e-5)
    assert result["held_out_perplexity"] == pytest.approx(math.exp(loss / (len(tail) - 1)), rel=1e-4)
    accuracies = dict(read_metrics(reference / "metrics.csv")["held_out_accuracy"])
    assert accuracies[checkpoint["step"]] == correct / (len(tail) - 1)


def test_same_seed_same_run_from_inside_the_part(reference, tmp_path):
    assert train(*SMALL, "--run_dir", tmp_path / "run", cwd=ROOT / "part2", script="train.py").returncode == 0
    assert_same_run(tmp_path / "run", reference)
    assert (tmp_path / "run" / "samples.json").read_bytes() == (reference / "samples.json").read_bytes()


@POSIX
@pytest.mark.slow
def test_killed_at_every_write(tmp_path):
    """Stateful, with dropout, an average and bf16. Writes of two calls each: config, metrics, five samples, result;
    three checkpoints of three (metrics first), and best.pt before each; two of them move the one before away."""
    assert train(*CARRIED, "--run_dir", tmp_path / "whole").returncode == 0
    writes = train_under_fire("part2.train", "write", tmp_path, *CARRIED)
    assert writes == 2 * 2 + 5 * 2 + 3 * 3 + 3 * 2 + 2 + 2
    losses = [(step, float(loss.expected)) for step, loss in tensorboard_losses(tmp_path / "whole")]
    best = torch.load(tmp_path / "whole" / "best.pt", weights_only=True)["model"]
    for number in range(1, writes + 1):
        folder = tmp_path / str(number)
        assert_same_run(folder, tmp_path / "whole")
        assert not list(folder.glob(".*.tmp"))
        assert tensorboard_losses(folder) == losses
        assert (folder / "samples.json").read_bytes() == (tmp_path / "whole" / "samples.json").read_bytes()
        kept = torch.load(folder / "best.pt", weights_only=True)["model"]
        assert all(torch.equal(kept[name], best[name]) for name in best)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("words", [SMALL, CARRIED, POEMS])
def test_killed_at_random_moments(tmp_path, words):
    longer = ["--num_epochs", "40"] if "--poems" in words else ["--train_steps", "600"]
    assert train(*words, *longer, "--run_dir", tmp_path / "whole").returncode == 0
    assert train_under_fire("part2.train", "random", tmp_path / "killed", *words, *longer) > 5
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@POSIX
def test_stopped_by_ctrl_c_then_resumed(tmp_path):
    words = [sys.executable, "part2/train.py", *CARRIED, "--run_dir", str(tmp_path / "run"), "--train_steps", "100000"]
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    step = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"]
    assert re.fullmatch(
        rf"train\.py: stopped at step {step:,}; go on with: python part2/train\.py .* --resume\n", error
    )
    done = run_script(*error.split("python ")[1].split(), "--train_steps", step + 5, "--cosine_steps", 100000)
    assert done.returncode == 0 and f"of {step + 5:,}; " in done.stdout, done.stderr


def test_the_best_weights_are_kept_when_training_goes_on(tmp_path):
    """Noise, learnt by heart: the held-out loss falls, then rises; and patience ends the run."""
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(97 + torch.randint(4, (400,), generator=torch.Generator().manual_seed(0))))
    words = [
        *TINY,
        "--txt_file",
        text,
        "--learning_rate",
        "0.03",
        "--eval_every",
        "5",
        "--train_steps",
        "300",
        "--patience",
        "6",
    ]
    assert train(*words, "--run_dir", tmp_path / "run").returncode == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    losses = dict(read_metrics(tmp_path / "run" / "metrics.csv")["held_out_loss"])
    assert result["held_out_loss"] == min(losses.values()) == losses[result["best_step"]]
    assert result["steps"] == result["best_step"] + 6 * 5 < 300
    assert json.loads((tmp_path / "run" / "samples.json").read_text())[-1]["step"] == result["steps"]
    assert torch.load(tmp_path / "run" / "best.pt", weights_only=True)["step"] == result["best_step"]


def test_poems_are_learnt_and_written(tmp_path):
    done = train(*POEMS, "--run_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "write with it: python part2/generate.py" in done.stdout and "--prompt '日'" in done.stdout
    samples = json.loads((tmp_path / "samples.json").read_text(encoding="utf-8"))
    assert [text[0] for text in samples[-1]["texts"]] == list("日紅山夜湖海月")
    assert not any("\n" in text for text in samples[-1]["texts"])
    assert [step for step, _ in read_metrics(tmp_path / "metrics.csv")["held_out_loss"]] == [
        6,
        12,
        18,
        24,
    ]  # each epoch


def test_a_short_run_has_a_curve_and_keeps_its_intervals_when_it_goes_on(tmp_path):
    words = [*TINY, "--txt_file", ROOT / "LICENSE", "--run_dir", tmp_path]
    assert train(*words, "--train_steps", 40).returncode == 0
    assert train(*words, "--train_steps", 48, "--resume").returncode == 0
    steps = [step for step, _ in read_metrics(tmp_path / "metrics.csv")["held_out_loss"]]
    assert steps == list(range(2, 49, 2))
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert [stage["step"] for stage in samples] == [8, 16, 24, 32, 40, 48]


def test_dropout_and_the_probability_to_keep_are_one_setting(monkeypatch):
    import part2.train

    def parsed(*words):
        monkeypatch.setattr(sys, "argv", ["part2/train.py", *words])
        return part2.train.parse_arguments()

    for dropout, kept in (("0", 1.0), ("0.2", 0.8), ("0.7", 0.3)):
        assert parsed("--dropout", dropout) == parsed("--dropout_keep_prob", str(kept))
        assert parsed("--dropout", dropout).dropout_keep_prob == kept
    assert parsed().dropout_keep_prob == 1.0


def test_schedules(tmp_path):
    words = [
        *SMALL,
        "--learning_rate_step",
        "20",
        "--learning_rate_decay",
        "0.5",
        "--eval_every",
        "60",
        "--print_every",
        "1",
    ]
    assert train(*words, "--run_dir", tmp_path / "step").returncode == 0
    rates = [rate for _, rate in read_metrics(tmp_path / "step" / "metrics.csv")["learning_rate"]]
    assert rates == [2e-3] * 20 + [1e-3] * 20 + [5e-4] * 20
    assert train(*words, "--schedule", "cosine", "--run_dir", tmp_path / "cosine").returncode == 0
    rates = [rate for _, rate in read_metrics(tmp_path / "cosine" / "metrics.csv")["learning_rate"]]
    assert rates == pytest.approx([2e-3 * (1 + math.cos(math.pi * k / 60)) / 2 for k in range(60)])


def test_averaged_weights_are_evaluated_kept_and_resumed(tmp_path):
    """The moving average by hand, from the weights of runs of one, two and three steps."""
    from part2.train import evaluate

    words = [*SMALL, "--eval_every", 1, "--learning_rate", 0.01]
    for step in (1, 2, 3):
        assert train(*words, "--train_steps", step, "--run_dir", tmp_path / str(step)).returncode == 0
    first, *others = (torch.load(tmp_path / str(step) / "checkpoint.pt", weights_only=True) for step in (1, 2, 3))
    expected = first["model"]
    for other in others:
        expected = {name: 0.75 * average + 0.25 * other["model"][name] for name, average in expected.items()}
    words += ["--average_weights", 0.75]
    assert train(*words, "--train_steps", 3, "--run_dir", tmp_path / "whole").returncode == 0
    checkpoint = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    model, best = load_model(tmp_path / "whole")
    assert best["step"] == 3
    for name, average in expected.items():
        assert torch.equal(checkpoint["model"][name], others[-1]["model"][name])  # training is as without
        assert torch.equal(checkpoint["average"][f"module.{name}"], best["model"][name])
        assert torch.allclose(best["model"][name], average, rtol=1e-5, atol=1e-7)
    held_out = evaluate(model, list(held_out_batches(Corpus(ROOT / "LICENSE", HELD_OUT))), torch.device("cpu"))
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["held_out_loss"] == pytest.approx(held_out["held_out_loss"], rel=1e-6)

    assert train(*words, "--train_steps", 2, "--run_dir", tmp_path / "resumed").returncode == 0
    assert train(*words, "--train_steps", 3, "--run_dir", tmp_path / "resumed", "--resume").returncode == 0
    assert_same_run(tmp_path / "resumed", tmp_path / "whole")


def test_divergence_stops_with_a_clear_line(tmp_path):
    words = [*SMALL, "--optimizer", "sgd", "--learning_rate", "1e30", "--max_norm", "1e30", "--eval_every", "1"]
    error = one_line(train(*words, "--run_dir", tmp_path), exit_code=1)
    assert re.search(r"diverged at step \d+: .*(nan|inf)", error) and "try a lower --learning_rate" in error


def test_a_run_is_resumed_with_its_own_text_only(reference, tmp_path):
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for changed, message in (
        (text.replace("W", "\u00e9"), "was trained with another vocabulary: "),
        (text.replace("the", "eth", 1), "was trained on another text: resume it with its own"),
    ):
        (tmp_path / "text.txt").write_text(changed, encoding="utf-8")
        words = [*SMALL, "--txt_file", tmp_path / "text.txt", "--run_dir", reference, "--resume"]
        assert message in one_line(train(*words))
    assert "was trained with --lstm_hidden_dim 16, not 32" in one_line(
        train(*SMALL, "--lstm_hidden_dim", 32, "--run_dir", reference, "--resume")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--txt_file", "no/such.txt"], "no/such.txt does not exist"),
        (["--txt_file", "part2"], "part2 is a folder: a text is expected, as a regular file"),
        (
            ["--txt_file", "LICENSE", "--seq_length", "5000"],
            "the text has 979 characters to train on, but a window of seq_length 5000 needs 5001",
        ),
        (["--txt_file", "report/figures/part1_optimizers.png"], "is not UTF-8 text: line 1, byte 1 is 0x89"),
        (["--txt_file", "LICENSE", "--stateful", "--batch_size", "100"], "too few for 100 streams"),
        (["--poems", "builtin", "--txt_file", "LICENSE"], "--txt_file and --poems exclude each other"),
        (["--poems", "LICENSE"], "LICENSE is not a collection of poems"),
        (["--train_steps", "5", "--num_epochs", "2"], "argument --num_epochs: not allowed with argument --train_steps"),
        (["--dropout_keep_prob", "0"], "must be above 0 and at most 1, not 0"),
        (["--dropout", "1"], "argument --dropout: must be at least 0 and below 1, not 1"),
        (["--dropout", "0.1", "--dropout_keep_prob", "0.9"], "not allowed with argument --dropout"),
        (["--average_weights", "1"], "argument --average_weights: must be at least 0 and below 1, not 1"),
        (["--lr", "inf"], "must be a finite number above 0, not inf"),
        (["--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["--init", "ones"], "argument --init: invalid choice: 'ones'"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--resume", "--run_dir", "part1"], "part1 holds no run that could be resumed"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    import part2.train

    assert message in failure_of(part2.train.main, "part2/train.py", words, monkeypatch, capsys)


@pytest.mark.slow
def test_every_flag_changes_the_training(tmp_path, reference):
    """Each flag alone, in the spelling of one year or the other, leads to other weights than the reference run's."""
    for number, flag in enumerate(
        [
            "--stateful",
            "--input_seq_length 13",
            "--lstm_hidden_dim 17",
            "--lstm_num_layers 1",
            "--embedding_size 9",
            "--dropout_keep_prob 0.9",
            "--init xavier",
            "--precision bf16",
            "--batch_size 9",
            "--optimizer rmsprop",
            "--lr 0.003",
            "--schedule cosine",
            "--learning_rate_step 30",
            "--learning_rate_step 30 --learning_rate_decay 0.5",
            "--schedule cosine --cosine_steps 90",
            "--clip_grad_norm 0.01",
            "--seed 1",
        ]
    ):
        folder = tmp_path / str(number)
        done = train(*SMALL, *flag.split(), "--summary_path", folder)
        assert done.returncode == 0, done.stderr
        weights = [contents(path)[0]["model"] for path in (folder, reference)]
        same = weights[0].keys() == weights[1].keys() and all(
            weights[0][name].shape == weights[1][name].shape and torch.equal(weights[0][name], weights[1][name])
            for name in weights[0]
        )
        assert not same, flag
    for flag, file in (
        ("--sample_length 50", "samples.json"),
        ("--sample_every 7", "samples.json"),
        ("--print_every 3", "metrics.csv"),
    ):
        folder = tmp_path / flag.replace(" ", "_")
        assert train(*SMALL, *flag.split(), "--run_dir", folder).returncode == 0
        assert (folder / file).read_bytes() != (reference / file).read_bytes()


@pytest.mark.slow
def test_the_handout_s_1024_units_train(tmp_path):
    words = [
        "--lstm_hidden_dim",
        "1024",
        "--lstm_num_layers",
        "1",
        "--embedding_size",
        "256",
        "--batch_size",
        "128",
        "--lr",
        "1e-3",
    ]
    done = train(
        *words, "--txt_file", "assets/grimm.txt", "--train_steps", "8", "--eval_every", "8", "--run_dir", tmp_path
    )
    assert done.returncode == 0, done.stderr
    losses = [loss for _, loss in read_metrics(tmp_path / "metrics.csv")["held_out_loss"]]
    assert losses[-1] < 3.6  # guessing would be log 63 = 4.1
