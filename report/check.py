"""Fail on what LaTeX only warns of: boxes that are too wide or too high, references and citations that are undefined or
defined twice, missing characters, and tables without a number.

    python report/check.py            after `latexmk -pdf main` in report/
"""

import re
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.command import ArgumentParser, run_command
from common.errors import CommandError

REPORT = Path(__file__).resolve().parent
LARGEST_OVERFULL = 2.0  # pt
OVERFULL = re.compile(r"Overfull \\[hv]box \(([\d.]+)pt too (?:wide|high)\)[^\n]*")
WARNING = re.compile(r"Warning: [^\n]*(?:undefined|multiply defined)[^\n]*|Missing character: [^\n]*")
TABLE = re.compile(r"\\begin\{((?:long)?table)\}.*?\\end\{\1\}|\\begin\{tabular\}", re.DOTALL)


def main() -> None:
    ArgumentParser(__doc__).parse_args()
    log = REPORT / "main.log"
    if not log.exists():
        raise CommandError("report/main.log is missing: run latexmk -pdf main in report/")
    found = log_problems(log.read_text(encoding="utf-8", errors="replace"))
    for path in sorted((REPORT / "sections").glob("*.tex")):
        found += [f"{path.name}: {problem}" for problem in unnumbered_tables(path.read_text(encoding="utf-8"))]
    if found:
        print(*found, sep="\n", file=sys.stderr)
        raise CommandError("the report has faults, see above", exit_code=1)
    print("the report has no faults")


def log_problems(log: str) -> list[str]:
    """Return the lines of a LaTeX log that name boxes over 2 pt too large, bad references and missing characters."""
    log = re.sub(r"(?<=[^\n]{79})\n", "", log)  # LaTeX breaks its lines there
    if "Output written on main.pdf" not in log:
        return ["main.log: LaTeX has not come to its end"]
    boxes = [match[0] for match in OVERFULL.finditer(log) if float(match[1]) > LARGEST_OVERFULL]
    return [*boxes, *(match[0] for match in WARNING.finditer(log))]


def unnumbered_tables(text: str) -> list[str]:
    """Return the first line of every table in a section that has no caption."""
    return [match[0].split("\n")[0] for match in TABLE.finditer(text) if r"\caption" not in match[0]]


if __name__ == "__main__":
    run_command(main)
