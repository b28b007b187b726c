"""What the tests of every part's train.py share: running scripts, comparing run folders, and killing trainings."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import run_command

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs fork, POSIX signals and limits")
TIMES = ("seconds", "examples_per_second", "characters_per_second")


def run_script(script, *words, cwd=ROOT, **options):
    command = [sys.executable, script, *map(str, words)]
    options = {"cwd": cwd, "env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run(command, **options)


def contents(folder):
    """What must be equal between two runs: all but times."""
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    checkpoint.pop("seconds")
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{key: text for key, text in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    result = json.loads((folder / "result.json").read_text())
    result.pop("seconds")
    return checkpoint, rows, result


def assert_same_run(folder, reference):
    """Weights, optimizer state, random stream, metrics and result: bit for bit."""
    for found, expected in zip(contents(folder), contents(reference)):
        assert bits(found) == bits(expected)


def bits(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, (list, tuple)) else value


def tensorboard_losses(folder):
    """The (step, loss) pairs that TensorBoard shows; it keeps float32."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]


def one_line(done, exit_code=2):
    """The one line that a failed command leaves on stderr."""
    assert done.returncode == exit_code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def failure_of(main, script, words, monkeypatch, capsys, exit_code=2):
    """The one line that a script leaves on stderr when it fails; in this process, for speed, as `run_command(main)` runs it."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == exit_code
    return line


# A process that has imported everything once and then forks itself again and again, so that many kills cost little. A child
# trains until it is killed, by itself at its k-th durable write or by its parent at a random moment; the next one resumes.
KILLER = """
import os, random, signal, sys, time
import importlib, common.figure, torch._dynamo, torch.utils.tensorboard

def train(folder, words, resume, kill_at_write=0):
    calls = 0
    for name in ("fsync", "replace"):
        def counted(*arguments, real=getattr(os, name)):
            nonlocal calls
            calls += 1
            if calls == kill_at_write:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*arguments)
        setattr(os, name, counted)
    sys.argv = ["train.py", *words, "--run_dir", folder, *(["--resume"] if resume else [])]
    module.main()

def fork(seconds, *arguments):
    child = os.fork()
    if not child:
        train(*arguments)
        os._exit(0)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        sys.exit(os.WEXITSTATUS(status))
    return os.WIFSIGNALED(status)

module, mode, folder, *words = sys.argv[1:]
module = importlib.import_module(module)
if mode == "random":
    random.seed(0)
    started, timed = time.monotonic(), os.fork()
    if not timed:
        train(f"{folder}-timed", words, False)
        os._exit(0)
    while not os.path.exists(f"{folder}-timed/checkpoint.pt") and time.monotonic() < started + 60:
        time.sleep(0.01)
    to_checkpoint = time.monotonic() - started  # long on a busy machine
    os.kill(timed, signal.SIGKILL)
    os.waitpid(timed, 0)
    kills = 0  # those that found a checkpoint to resume from
    for _ in range(40):
        begun = os.path.exists(f"{folder}/checkpoint.pt")
        kills += fork(random.uniform(0.05, 0.4 + 2 * to_checkpoint), folder, words, os.path.isdir(folder)) and begun
    fork(0, folder, words, os.path.isdir(folder))
else:
    kills = 0
    while fork(0, f"{folder}/{kills + 1}", words, False, kills + 1):
        kills += 1
        fork(0, f"{folder}/{kills}", words, True)
print(kills)
"""


def train_under_fire(module, mode, folder, *words):
    """Return how often training was killed ("random": how often of those it had been resumed)."""
    command = [sys.executable, "-c", KILLER, module, mode, str(folder), *words]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])
