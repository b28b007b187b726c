"""What was found, question by question: for a terminal, as Markdown, and as Gradescope's results.json."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from grading.editions import Part, Question
from grading.server import Verdict

HELD, FAILED, ADVICE, STUB, OPEN = "holds", "does not hold", "advice", "not implemented", "not judged"


class Finding(NamedTuple):
    """What became of one probe.

    Args:
        must, look: what must hold, and what to look at where it does not.
        blocked_by: the cause elsewhere for which it is not judged.
    """

    probe: str
    subject: str | None
    required: bool
    verdict: Verdict
    must: str
    look: str
    blocked_by: str = ""

    @property
    def name(self) -> str:
        words = self.probe.replace("_", " ")
        return f"{self.subject}: {words}" if self.subject else words

    @property
    def could_not_be_judged(self) -> bool:
        """Whether it is the probe that does not know a form: no fault, here or elsewhere, and no missing package."""
        return self.verdict.status == "not judged" and not self.blocked_by and not self.verdict.key

    @property
    def state(self) -> str:
        if self.verdict.status == "passed":
            return HELD
        if self.blocked_by or self.verdict.status == "not judged":
            return OPEN
        if self.verdict.status == "stub":
            return STUB
        return FAILED if self.required else ADVICE


@dataclass
class Judged:
    """A question, and what became of its probes."""

    part: Part
    question: Question
    findings: list[Finding] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(one.state == HELD or one.could_not_be_judged for one in self.findings if one.required)


def lines_of(judged: list[Judged], hints: bool) -> Iterator[str]:
    """Yield the answer for a terminal: a line for a question that holds, and a few for what does not."""
    part = None
    for one in judged:
        if one.part is not part:
            part = one.part
            yield f"\n{part.name}: {part.title}"
        yield f"  {one.question.number:<20} {summary(one):<18} {one.question.asks}"
        for finding in one.findings:
            if finding.state in (FAILED, STUB, ADVICE):
                yield from described(finding, is_own=one.question.number != "handed out")
        for reason, number in Counter(reason_of(finding) for finding in one.findings if finding.state == OPEN).items():
            yield f"      ? {number} not judged: {reason}"
        if hints and one.question.hint and any(finding.state != HELD for finding in one.findings):
            yield f"      hint  {one.question.hint}"


def described(finding: Finding, is_own: bool) -> Iterator[str]:
    """Yield what is to be said of a probe that does not hold; of a handed-out file, in one line."""
    place = f" ({finding.verdict.place})" if finding.verdict.place else ""
    if not is_own:
        yield f"      advice: {finding.name}: {finding.verdict.message}"
        return
    yield f"      {'advice:' if finding.state == ADVICE else '-'} {finding.name}{place}"
    yield f"          asked  {finding.must}"
    yield f"          found  {finding.verdict.message}"
    if finding.look and finding.state != STUB:
        yield f"          look   {finding.look}"


def reason_of(finding: Finding) -> str:
    return f"blocked by {finding.blocked_by}" if finding.blocked_by else finding.verdict.message


def total(judged: list[Judged]) -> str:
    """Return in one line how many of the required probes hold."""
    states = [finding.state for one in judged for finding in one.findings if finding.required]
    unjudged = sum(one.could_not_be_judged for question in judged for one in question.findings if one.required)
    rest = f", {unjudged} could not be judged" if unjudged else ""
    return f"{states.count(HELD)} of {len(states) - unjudged} required probes hold{rest}"


def summary(one: Judged) -> str:
    required = [finding for finding in one.findings if finding.required]
    held = sum(finding.state == HELD for finding in required)
    advice = sum(finding.state == ADVICE for finding in one.findings)
    if required and all(finding.state == STUB or finding.blocked_by for finding in required):
        if any(finding.state == STUB for finding in required):
            return "[not implemented]"
    counts = [f"{held} of {len(required)} hold"] if required else []
    return "[" + ", ".join([*counts, *([f"{advice} advice"] if advice else [])] or ["nothing to say"]) + "]"


def markdown(title: str, judged: list[Judged], hints: bool) -> str:
    """Return the answer as Markdown."""
    lines, part = [f"# {title}"], None
    for one in judged:
        if one.part is not part:
            part = one.part
            lines += ["", f"## {part.name}: {part.title}"]
        lines += ["", f"### {one.question.number} {summary(one)}", "", one.question.asks, ""]
        for finding in one.findings:
            place = f" (`{finding.verdict.place}`)" if finding.verdict.place else ""
            lines.append(f"* **{finding.state}**: {finding.name}{place}")
            if finding.blocked_by:
                lines.append(f"  * blocked by {finding.blocked_by}")
            elif finding.state != HELD:
                lines += [f"  * asked: {finding.must}", f"  * found: {finding.verdict.message}"]
                if finding.look and finding.state in (FAILED, ADVICE):
                    lines.append(f"  * look: {finding.look}")
        if hints and one.question.hint:
            lines += ["", f"Answered in this repository: {one.question.hint}"]
    return "\n".join(lines) + "\n"


def results(title: str, judged: list[Judged], hints: bool) -> dict[str, Any]:
    """Return the answer in the format of Gradescope's results.json: a required probe is a point, advice is none."""
    tests = []
    for one in judged:
        for number, finding in enumerate(one.findings, 1):
            held = finding.state == HELD
            output = [f"asked: {finding.must}"]
            if finding.blocked_by:
                output.append(f"not judged: blocked by {finding.blocked_by}")
            elif not held:
                output.append(f"found: {finding.verdict.message}")
                output += [f"where: {finding.verdict.place}"] * bool(finding.verdict.place)
                output += [f"look: {finding.look}"] * bool(finding.look)
            output += [f"hint: {one.question.hint}"] * bool(hints and one.question.hint)
            tests.append(
                {
                    "number": f"{one.part.name}.{one.question.number}.{number}",
                    "name": f"{one.question.number} {finding.name}",
                    "score": int(held and finding.required),
                    "max_score": int(finding.required),
                    "status": "passed" if held else "failed",
                    "output": "\n".join(output),
                    "visibility": "visible",
                }
            )
    return {"output": title, "visibility": "visible", "stdout_visibility": "hidden", "tests": tests}
