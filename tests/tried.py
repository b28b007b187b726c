"""Try commands one after the other, each in a fork of one process that has imported everything once.

    ending = server()("part1.train", "--input_length", "0")        # .code, .out, .err

A command gets five minutes and, if asked for, so many more MiB of memory than the process has at its start.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.harness import ENVIRONMENT, ROOT

SECONDS = 300


class Ending(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def line(self):
        """The one line on stderr, without the script's name, of a command that must not have ended well."""
        assert self.code in (1, 2), self
        assert len(self.err.splitlines()) == 1 and "Traceback" not in self.err, self
        assert self.err[:-1].isprintable(), self
        return self.err.strip().split(": ", 1)[1]


class Tried:
    def __init__(self):
        command = [sys.executable, "-m", "tests.tried"]
        self.server = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**ENVIRONMENT, "PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.server.communicate, timeout=60)

    def __call__(self, module, *words, cwd=ROOT, memory=None, environment=None):
        asked = [module, list(map(str, words)), str(cwd), memory, environment or {}]
        print(json.dumps(asked), file=self.server.stdin, flush=True)
        return Ending(*json.loads(self.server.stdout.readline()))


@cache
def server():
    """Return the one server of this process."""
    return Tried()


def serve():
    prepare()
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        module, *asked = json.loads(line)
        main = importlib.import_module(module).main
        print(json.dumps(run(main, module, *asked)), file=replies, flush=True)


def prepare():
    """Do once what every training does again, so that the forks need not."""
    for module in ("torch._dynamo", "torch.utils.tensorboard", "torch_geometric.data", "rdkit.Chem"):
        importlib.import_module(module)
    from common import figure, machine
    from recurrence import kernel

    machine.provenance()
    kernel.why_not()
    with tempfile.TemporaryDirectory() as folder:
        figure.save_figure(figure.new_figure()[0], Path(folder, "figure"))


def run(main, module, words, cwd, memory, environment):
    """Return exit code (of a signal its negative number), stdout and stderr of a command."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            become(main, module, words, cwd, memory, environment)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(SECONDS)
        status = os.waitpid(child, 0)[1]
        signal.alarm(0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="surrogateescape"))
    return [os.waitstatus_to_exitcode(status), *texts]


def become(main, module, words, cwd, memory, environment):
    import resource  # there is none on Windows

    from common.command import run_command

    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, open(number, "w", closefd=False))
    os.chdir(cwd)
    os.environ.update(environment)
    if memory:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory * 2**20,) * 2)
    sys.argv = [module.replace(".", "/") + ".py", *words]
    try:
        run_command(main)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
