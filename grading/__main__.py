"""Judge a solution of the assignment: which of the things that its handout asks for hold, and what to look at.

    python -m grading DIR                          a submission, at any depth; the edition is found out
    python -m grading DIR --edition uva-2021 --part part2 --hints
    python -m grading DIR --json results.json --markdown answer.md

The exit code is 0 if everything that is required holds, 1 if something does not, 2 if DIR cannot be judged.
"""

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from common.command import ArgumentParser, positive_int, run_command
from common.errors import CommandError
from common.paths import readable
from grading.answer import lines_of, markdown, results, total
from grading.editions import read_editions
from grading.judging import judge
from grading.server import SECONDS, Server
from grading.submission import FoundPart, Submission, find_submission


def main() -> None:
    args = parse_arguments()
    start = time.monotonic()
    editions = [edition for edition in read_editions() if args.edition in (None, edition.name)]
    if not args.directory.is_dir():
        raise CommandError(f"{args.directory}: there is no such folder")
    for path in (args.json, args.markdown):
        if path and not path.absolute().parent.is_dir():
            raise CommandError(f"{path}: there is no folder to write it to")
        if path and path.is_dir():
            raise CommandError(f"{path} is a folder, not a file to write")
    try:
        submission = find_submission(args.directory, editions, args.part)
    except ValueError as error:
        raise CommandError(str(error)) from None
    with Server() as server:
        print(introduction(submission, server.network), flush=True)
        judged = judge(server, submission, args.seconds)
    title = f"{submission.edition.title}: {total(judged)}"
    for line in lines_of(judged, args.hints):
        print(readable(line) if line[:1] != "\n" else "\n" + readable(line[1:]))
    print(f"\n{total(judged)}; {time.monotonic() - start:.0f} s")
    if args.markdown:
        args.markdown.write_text(markdown(title, judged, args.hints), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(results(title, judged, args.hints), indent=1), encoding="utf-8")
    if not all(one.holds for one in judged):
        sys.stdout.flush()
        sys.exit(1)


def introduction(submission: Submission, network: str) -> str:
    found = {one.part.name for one in submission.parts}
    lines = [f"{submission.edition.name}: {submission.edition.title}"]
    lines += [f"  it fits {' and '.join(submission.others)} as well: --edition decides"] * bool(submission.others)
    lines += [f"  {describe(one, submission)}" for one in submission.parts]
    missing = [name for name in submission.edition.parts if name not in found]
    lines += [f"  not found, not judged: {', '.join(missing)}"] * bool(missing)
    return "\n".join([*lines, f"  network: {network}"])


def describe(found: FoundPart, submission: Submission) -> str:
    return f"{found.part.name} in {readable(str(found.folder.relative_to(submission.root.parent)))}"


def parse_arguments() -> Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("directory", type=Path, metavar="DIR", help="the submission's folder")
    add("--edition", choices=[edition.name for edition in read_editions()], help="by default it is found out")
    add("--part", help="judge this part only, by its name in the edition: part1, part2, ...")
    add("--hints", action="store_true", help="say where this repository answers a question")
    add("--json", type=Path, metavar="FILE", help="write Gradescope's results.json there")
    add("--markdown", type=Path, metavar="FILE", help="write the answer there, as Markdown")
    add("--seconds", type=positive_int, default=SECONDS, help="that a probe may take")
    return parser.parse_args()


if __name__ == "__main__":
    sys.argv[0] = "grading"  # as errors and --help are to name it
    run_command(main)
