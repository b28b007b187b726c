"""Runs as jobs of a SLURM cluster, by submitit: one job a run, together one array.

A job runs the command that would have run here, and resumes what it finds. Before the time limit SLURM sends SIGUSR2, when a
more urgent job needs the place SIGTERM: the training writes a checkpoint and ends, and the job goes back into the queue. Which
runs SLURM has is known from its queue and from submitit's own files, in `LOGS`: whoever calls an experiment again waits for the
jobs that are there.
"""

import io
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from pathlib import Path
from shlex import quote
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission, as_completed, clean_env

from common.errors import CommandError
from common.experiment import LOGS, Job, failure, start
from common.machine import ROOT, short_path

EXECUTOR = "slurm"  # of submitit's; "local" for tests where there is no SLURM
SECONDS_BEFORE_LIMIT, SECONDS_TO_STOP = 90, 60  # the signal comes so long before the limit; the training has so long to end
MAX_TIMEOUTS = 1_000  # submitit's own limit of 3 would end a long run
LIST_JOBS = ["squeue", "--me", "--array", "--noheader", "--format=%i"]


class Unreachable(CommandError):
    """SLURM cannot be asked which jobs it has."""


class Run:
    """What a job does: bring one run to its end, with so many threads. Returns its exit code and what it says on stderr."""

    def __init__(self, job: Job, threads: int):
        self.job, self.threads, self.process = job._replace(run_dir=job.run_dir.resolve()), threads, None

    def __call__(self) -> tuple[int, str]:
        # SLURM signals all processes of a job. SIGUSR2, or SIGUSR1 where submitit is told so, is for this one, to stop the
        # training and requeue the job. It would kill the training, which inherits the mask and never sees it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
        self.process = start(self.job, self.threads)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _, stderr = self.process.communicate()
        print(stderr, end="", file=sys.stderr, flush=True)
        while self.process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM):
            time.sleep(1)  # preempted or cancelled: the training has stopped, and SLURM requeues or ends this process
        return self.process.returncode, stderr

    def checkpoint(self) -> DelayedSubmission:
        """Stop the training; called by submitit, in a signal handler, before it requeues the job."""
        if self.process:
            self.process.terminate()
            deadline = time.monotonic() + SECONDS_TO_STOP
            with suppress(ChildProcessError):  # it has ended, and `communicate` has noticed
                while not os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                    if time.monotonic() > deadline:
                        self.process.kill()
                    time.sleep(0.1)
        return DelayedSubmission(Run(self.job, self.threads))


class Queue(submitit.slurm.slurm.SlurmInfoWatcher):
    """The state of jobs, from `squeue`: where SLURM keeps no accounts `sacct`, which submitit asks, never sees a job end."""

    def _make_command(self) -> list[str] | None:
        return LIST_JOBS if self._registered - self._finished else None

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        there = set((string if isinstance(string, str) else string.decode()).split())
        return {job_id: {"State": "RUNNING" if job_id in there else "NOT IN THE QUEUE"} for job_id in self._registered}


submitit.SlurmJob.watcher = Queue(delay_s=30)


def run_on_slurm(jobs: list[Job], args: Namespace) -> Iterator[None]:
    """Submit the jobs as one array, but for those that SLURM has already, and yield whenever one has ended.

    Raises:
        CommandError: a run failed, SLURM refuses the jobs, or Ctrl-C; the other jobs go on.
    """
    submitted = queued(jobs)  # asked first: what has left the queue has left its result
    new = [job for job in jobs if job.run_dir not in submitted and not (job.run_dir / "result.json").exists()]
    submitted |= zip((job.run_dir for job in new), _submit(new, args))
    run_dir_of = {job.job_id: run_dir for run_dir, job in submitted.items()}
    try:
        for ended in as_completed(list(submitted.values()), poll_frequency=1):
            yield _check(ended, run_dir_of[ended.job_id])
    except KeyboardInterrupt:
        numbers = " ".join(sorted({job_id.split("_")[0] for job_id in run_dir_of}))
        raise CommandError(
            f"interrupted, the jobs go on: the same command waits for them again, `scancel {numbers}` ends them", 130
        ) from None


def queued(jobs: list[Job]) -> dict[Path, submitit.SlurmJob]:
    """Return those of the jobs that SLURM runs or has in its queue, by run folder.

    Raises:
        Unreachable: SLURM does not answer.
        CommandError: it has a job of the same folder with other arguments.
    """
    run_dirs, found = {job.run_dir.resolve(): job for job in jobs}, {}
    for job_id in _queue():
        submitted = submitit.SlurmJob(LOGS, job_id)
        if submitted.paths.submitted_pickle.exists():
            theirs = submitted.submission().function.job
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
        raise Unreachable(f"SLURM cannot be asked for its jobs: {_last_line(error.stderr)}") from None


def _submit(jobs: list[Job], args: Namespace) -> list[submitit.Job[Any]]:
    executor = submitit.AutoExecutor(LOGS, cluster=EXECUTOR, slurm_max_num_timeout=MAX_TIMEOUTS)
    executor.update_parameters(
        name=Path(sys.argv[0]).stem,
        timeout_min=args.minutes,
        cpus_per_task=args.cpus,
        gpus_per_node=args.gpus or None,
        slurm_partition=args.partition,
        slurm_array_parallelism=args.jobs,
        slurm_signal_delay_s=min(SECONDS_BEFORE_LIMIT, 30 * args.minutes),
        slurm_srun_args=[f"--cpus-per-task={args.cpus}"],  # which since SLURM 22.05 srun does not take over from the job
        slurm_setup=[f"export PYTHONPATH={quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        slurm_additional_parameters={"requeue": True},
    )
    # sbatch prefers its user's variables to what is written in the job.
    said_here = {"SBATCH_TIMELIMIT", "SBATCH_SIGNAL"} | ({"SBATCH_PARTITION"} if args.partition else set())
    kept = {name for name in os.environ if name == "SLURM_CONF" or name.startswith("SBATCH_")} - said_here
    environment = {name: os.environ[name] for name in kept}
    try:
        # A job that we may be in has variables of its own. sbatch's complaint is in the error, too.
        with clean_env(), redirect_stderr(io.StringIO()):
            os.environ.update(environment)
            return executor.submit_array([Run(job, args.cpus) for job in jobs]) if jobs else []
    except submitit.core.utils.FailedJobError as error:
        raise CommandError(f"SLURM refuses the jobs: {_last_line(str(error))}") from None


def _check(job: submitit.Job[Any], run_dir: Path) -> None:
    try:
        returncode, stderr = job.result()
    except submitit.core.utils.UncompletedJobError:
        raise CommandError(
            f"the run in {short_path(run_dir)} did not come to its end: SLURM's job {job.job_id} was cancelled or killed, "
            f"or could not begin, see {short_path(job.paths.stderr)}"
        ) from None
    if returncode:
        raise failure(run_dir, returncode, stderr)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
