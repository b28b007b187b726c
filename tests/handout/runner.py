"""One probe, run on one solution, in this process and no other: the child that `conftest.py` starts.

    python runner.py PART_FOLDER PROBES_FILE VERDICT_FILE PROBE [ARGUMENT ...]

The solution is imported as its own scripts import it, with its folder first on the path. The verdict, "passed" or a
reason, goes to a file, since standard output belongs to the solution.
"""

import os
import random
import runpy
import sys
import traceback
from pathlib import Path

import numpy as np
import torch


def main(part_folder: str, probes_file: str, verdict_file: str, probe: str, *arguments: str) -> None:
    sys.argv[1:] = []
    sys.path[:1] = [part_folder, str(Path(part_folder).parent)]  # for `from lstm import` and `from part1.lstm import`
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    verdict = "passed"
    try:
        runpy.run_path(probes_file)[probe](*arguments)
    except BaseException as error:  # SystemExit too: importing a solution must not end the probe
        verdict = reason(error, part_folder, probes_file)
    Path(verdict_file).write_text(verdict, encoding="utf-8")
    os._exit(0)  # not to wait for threads that the solution left running


def reason(error: BaseException, part_folder: str, probes_file: str) -> str:
    """Say in one line what was found: a probe's own message, or the crash and the solution's line that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError) and frames[-1].filename == probes_file:
        return str(error)
    message = " ".join(f"crashed: {type(error).__name__}: {error}".split())[:300]
    inside = [f for f in frames if Path(part_folder) in Path(f.filename).parents]
    return f"{message} ({Path(inside[-1].filename).name}, line {inside[-1].lineno})" if inside else message


if __name__ == "__main__":
    main(*sys.argv[1:])
