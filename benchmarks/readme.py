"""The README's commands in a fresh clone: what each prints, and how long it takes.

    python -m benchmarks.readme

does what a newcomer does: clones the repository into an empty folder, without its data or environment, and types the
commands one after the other. The README quotes report/results/benchmark_readme.csv.
"""

import os
import re
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from common.command import ArgumentParser, run_command
from common.errors import CommandError
from common.experiment import add_allow_dirty, require_clean_tree, write_results
from common.paths import ROOT, short_path

# What the README quotes of each command's output, as a regular expression
COMMANDS = {
    "demo": ("make demo", r"RNN, palindromes.*converged"),
    "test": ("make test", r"\d+ passed"),
    "memory": (
        "python part1/train.py --model_type RNN --input_length 999 --preset long_memory",
        r"accuracy \d\.\d+ on [\d,]+",
    ),
    "tales": ("python part2/train.py --txt_file assets/grimm.txt", r"perplexity \d+\.\d+"),
    "tale": (
        'python part2/generate.py --checkpoint runs/part2/grimm_seed0 --prompt "Sleeping beauty is"',
        r"Sleeping beauty is[\s\S]*",
    ),
    "club": ("python part3/train.py", r"accuracy \d\.\d+ on [\d,]+"),
    "molecules": ("python part3/qm9/train.py --model gnn", r"mean absolute error \d+\.\d meV"),
    "shapes": ("python part4/train_numpy.py", r"accuracy \d\.\d+ on [\d,]+"),
}


def main() -> None:
    parser = ArgumentParser(__doc__)
    add_allow_dirty(parser)
    require_clean_tree(parser.parse_args())
    with TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        rows = [{"name": name, **typed(*quoted, clone)} for name, quoted in COMMANDS.items()]
    print(f"written to {short_path(write_results('benchmark_readme', rows))}")


def typed(command: str, pattern: str, clone: Path) -> dict[str, object]:
    """Run a command in the clone and return what the README quotes.

    Raises:
        CommandError: the command failed, or printed nothing of that form.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("DATA_DIR", "VIRTUAL_ENV")}
    environment["PATH"] = f"{clone / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    began = time.monotonic()
    done = subprocess.run(command, shell=True, cwd=clone, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - began
    printed = re.search(pattern, done.stdout)
    if done.returncode or not printed:
        raise CommandError(
            f"{command} ended with exit code {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-1000:]}"
        )
    print(f"{command}: {printed[0].strip()}, {seconds:.0f} s", flush=True)
    return {"command": command, "printed": printed[0].strip(), "seconds": round(seconds, 1)}


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add_allow_dirty(parser)
    return parser


if __name__ == "__main__":
    run_command(main)
