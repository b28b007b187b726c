"""Several real processes, started by torchrun as a user does it, must train as one process does."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import common.distributed
import part2.poems
import part4.cifar10
from common.errors import CommandError
from common.machine import get_device
from common.run_folder import read_metrics
from part2.dataset import ContiguousStreams, Corpus, RandomWindows
from part2.poems import PoemBatches, PoemCorpus
from tests.harness import ENVIRONMENT, POSIX, ROOT, TIMES, assert_same_run, contents, run_script

TINY = "--lstm_num_hidden 16 --embedding_size 8 --batch_size 8 --seq_length 12 --print_every 1".split()
WINDOWS = [*TINY, *"--train_steps 600 --eval_every 20 --sample_every 100 --txt_file".split(), str(ROOT / "LICENSE")]
BOOK = [*WINDOWS, "--stateful", "--dropout_keep_prob", "0.8"]  # the most that a step can depend on
POEMS = [*TINY, "--poems", "builtin", "--batch_size", "10", "--train_steps", "50"]
IMAGES = "--dataset synthetic --num_train 340 --batch_size 32 --epochs 5 --print_every 1".split()
LAUNCHER = [sys.executable, "-m", "torch.distributed.run"]
NETWORK = "tests/distributed/networks.py"
OPTIONS = {"cwd": ROOT, "env": ENVIRONMENT, "stderr": subprocess.PIPE, "text": True}  # of launchers in the background

pytestmark = POSIX


def torchrun(*words, restarts=0):
    """Return torchrun's command line for two processes."""
    return [*LAUNCHER, "--standalone", "--nproc_per_node", "2", "--max_restarts", str(restarts), *map(str, words)]


def processes_of(launcher):
    found = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout
    return [int(number) for number in found.split()]


def train_two(*words, restarts=0):
    command = torchrun(*words, restarts=restarts)
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def train(processes, *words):
    done = run_script(*words) if processes == 1 else train_two(*words)
    assert done.returncode == 0, done.stderr
    return done


def error_lines(done):
    """Return the lines that the training has printed, without torchrun's own report."""
    assert done.returncode == 1  # torchrun's own; its report contains the exit code 2 of the processes
    return re.findall(r"^train\.py: .*$", done.stderr, re.MULTILINE)


def assert_same_curves(folder, reference, last_step=50, rel=1e-4):
    """Losses, accuracies and norms agree to float32's precision, of which 50 steps lose a little."""
    found, expected = read_metrics(folder / "metrics.csv"), read_metrics(reference / "metrics.csv")
    for name in expected.keys() - set(TIMES):
        pairs = [pair for pair in found[name] if pair[0] <= last_step]
        reference_pairs = [pair for pair in expected[name] if pair[0] <= last_step]
        assert pairs and [step for step, _ in pairs] == [step for step, _ in reference_pairs]
        values = [value for _, value in reference_pairs]
        assert [value for _, value in pairs] == pytest.approx(values, rel=rel, abs=1e-6), name
    assert len(expected["loss"]) >= last_step


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    train(1, "part2/train.py", *BOOK, "--run_dir", folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    done = train(2, "part2/train.py", *BOOK, "--run_dir", folder)
    assert done.stderr == ""
    assert done.stdout.count("step 600:") == done.stdout.count("write with it: ") == 1
    return folder


@pytest.fixture(scope="module")
def two_begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "run"
    train(2, "part2/train.py", *BOOK, "--train_steps", "20", "--run_dir", folder)
    return folder


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(one, two):
    assert_same_curves(two, one)
    assert len(list(two.glob("events.*"))) == 1
    config = json.loads((two / "config.json").read_text())
    assert config["command"].startswith("torchrun --standalone --nproc_per_node 2 part2/train.py")
    for folder in (one, two):
        layers = contents(folder)[0]["carried"]["layers"]
        assert [h.shape for h, _ in layers] == 2 * [(8, 16)]  # of the whole batch


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits(two, two_begun, tmp_path):
    shutil.copytree(two_begun, tmp_path / "run")
    train(2, "part2/train.py", *BOOK, "--run_dir", tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "run", two)


@pytest.mark.slow
def test_one_process_continues_what_two_began(one, two_begun, tmp_path):
    shutil.copytree(two_begun, tmp_path / "run")
    train(1, "part2/train.py", *BOOK, "--train_steps", "60", "--run_dir", tmp_path / "run", "--resume")
    assert_same_curves(tmp_path / "run", one)


@pytest.mark.slow
def test_two_processes_continue_what_one_began(one, tmp_path):
    train(1, "part2/train.py", *BOOK, "--train_steps", "20", "--run_dir", tmp_path)
    train(2, "part2/train.py", *BOOK, "--train_steps", "60", "--run_dir", tmp_path, "--resume")
    assert_same_curves(tmp_path, one)


def under_fire(folder, words, kills, seed):
    """Train, and kill one of the processes, drawn at random, `kills` times, at random moments after a checkpoint."""
    draw = random.Random(seed)
    command = torchrun("part2/train.py", *words, "--run_dir", folder, restarts=kills)
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, **OPTIONS)
    checkpoint, killed, seen = folder / "checkpoint.pt", [], None
    while len(killed) < kills and launcher.poll() is None:
        changed = checkpoint.stat().st_mtime_ns if checkpoint.exists() else seen
        if changed == seen:
            time.sleep(0.02)
            continue
        time.sleep(draw.uniform(0, 0.5))
        found = processes_of(launcher)
        if len(found) < 2:  # between two attempts
            continue
        killed.append(draw.choice(found))
        os.kill(killed[-1], signal.SIGKILL)
        while processes_of(launcher) == found:
            time.sleep(0.02)
        seen = checkpoint.stat().st_mtime_ns
    error = launcher.communicate(timeout=200)[1]
    assert launcher.returncode == 0, error
    assert len(killed) == kills == len(re.findall(r"exitcode: -9", error)), error


@pytest.mark.slow
def test_a_process_killed_at_a_random_moment_is_replaced(two, tmp_path):
    under_fire(tmp_path / "run", BOOK, kills=1, seed=time.time_ns())
    assert_same_run(tmp_path / "run", two)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_are_killed_and_replaced(tmp_path, seed):
    words = [*BOOK, "--train_steps", "6000", "--sample_every", "5000"]
    train(2, "part2/train.py", *words, "--run_dir", tmp_path / "whole")
    under_fire(tmp_path / "killed", words, kills=4, seed=seed)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_a_process_killed_on_another_machine_is_replaced(two, tmp_path):
    """Two launchers stand for two machines; only the launcher of the killed process counts a restart."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    words = [*"--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_id a --rdzv_endpoint".split(), endpoint]
    command = [*LAUNCHER, *words, "--max_restarts", "1", "part2/train.py", *BOOK, "--run_dir", str(tmp_path / "run")]
    machines = [subprocess.Popen(command, stdout=subprocess.DEVNULL, **OPTIONS) for _ in range(2)]
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.05)
    (victim,) = processes_of(machines[1])
    os.kill(victim, signal.SIGKILL)
    errors = [machine.communicate(timeout=200)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    assert "exitcode: -9" in errors[1]
    assert_same_run(tmp_path / "run", two)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["poems", "windows"])
def test_poems_and_windows_too(tmp_path, kind):
    """Poems have unequal lengths, and an epoch's last batch is smaller."""
    words = POEMS if kind == "poems" else [*WINDOWS, "--train_steps", "60", "--schedule", "cosine", "--max_norm", "0.5"]
    for processes in (1, 2):
        train(processes, "part2/train.py", *words, "--run_dir", tmp_path / str(processes))
    assert_same_curves(tmp_path / "2", tmp_path / "1")


@pytest.mark.slow
def test_bf16_resumes_to_the_same_bits(tmp_path):
    words = [*BOOK, "--precision", "bf16"]
    train(2, "part2/train.py", *words, "--train_steps", "60", "--run_dir", tmp_path / "whole")
    for more in (["--train_steps", "20"], ["--train_steps", "60", "--resume"]):
        train(2, "part2/train.py", *words, *more, "--run_dir", tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "in_one"), [("convolution", "convolution"), ("dropout", "dropout"), ("normalised", "halves")]
)
def test_images(tmp_path, network, in_one):
    """On CPUs two processes normalise each half of a batch by itself; all else is the same."""
    train(1, NETWORK, in_one, *IMAGES, "--run_dir", tmp_path / "1")
    train(2, NETWORK, network, *IMAGES, "--run_dir", tmp_path / "2")
    assert_same_curves(tmp_path / "2", tmp_path / "1")
    losses = [json.loads((tmp_path / folder / "result.json").read_text())["test_loss"] for folder in ("1", "2")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "in_one"), [("vgg11", "vgg11"), ("resnet18", "resnet18_halves")])
def test_deep_networks(tmp_path, network, in_one):
    """Three steps: rounding grows in them by a factor of ten a step, and 129 million weights of VGG take their time."""
    words = [*IMAGES, "--num_train", "24", "--batch_size", "8", "--epochs", "1"]
    train(1, NETWORK, in_one, *words, "--run_dir", tmp_path / "1")
    train(2, NETWORK, network, *words, "--run_dir", tmp_path / "2")
    assert_same_curves(tmp_path / "2", tmp_path / "1", last_step=3, rel=1e-2)


@pytest.mark.slow
def test_images_resume_to_the_same_bits(tmp_path):
    """With dropout and running statistics."""
    words = [NETWORK, "normalised_dropout", *IMAGES, "--epochs", "60", "--print_every", "100"]
    train(2, *words, "--run_dir", tmp_path / "whole")
    launcher = subprocess.Popen(torchrun(*words, "--run_dir", tmp_path / "run"), **OPTIONS)
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert launcher.poll() is None
        time.sleep(0.05)
    launcher.terminate()
    assert "stopped at step" in launcher.communicate(timeout=60)[1]
    train(2, *words, "--run_dir", tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_stopped_by_ctrl_c_then_resumed(tmp_path):
    words = [*BOOK, "--train_steps", "100000", "--sample_every", "50000", "--run_dir", tmp_path / "run"]
    launcher = subprocess.Popen(torchrun("part2/train.py", *words), **OPTIONS)
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.05)
    launcher.send_signal(signal.SIGINT)
    error = launcher.communicate(timeout=60)[1]
    (line,) = re.findall(r"^train\.py: .*$", error, re.MULTILINE)
    step = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"]
    command = r"torchrun --standalone --nproc_per_node 2 part2/train\.py .* --resume"
    assert re.fullmatch(rf"train\.py: stopped at step {step:,}; go on with: {command}", line)
    train(2, *line.split("nproc_per_node 2 ")[1].split(), "--train_steps", step + 5)


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_an_error_is_one_line(two, restarts):
    done = train_two("part2/train.py", *BOOK, "--run_dir", two, restarts=restarts)
    line = f"train.py: {two} already holds a run: add --resume to continue it, or choose another --run_dir"
    assert error_lines(done) == [line]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["part2/train.py", "--nonsense"], "unrecognized arguments: --nonsense (--help lists all arguments)"),
        (
            ["part2/train.py", "--batch_size", "9"],
            "--batch_size 9 cannot be divided among 2 processes: take a multiple of 2",
        ),
        (
            ["part4/train.py", "--batch_size", "2"],
            "--batch_size 2 cannot be divided among 2 processes: take a multiple of 2, at least 4",
        ),
        (["part2/train.py", "--txt_file", "no/such.txt"], "no/such.txt does not exist"),
        (["part1/train.py"], "this script trains in one process: start it with python"),
    ],
)
def test_bad_input_ends_in_one_line(words, message):
    assert error_lines(train_two(*words)) == [f"train.py: {message}"]


@pytest.mark.slow
def test_divergence_is_one_line(tmp_path):
    words = "--optimizer sgd --lr 1e30 --max_norm 1e30 --eval_every 1".split()
    (line,) = error_lines(train_two("part2/train.py", *BOOK, *words, "--run_dir", tmp_path))
    assert re.search(r"diverged at step \d+: .*(nan|inf).*; try a lower --learning_rate", line)


@pytest.mark.parametrize(("last", "exit_code"), [("pass", 0), ("raise CommandError('no')", 2)])
def test_a_process_of_several_ends_at_once(last, exit_code):
    """It skips the interpreter's shutdown, during which threads of gloo might abort; what was printed comes out."""
    script = f"""
import atexit
from common.command import run_command
from common.errors import CommandError

def main():
    print("done", end="")
    {last}

atexit.register(print, "the interpreter's shutdown")
run_command(main)
"""
    environment = {**ENVIRONMENT, "TORCHELASTIC_RUN_ID": "1", "RANK": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "done", "")


@pytest.fixture
def as_process(monkeypatch):
    """Let this process play one of several."""

    def play(rank, processes):
        for module in (common.distributed, part2.poems, part4.cifar10):
            monkeypatch.setattr(module, "world_size", lambda: processes)
        monkeypatch.setattr(common.distributed, "rank", lambda: rank)

    return play


@pytest.mark.parametrize("source", [RandomWindows, ContiguousStreams])
def test_each_process_reads_its_own_windows(source, tmp_path, monkeypatch, as_process):
    """Also from a text that is too large for memory; the test notes what is read."""
    (tmp_path / "text.txt").write_text("".join(chr(97 + k % 26) for k in range(5000)))
    monkeypatch.setattr("part2.dataset.IN_MEMORY", 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    corpus, read = Corpus(tmp_path / "text.txt"), []
    real = corpus.windows
    monkeypatch.setattr(corpus, "windows", lambda starts, length: read.append(starts) or real(starts, length))
    batches = source(corpus, 10, 12, seed=0)
    for step in (0, 1, 7):
        read.clear()
        whole = batches.batch(step)
        parts = []
        for rank in range(3):
            as_process(rank, 3)
            parts.append(batches.batch(step))
        as_process(0, 1)
        assert torch.equal(torch.cat([part.inputs for part in parts], dim=1), whole.inputs)
        assert torch.equal(torch.cat([part.targets for part in parts], dim=1), whole.targets)
        assert [len(starts) for starts in read] == [12, 4, 4, 4]
        assert np.array_equal(np.concatenate(read[1:]), read[0])


def test_all_processes_get_equally_many_poems(as_process):
    batches = PoemBatches(PoemCorpus("builtin", 12), 9, seed=0)
    for step in range(batches.steps_per_epoch):
        whole, parts = batches.batch(step), []
        for rank in range(3):
            as_process(rank, 3)
            parts.append(batches.batch(step))
        as_process(0, 1)
        inputs, targets = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("inputs", "targets"))
        number = whole.inputs.shape[1]
        assert torch.equal(inputs[:, :number], whole.inputs) and torch.equal(targets[:, :number], whole.targets)
        assert (targets[:, number:] < 0).all() and len({part.inputs.shape for part in parts}) == 1


def test_augmentation_does_not_depend_on_the_number_of_processes(as_process):
    pixels = torch.arange(8 * 3 * 32 * 32).reshape(8, 3, 32, 32)
    whole = part4.cifar10.augment(pixels, torch.Generator().manual_seed(0))
    parts = []
    for rank, rows in enumerate(pixels.chunk(2)):
        as_process(rank, 2)
        parts.append(part4.cifar10.augment(rows, torch.Generator().manual_seed(0)))
    assert torch.equal(torch.cat(parts), whole)


def test_a_gpu_for_each_process(as_process, monkeypatch):
    as_process(1, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert common.distributed.local_cuda_device("cuda") == "cuda:1" and chosen == [1]
    with pytest.raises(CommandError, match="--device cuda:0 is one GPU for 2 processes"):
        get_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CommandError, match="2 processes on this machine need a GPU each, but it has 1"):
        get_device("cuda")
