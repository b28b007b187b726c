"""A warm process that has imported torch once and forks for each probe, so that a probe takes no start.

    with Server() as server:
        verdict = server.judge(found_part, root, "calls_keep_no_state", "LSTM")

What a probe runs is the submission's code. Its process has a clean environment, a temporary home and working folder,
limits of time, memory and file size, and no network where the system can cut it; whatever it starts ends with it. Its
verdict comes over a pipe, with a number drawn before the submission is imported: to exit, to crash, never to return or
to write "passed" is just to fail the probe. All this stops accidents and casual cheating. Code that means harm needs a
container around it.
"""

import ctypes
import gc
import importlib
import json
import os
import random
import re
import secrets
import select
import signal
import site
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
SECONDS = 60
MEMORY = 4 * 2**30  # bytes that a probe may take beyond what the server has
FILE_SIZE = 256 * 2**20
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
START = f"""
import importlib.util, sys
sys.path[:] = [place for place in sys.path if place]
spec = importlib.util.spec_from_file_location("grading", {str(HERE / "__init__.py")!r})
sys.modules["grading"] = importlib.util.module_from_spec(spec)
from grading import server
server.serve()
"""


class Verdict(NamedTuple):
    """What became of a probe.

    status: "passed", "failed", "stub" where nothing is implemented, "unusable" where what the probe is about cannot be
        used, or "not judged".
    message: what was found; place: in which file and line; key: of one cause for many probes.
    """

    status: str
    message: str = ""
    place: str = ""
    key: str = ""


class Server:
    """The warm process, as seen by the command."""

    def __enter__(self) -> "Server":
        if not hasattr(os, "fork"):
            raise OSError("judging needs a system that can fork: Linux, macOS, or WSL on Windows")
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-c", START],
            cwd=self._home.name,
            env=clean_environment(self._home.name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        hello = self._reply()
        self.network: str = hello["network"]
        self.catalogue: dict[str, dict[str, Any]] = hello["catalogue"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            assert self.process.stdin
            self.process.stdin.close()
        self.process.wait(timeout=10)
        assert self.process.stdout
        self.process.stdout.close()
        self._home.cleanup()

    def judge(
        self,
        edition: str,
        part: str,
        folder: Path,
        root: Path,
        probe: str,
        subject: str | None,
        seconds: float = SECONDS,
    ) -> Verdict:
        """Run one probe on a part of a submission."""
        asked = [edition, part, str(folder), str(root), probe, subject, seconds]
        assert self.process.stdin
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Verdict(**self._reply())

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"the judging process has ended with exit status {self.process.wait()}")
        return json.loads(line)


def clean_environment(home: str) -> dict[str, str]:
    """Return an environment with nothing of the user's in it."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    numbers = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    places = {"HOME": home, "TMPDIR": home, "PYTHONUSERBASE": site.getuserbase()}  # packages may be the user's own
    return kept | numbers | places | {"LC_ALL": "C.UTF-8", "MPLBACKEND": "Agg"}


def serve() -> None:
    """Answer requests, one a line, until there are none."""
    # What is inherited is for the replies alone; a submission's own output goes nowhere.
    replies = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_RDWR)
    requests = os.fdopen(os.dup(0), "r")
    for number in (0, 1):
        os.dup2(nowhere, number)
    network = cut_network()
    import torch
    import torch._dynamo  # every optimizer imports it when it is made

    from grading import probes
    from grading.editions import read_editions

    torch.set_num_threads(1)
    torch.ones(2, requires_grad=True).sum().backward()  # autograd starts in one thread, before any fork
    prepared: set[str] = set()
    parts = {(edition.name, part.name): part for edition in read_editions() for part in edition.parts.values()}
    print(json.dumps({"network": network, "catalogue": probes.catalogue()}), file=replies, flush=True)
    for line in requests:
        edition, name, folder, root, probe, subject, seconds = json.loads(line)
        if folder not in prepared:
            prepared.add(folder)
            import_once(Path(folder))
            gc.collect()
            gc.freeze()  # a collection in a fork would touch, and so copy, all that is here
        secret = secrets.token_hex(16)
        reader, writer = os.pipe()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            child = os.fork()
            if not child:
                os.close(reader)
                for file in (replies, requests):
                    os.close(file.fileno())
                os.dup2(nowhere, 2)
                asked = parts[edition, name], Path(folder), Path(root), probe, subject
                run(asked, Path(scratch), seconds, writer, secret)
            os.close(writer)
            reply = await_verdict(child, reader, secret, seconds)
        print(json.dumps(reply), file=replies, flush=True)
    os._exit(0)  # without the farewells of the packages that were imported


def import_once(folder: Path) -> None:
    """Import the packages that a part names, slow ones such as Matplotlib, so that its probes need not."""
    from grading.loading import OPTIONAL
    from grading.submission import source_of

    for path in [*folder.glob("*.py"), *folder.glob("*.ipynb")]:
        for name in re.findall(r"(?:from|import) ([a-zA-Z_]\w*(?:\.\w+)*)", source_of(path)):
            if name.split(".")[0] in (*OPTIONAL, "torch"):
                with suppress(Exception), redirect_stderr(None):
                    importlib.import_module(name)


def cut_network() -> str:
    """Leave this process and its children without network, by the system if it allows, else in Python only."""
    uid, gid = os.getuid(), os.getgid()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) == 0:
            return "cut off by the system"
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
            with suppress(OSError):
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
                Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
            return "cut off by the system"
    import socket

    def refuse(*_: object) -> None:
        raise OSError("a submission has no network while it is judged")

    socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse  # type: ignore
    return "refused in Python only: the system does not let this user cut it off"


def await_verdict(child: int, reader: int, secret: str, seconds: float) -> dict[str, str]:
    """Return the verdict that a probe's process sends, or what became of it; end it and whatever it has started."""
    received, deadline, status = b"", time.monotonic() + seconds, None
    while time.monotonic() < deadline and status is None and secret.encode() not in received:
        if select.select([reader], [], [], 0.05)[0]:
            received += os.read(reader, 65536)
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(code)
    while select.select([reader], [], [], 0)[0] and (more := os.read(reader, 65536)):
        received += more
    os.close(reader)
    with suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    for line in received.decode(errors="replace").splitlines():
        if line.startswith(secret):
            return json.loads(line[len(secret) :])
    if status is None:
        return Verdict("failed", f"no answer within {seconds:g} s: it does not end")._asdict()
    if status == -signal.SIGXCPU or status == -signal.SIGKILL:
        return Verdict("failed", "it used up its time or memory")._asdict()
    return Verdict("failed", f"its process ended without an answer, exit status {status}")._asdict()


def run(asked: tuple[Any, ...], scratch: Path, seconds: float, writer: int, secret: str) -> None:
    """Run a probe in this process, the forked one, send the verdict, and end."""
    try:
        os.setpgid(0, 0)
        limit(seconds)
        os.chdir(scratch)
        os.environ["TMPDIR"] = str(scratch)  # the home is one for the submission, so that what it compiles is kept
        tempfile.tempdir = str(scratch)
        os.write(writer, (secret + json.dumps(verdict_of(*asked)._asdict()) + "\n").encode())
    finally:
        os._exit(0)


def limit(seconds: float) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def verdict_of(part: Any, folder: Path, root: Path, probe: str, subject: str | None) -> Verdict:
    """Return what became of a probe on the code of a part."""
    import numpy as np
    import torch

    from grading import probes
    from grading.loading import Code, NotJudged, Unusable, crash

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    sys.argv = ["probe"]
    import warnings

    warnings.simplefilter("ignore")
    code, function = Code(part, folder, root), probes.find(part.probes, probe)
    try:
        function(code, *([subject] if subject else []))
    except Unusable as error:
        return Verdict("stub" if error.is_stub else "unusable", error.message, error.place, error.key)
    except NotJudged as error:
        return Verdict("not judged", str(error), key=error.key)
    except AssertionError as error:
        if probes.is_ours(error):
            return Verdict("failed", str(error), code.place_of(subject, getattr(function, "about", "forward")))
        return Verdict("failed", f"crashed: {crash(error)}", code.crash_place(error))
    except BaseException as error:
        return Verdict("failed", f"crashed: {crash(error)}", code.crash_place(error))
    return Verdict("passed")
