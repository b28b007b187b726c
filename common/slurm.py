"""Runs as jobs of a SLURM cluster, submitted with submitit: one job for each run, all in one array.

A job runs the same command as on this machine, and resumes a run that was begun. SLURM sends SIGUSR2 before the time
limit, and SIGTERM when a more urgent job needs the resources: then the training saves a checkpoint and ends, and the
job returns to the queue. SLURM's queue and submitit's own files, in the folder `logs`, tell which runs have a job: an
experiment that is started again waits for them.
"""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from pathlib import Path
from shlex import quote
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission, as_completed, clean_env
from submitit.slurm.slurm import SlurmInfoWatcher

from common.errors import CommandError
from common.jobs import Executor, Job, failure, start
from common.paths import ROOT, short_path

EXECUTOR = "slurm"  # submitit's name for it; "local" in tests on machines without SLURM
SECONDS_BEFORE_LIMIT = 90  # between the signal and the time limit
SECONDS_TO_STOP = 60  # in which the training must end after the signal
MAX_TIMEOUTS = 1_000  # submitit's own limit of 3 would end a long run
LIST_JOBS = ["squeue", "--me", "--array", "--noheader", "--format=%i"]


class Unreachable(CommandError):
    """SLURM does not answer which jobs it has."""


class Run:
    """What a job does: complete one run, with so many threads; returns its exit code and stderr."""

    def __init__(self, job: Job, threads: int):
        self.job = job._replace(run_dir=job.run_dir.resolve())
        self.threads = threads
        self.process: subprocess.Popen[str] | None = None

    def __call__(self) -> tuple[int, str]:
        # SLURM signals all processes of a job. SIGUSR2 (or SIGUSR1, if submitit is configured so) is for this process,
        # which stops the training and requeues the job. It would kill the training, so the training inherits a mask
        # that blocks it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
        self.process = start(self.job, self.threads)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _, stderr = self.process.communicate()
        print(stderr, end="", file=sys.stderr, flush=True)
        while self.process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM):
            time.sleep(1)  # preempted or cancelled: the training has stopped; SLURM will requeue or end this process
        return self.process.returncode, stderr

    def checkpoint(self) -> DelayedSubmission:
        """Stop the training; submitit calls this in a signal handler before it requeues the job."""
        if self.process:
            self.process.terminate()
            deadline = time.monotonic() + SECONDS_TO_STOP
            with suppress(ChildProcessError):  # it has ended, and `communicate` has collected it
                while not os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                    if time.monotonic() > deadline:
                        self.process.kill()
                    time.sleep(0.1)
        return DelayedSubmission(Run(self.job, self.threads))


class Queue(SlurmInfoWatcher):
    """The state of jobs, from `squeue`: submitit's `sacct` never sees a job end if SLURM keeps no accounts."""

    def _make_command(self) -> list[str] | None:
        return LIST_JOBS if self._registered - self._finished else None

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        text = string if isinstance(string, str) else string.decode()
        in_queue = set(text.split())
        return {
            job_id: {"State": "RUNNING" if job_id in in_queue else "NOT IN THE QUEUE"} for job_id in self._registered
        }


submitit.SlurmJob.watcher = Queue(delay_s=30)


def run_on_slurm(jobs: list[Job], executor: Executor, logs: Path) -> Iterator[None]:
    """Submit the jobs that SLURM does not have yet as one array, and yield whenever one of all has ended.

    Raises:
        CommandError: a run failed, SLURM refuses the jobs, or Ctrl-C was pressed; the other jobs go on.
    """
    submitted = queued(jobs, logs)  # asked first: a run that leaves the queue after this has its result by then
    new = [job for job in jobs if job.run_dir not in submitted and not (job.run_dir / "result.json").exists()]
    for job, newly_submitted in zip(new, _submit(new, executor, logs)):
        submitted[job.run_dir] = newly_submitted
    run_dir_of = {job.job_id: run_dir for run_dir, job in submitted.items()}
    try:
        for ended in as_completed(list(submitted.values()), poll_frequency=1):
            _check(ended, run_dir_of[ended.job_id])
            yield
    except KeyboardInterrupt:
        numbers = " ".join(sorted({job_id.split("_")[0] for job_id in run_dir_of}))
        raise CommandError(
            f"interrupted; the jobs go on: the same command waits for them again, `scancel {numbers}` ends them", 130
        ) from None


def queued(jobs: list[Job], logs: Path) -> dict[Path, submitit.Job[Any]]:
    """Return those of the jobs that are in SLURM's queue, waiting or running, by run folder.

    Raises:
        Unreachable: SLURM does not answer.
        CommandError: it has a job for one of the folders with other arguments.
    """
    run_dirs = {job.run_dir.resolve(): job for job in jobs}
    found: dict[Path, submitit.Job[Any]] = {}
    for job_id in _queue():
        submitted: submitit.Job[Any] = submitit.SlurmJob(logs, job_id)
        if submitted.paths.submitted_pickle.exists():
            run: Any = submitted.submission().function  # a Run
            theirs: Job = run.job
            ours = run_dirs.get(theirs.run_dir.resolve())
            if ours and (ours.script, ours.arguments) != (theirs.script, theirs.arguments):
                raise CommandError(
                    f"SLURM's job {job_id} trains in {short_path(ours.run_dir)} with other arguments: cancel it first"
                )
            if ours:
                found[ours.run_dir] = submitted
    return found


def _queue() -> list[str]:
    if EXECUTOR != "slurm":
        return []
    try:
        return subprocess.run(LIST_JOBS, capture_output=True, text=True, check=True).stdout.split()
    except OSError as error:
        raise Unreachable(f"squeue: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise Unreachable(f"SLURM does not list its jobs: {_last_line(error.stderr)}") from None


def _submit(jobs: list[Job], executor: Executor, logs: Path) -> list[submitit.Job[Any]]:
    submitter = submitit.AutoExecutor(logs, cluster=EXECUTOR, slurm_max_num_timeout=MAX_TIMEOUTS)
    submitter.update_parameters(
        name=Path(sys.argv[0]).stem,
        timeout_min=executor.minutes,
        cpus_per_task=executor.cpus,
        gpus_per_node=executor.gpus or None,
        slurm_partition=executor.partition,
        slurm_array_parallelism=executor.jobs,
        slurm_signal_delay_s=min(SECONDS_BEFORE_LIMIT, 30 * executor.minutes),
        # Since SLURM 22.05 srun does not take this over from the job.
        slurm_srun_args=[f"--cpus-per-task={executor.cpus}"],
        slurm_setup=[f"export PYTHONPATH={quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        slurm_additional_parameters={"requeue": True},
    )
    # sbatch prefers the user's SBATCH_ variables to what is written in the job.
    written_in_job = {"SBATCH_TIMELIMIT", "SBATCH_SIGNAL"}
    if executor.partition:
        written_in_job.add("SBATCH_PARTITION")
    kept = {name for name in os.environ if name == "SLURM_CONF" or name.startswith("SBATCH_")} - written_in_job
    environment = {name: os.environ[name] for name in kept}
    try:
        # Clean, since we may be in a job, with variables of its own. What sbatch prints is also in the error.
        with clean_env(), redirect_stderr(io.StringIO()):
            os.environ.update(environment)
            return submitter.submit_array([Run(job, executor.cpus) for job in jobs]) if jobs else []
    except submitit.core.utils.FailedJobError as error:
        raise CommandError(f"SLURM refuses the jobs: {_last_line(str(error))}") from None


def _check(job: submitit.Job[Any], run_dir: Path) -> None:
    try:
        returncode, stderr = job.result()
    except submitit.core.utils.UncompletedJobError:
        raise CommandError(
            f"the run in {short_path(run_dir)} was not completed: SLURM's job {job.job_id} was cancelled or killed, or "
            f"could not start, see {short_path(job.paths.stderr)}"
        ) from None
    if returncode:
        raise failure(run_dir, returncode, stderr)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
