"""A real SLURM on this machine, while a command runs: munged, slurmctld and slurmd, in a temporary folder.

    apt-get install --no-install-recommends slurm-wlm munge        # Debian, Ubuntu
    python tests/slurm/single_node.py python -m part1.experiments.accuracy_by_length --executor slurm --lengths 5
    python tests/slurm/single_node.py bash                         # for squeue, sbatch, scancel, ...

It must be started by root. It installs nothing and changes no file of the system: it has its own key, ports and state,
uses no cgroups and keeps no database of past jobs. Its one node has all cores of the machine, at least four, and a GPU
in name only.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
MinJobAge=10
FirstJobId={first_job}
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
"""


class CannotStart(Exception):
    """SLURM cannot be started here; the message says why in one line."""


@contextlib.contextmanager
def single_node() -> Iterator[dict[str, str]]:
    """Run SLURM within the block, and yield the environment variables with which its commands find it.

    Raises:
        CannotStart: a program is not installed, the user is not root, or a daemon has ended.
    """
    for program in ("munged", "slurmctld", "slurmd", "sbatch", "srun"):
        if not shutil.which(program):
            raise CannotStart(f"{program} is not installed (apt-get install --no-install-recommends slurm-wlm munge)")
    if os.geteuid():
        raise CannotStart("slurmd must be started by root")
    with tempfile.TemporaryDirectory(prefix="slurm") as name, contextlib.ExitStack() as daemons:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o600)
        values = {
            "host": socket.gethostname().split(".")[0],
            "folder": folder,
            "ports": _free_ports(2),
            # At random, so that logs of an earlier time are not taken for those of today's jobs.
            "first_job": 1 + secrets.randbelow(10**6),
            "cores": max(4, os.cpu_count()),  # enough for several jobs at a time
        }
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
        (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        files = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", *files]
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            daemons.enter_context(_daemon(command, folder, environment))
        _wait_until_idle(folder, environment)
        daemons.callback(cancel_all_jobs, environment)  # they would outlive slurmd
        yield environment


def cancel_all_jobs(environment: dict[str, str], seconds: float = 20) -> None:
    """Cancel all jobs, and wait until their processes have ended."""
    options = {"env": {**os.environ, **environment}, "check": True, "stdout": subprocess.PIPE}
    subprocess.run(["scancel", "--user=root"], **options)
    deadline = time.monotonic() + seconds
    while subprocess.run(["squeue", "--noheader"], **options).stdout and time.monotonic() < deadline:
        time.sleep(0.2)


@contextlib.contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    log = folder / f"{command[0]}.log"
    with open(log, "w") as file:
        # In a session of its own, so that Ctrl-C does not end it before the command's jobs have ended.
        options = {"env": {**os.environ, **environment}, "stdin": subprocess.DEVNULL, "start_new_session": True}
        process = subprocess.Popen(command, stdout=file, stderr=file, **options)
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            raise CannotStart(f"{command[0]} has ended: {_last_error(log)}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(folder: Path, environment: dict[str, str], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    options = {"env": {**os.environ, **environment}, "capture_output": True, "text": True}
    while time.monotonic() < deadline:
        states = subprocess.run(["sinfo", "--noheader", "--format=%T"], **options)
        if states.stdout.split() and set(states.stdout.split()) == {"idle"}:
            return
        time.sleep(0.2)
    raise CannotStart(f"the node is not idle after {seconds:.0f} s: {_last_error(folder / 'slurmd.log')}")


def _last_error(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if "error" in line.lower()), (lines or ["no message"])[-1])


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]


if __name__ == "__main__":
    command = sys.argv[1:] or ["bash"]
    if command[0] == "python":
        command[0] = sys.executable
    try:
        with single_node() as environment:
            sys.exit(subprocess.run(command, env={**os.environ, **environment}).returncode)
    except CannotStart as error:
        print(f"single_node.py: no SLURM here: {error}", file=sys.stderr)
        sys.exit(2)
