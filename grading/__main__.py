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
from grading.answer import Finding, Judged, lines_of, markdown, results
from grading.editions import Question, read_editions
from grading.server import SECONDS, Server, Verdict
from grading.submission import FoundPart, Submission, find_submission


def main() -> None:
    args = parse_arguments()
    start = time.monotonic()
    editions = [edition for edition in read_editions() if args.edition in (None, edition.name)]
    if not args.directory.is_dir():
        raise CommandError(f"{args.directory}: there is no such folder")
    try:
        submission = find_submission(args.directory, editions, args.part)
    except ValueError as error:
        raise CommandError(str(error)) from None
    with Server() as server:
        print(introduction(submission, server.network))
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


def judge(server: Server, submission: Submission, seconds: int) -> list[Judged]:
    """Run the probes of every question of every part, and say of each what became of it."""
    judged = []
    for found in submission.parts:
        causes: dict[str, str] = {}  # what cannot be used -> the question that says so
        failed: dict[tuple[str, str | None], str] = {}  # probe and subject -> the question at which it did not hold
        for question in found.part.questions:
            one = Judged(found.part, question)
            for probe, subject, required in question.asked():
                about = server.catalogue[f"{found.part.probes}.{probe}"]
                blocked = cause_of(question, probe, subject, about["after"], causes, failed)
                verdict = Verdict("not judged")
                if not blocked:
                    verdict = server.judge(
                        submission.edition.name, found.part.name, found.folder, submission.root, probe, subject, seconds
                    )
                    blocked = causes.get(verdict.key, "") if verdict.key else ""
                    if verdict.key and not blocked and any(f"{n}:" in c for c in causes for n in question.built_on):
                        blocked = next(causes[c] for c in causes for n in question.built_on if f"{n}:" in c)
                label = f"{question.number}, {subject or ''} {probe.replace('_', ' ')}".replace(",  ", ", ")
                if verdict.key and not blocked:
                    causes[f"{verdict.key}"] = f"{question.number}: {verdict.key}"
                if blocked or verdict.status not in ("passed", "not judged"):
                    failed[probe, subject] = blocked or label
                one.findings.append(Finding(probe, subject, required, verdict, about["must"], about["look"], blocked))
            judged.append(without_absent(one))
    return judged


def cause_of(
    question: Question,
    probe: str,
    subject: str | None,
    after: list[str],
    causes: dict[str, str],
    failed: dict[tuple[str, str | None], str],
) -> str:
    """Return what a probe need not be run for, since another has named the cause; else nothing."""
    for earlier in question.built_on:
        if (probe, earlier) in failed:
            return failed[probe, earlier]
    for key, cause in causes.items():
        if subject and key.split()[-1] == subject:
            return cause
    for other in after:
        for name in (subject, *question.built_on):
            if (other, name) in failed:
                return failed[other, name]
    return ""


def without_absent(one: Judged) -> Judged:
    """Where one subject of several is enough, leave out those that are not there or not implemented."""
    if one.question.one_of:
        there = [s for s in one.question.subjects if not is_absent(one, s)]
        one.findings = [f for f in one.findings if f.subject in (there or one.question.subjects[:1])]
    return one


def is_absent(one: Judged, subject: str) -> bool:
    first = next(finding for finding in one.findings if finding.subject == subject)
    return first.verdict.status == "stub" or first.verdict.key.startswith("name ")


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


def total(judged: list[Judged]) -> str:
    states = [finding.state for one in judged for finding in one.findings if finding.required]
    return f"{states.count('holds')} of {len(states)} required probes hold"


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
    run_command(main)
