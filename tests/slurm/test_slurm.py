"""Experiments whose runs are jobs of SLURM: a real one on this machine, started by single_node.py.

If it cannot be started, the reason is printed, and the tests that need no queue run with submitit's local executor.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("submitit", reason='pip install -e ".[cluster]"')

import common.slurm
from common import experiment, jobs
from common.errors import CommandError
from common.experiment import run_jobs
from common.jobs import Executor, Job
from part1.experiments import accuracy_by_length
from tests.harness import POSIX, ROOT, assert_same_run, failure_of, one_line
from tests.slurm.single_node import CannotStart, cancel_all_jobs, single_node

pytestmark = POSIX
slow = pytest.mark.slow

HERE, ON_SLURM = Executor(jobs=4, cpus=1), Executor("slurm", jobs=4, cpus=1)
PLAN = [("tuned", "RNN", 5, 0), ("tuned", "RNN", 5, 1), ("tuned", "LSTM", 5, 0)]
LONG = {"model_type": "RNN", "input_length": 20, "train_steps": 2_000, "eval_every": 50, "device": "cpu"}  # some 10 s
# A script that runs for `--seconds`, notes when it ran, and fails when asked to run for 13.
SCRIPT = """
import json, pathlib, sys, time
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder, seconds, begun = pathlib.Path(words["--run_dir"]), int(words["--seconds"]), time.time()
if seconds == 13:
    sys.exit("first line\\nscript: thirteen is too much")
folder.mkdir(parents=True)
(folder / "config.json").write_text(json.dumps({"arguments": {"seconds": seconds}}))
time.sleep(seconds)
(folder / "result.json").write_text(json.dumps({"begun": begun, "ended": time.time(), "words": sys.argv[1:]}))
"""


@pytest.fixture(scope="session")
def single_node_slurm(request):
    """The environment variables of a real SLURM; None, and the reason printed, if it cannot be started."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(single_node())
        except CannotStart as reason:
            found = None
            with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                print(f"\nno SLURM here, so submitit's local executor is tested: {reason}", file=sys.stderr)
        yield found


@pytest.fixture(autouse=True)
def logs_and_one_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "num_cores", lambda: 1)  # for runs that are not jobs of SLURM
    monkeypatch.setattr(experiment, "SLURM_LOGS", tmp_path / "logs")


@pytest.fixture
def executor(single_node_slurm, monkeypatch):
    """The name of submitit's executor that `--executor slurm` uses in this test."""
    if not single_node_slurm:
        monkeypatch.setattr(common.slurm, "EXECUTOR", "local")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        yield "local"
        return
    for name, value in single_node_slurm.items():
        monkeypatch.setenv(name, value)
    yield "slurm"
    cancel_all_jobs(single_node_slurm)


@pytest.fixture
def real_slurm(executor):
    if executor != "slurm":
        pytest.skip("needs SLURM's queue")


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return str(tmp_path / "script.py")


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def queue():
    return subprocess.run(common.slurm.LIST_JOBS, capture_output=True, text=True, check=True).stdout.split()


def jobs_submitted(tmp_path):
    return len(list((tmp_path / "logs").glob("*_submitted.pkl")))


def steps(folder):
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[-1].split(",")[0]) if len(lines) > 1 and "," in lines[-1] else 0


@pytest.mark.parametrize("words", [["--partition", "gpu"], ["--gpus", "1"], ["--cpus", "2"], ["--minutes", "60"]])
def test_what_is_asked_of_a_cluster_needs_the_cluster(words, monkeypatch, capsys):
    line = failure_of(accuracy_by_length.main, "sweep.py", words, monkeypatch, capsys)
    assert line == f"sweep.py: argument {words[0]}: only with --executor slurm (--help lists all arguments)"


def test_a_cluster_needs_sbatch_and_submitit(monkeypatch, capsys):
    words = ["--executor", "slurm"]
    monkeypatch.setenv("PATH", "")
    assert "needs sbatch" in failure_of(accuracy_by_length.main, "sweep.py", words, monkeypatch, capsys)
    monkeypatch.setattr(experiment, "find_spec", lambda _: None)
    line = failure_of(accuracy_by_length.main, "sweep.py", words, monkeypatch, capsys)
    assert line == 'sweep.py: --executor slurm needs submitit: pip install -e ".[cluster]"'


def test_a_job_runs_the_command_that_would_have_run_here(script, tmp_path):
    job = Job(script, tmp_path / "run", {"seconds": 0})
    (here,) = run_jobs([job], HERE)
    shutil.rmtree(job.run_dir)
    assert common.slurm.Run(job, 1)() == (0, "")
    assert json.loads((job.run_dir / "result.json").read_text())["words"] == here["words"]


def test_the_signal_that_stops_a_job_does_not_kill_its_training(script, tmp_path):
    run = common.slurm.Run(Job(script, tmp_path / "run", {"seconds": 1}), 1)

    def send_signal():
        wait_for(run.job.run_dir.exists)
        os.kill(run.process.pid, signal.SIGUSR2)

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send_signal)
        assert run() == (0, "")
    sent.result()


@slow
def test_the_results_do_not_depend_on_the_executor(executor, tmp_path, monkeypatch):
    """They do not need accounts of past jobs either, which this SLURM does not keep."""

    def sweep(folder, executor):
        monkeypatch.setattr(accuracy_by_length, "RUNS", tmp_path / folder)
        args = Namespace(executor=executor._replace(jobs=3), draw_only=False, settings={})
        return accuracy_by_length.sweep(PLAN, args)

    here, there = sweep("local", HERE), sweep("slurm", ON_SLURM)
    for row in here + there:
        assert row.pop("seconds") > 0
    assert here == there
    for folder in (tmp_path / "local").glob("*/*"):
        assert_same_run(tmp_path / "slurm" / folder.relative_to(tmp_path / "local"), folder)
    assert sweep("slurm", ON_SLURM)  # finished runs are not repeated
    assert jobs_submitted(tmp_path) == (3 if executor == "slurm" else len(PLAN))


@slow
def test_a_run_that_is_interrupted_ends_in_the_same_bits(executor, tmp_path):
    """It is interrupted by its time limit, and by a more urgent job; SLURM lets each interrupted attempt end first."""
    reference, job = (Job("part1/train.py", tmp_path / name, LONG) for name in ("reference", "run"))
    run_jobs([reference], HERE)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run_jobs, [job], ON_SLURM)
        wait_for(lambda: steps(job.run_dir) > 300)
        (log,) = (tmp_path / "logs").glob("*.err")
        number = log.name.split("_")[0]
        time_out(executor, number)
        wait_for(lambda: "preempted" in log.read_text())
        if executor == "slurm":
            wait_for(lambda: "PENDING" in state(number))
            stopped = steps(job.run_dir)
            wait_for(lambda: steps(job.run_dir) > stopped + 300)
            urgent = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"]
            subprocess.run(urgent, check=True)
        ended.result(timeout=180)
    assert executor == "local" or "Restarts=2" in state(number)
    assert_same_run(job.run_dir, reference.run_dir)


def time_out(executor, number):
    """Send a job the signal that SLURM sends before the time limit, which is at least a minute."""
    if executor == "slurm":
        common.slurm.submitit.SlurmJob(experiment.SLURM_LOGS, number)._interrupt(timeout=True)
    else:
        task = subprocess.run(["pgrep", "-P", number], capture_output=True, text=True, check=True).stdout
        os.kill(int(task), signal.SIGUSR2)


def state(number):
    return subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True).stdout


@slow
def test_a_failing_run_is_one_line(executor, script, tmp_path):
    line = r"^the run in .*run13 ended with exit code 1: script: thirteen is too much$"
    with pytest.raises(CommandError, match=line):
        run_jobs([Job(script, tmp_path / "run13", {"seconds": 13})], ON_SLURM)


@slow
def test_slurm_refuses_in_one_line(real_slurm, script, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "main")  # sbatch would prefer it
    with pytest.raises(CommandError, match=r"^SLURM refuses the jobs: .*[Ii]nvalid partition"):
        run_jobs([Job(script, tmp_path / "run", {"seconds": 0})], ON_SLURM._replace(partition="nowhere"))
    assert not capfd.readouterr().err


@slow
def test_no_more_runs_at_a_time_than_asked_for(real_slurm, script, tmp_path):
    jobs = [Job(script, tmp_path / f"run{k}", {"seconds": 2}) for k in range(4)]
    results = run_jobs(jobs, ON_SLURM._replace(jobs=2))
    at_a_time = [sum(other["begun"] <= result["begun"] < other["ended"] for other in results) for result in results]
    assert max(at_a_time) == 2


@slow
def test_a_cancelled_job_is_named(real_slurm, script, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run_jobs, [Job(script, tmp_path / "run", {"seconds": 100})], ON_SLURM)
        wait_for((tmp_path / "run").exists)
        (number,) = queue()
        subprocess.run(["scancel", number], check=True)
        with pytest.raises(CommandError, match=f"run was not completed: SLURM's job {number} was cancelled"):
            ended.result(timeout=90)


DRIVER = """
import sys, pathlib
from common import experiment, jobs
from part1.experiments import accuracy_by_length
experiment.SLURM_LOGS = pathlib.Path(sys.argv.pop(1))
accuracy_by_length.RUNS = pathlib.Path(sys.argv.pop(1))
accuracy_by_length.run_command(accuracy_by_length.main)
"""


@slow
def test_an_experiment_that_is_started_again_finds_its_jobs(real_slurm, tmp_path):
    """After Ctrl-C and after a kill, no run is repeated and none has two jobs."""
    chosen = ["--families", "tuned", "--models", "RNN", "--lengths", "5"]
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "logs"), str(tmp_path), *chosen]
    on_slurm = [*command, "--executor", "slurm", "--cpus", "1", "--jobs", "2"]
    options = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True}
    for how in (signal.SIGINT, signal.SIGKILL):
        driver = subprocess.Popen(on_slurm, **options)
        try:
            wait_for(lambda: jobs_submitted(tmp_path) == 3)
            time.sleep(1)
            driver.send_signal(how)
            _, stderr = driver.communicate(timeout=30)
        finally:
            driver.kill()
        assert queue()
        if how == signal.SIGINT:
            assert driver.returncode == 130
            assert re.fullmatch(r"-c: interrupted; the jobs go on: .* `scancel \d+` ends them\n", stderr)
    assert "add --executor slurm" in one_line(subprocess.run([*command, "--jobs", "4"], **options, timeout=60))
    done = subprocess.run(on_slurm, **options, timeout=120)
    assert done.returncode == 0, done.stderr
    assert jobs_submitted(tmp_path) == 3
