"""Runs the probes that an edition asks for, in their order, so that one fault is named once, where it is.

A cause comes before what depends on it: first a model is imported, constructed and called once. What cannot be used, or
does not hold, blocks the probes that would fail for it as well: those of the same subject that come after it, and those
of later questions whose code is built on it.
"""

from dataclasses import dataclass, field

from grading.answer import Finding, Judged
from grading.editions import Asked, Question
from grading.server import SECONDS, Server, Verdict
from grading.submission import FoundPart, Submission


@dataclass
class Causes:
    """What has been found so far in a part, each with the words that name it.

    Args:
        unusable: of a cause's key, such as "construct LSTM".
        failed: of a probe and its subject, and whether it was required: what is required waits for no advice.
    """

    unusable: dict[str, str] = field(default_factory=dict)
    failed: dict[tuple[str, str | None], tuple[str, bool]] = field(default_factory=dict)

    def of(self, question: Question, asked: Asked, after: list[str]) -> str:
        """Return what a probe need not be run for, since it names a cause already; else nothing."""
        for key, cause in self.unusable.items():
            if asked.subject and key.split()[-1].split(".")[0] == asked.subject:
                return cause
        same = [(asked.probe, subject) for subject in question.built_on if asked.probe != "runs"]
        others = [(probe, subject) for probe in after for subject in (asked.subject, *question.built_on)]
        for one in (*same, *others):
            cause, required = self.failed.get(one, ("", False))
            if cause and (required or not asked.required):
                return cause
        return ""

    def of_verdict(self, question: Question, verdict: Verdict) -> str:
        """Return the cause of a verdict, if named before: what cannot be used, here or in what this is built on."""
        if not verdict.key or verdict.status == "not judged":
            return ""
        if verdict.key.startswith("stub "):  # said at its own question, whatever it is built on
            return self.unusable.get(verdict.key, "")
        stages = {f"{stage} {name}" for stage in ("name", "stub", "construct", "call") for name in question.built_on}
        is_of = [key in stages or key.startswith("import ") for key in self.unusable] if question.built_on else []
        built_on = [cause for cause, needed in zip(self.unusable.values(), is_of) if needed]
        return self.unusable.get(verdict.key, built_on[0] if built_on else "")


def judge(server: Server, submission: Submission, seconds: float = SECONDS) -> list[Judged]:
    """Run the probes of every question of every part, and say of each what became of it."""
    return [one for found in submission.parts for one in judge_part(server, submission, found, seconds)]


def judge_part(server: Server, submission: Submission, found: FoundPart, seconds: float) -> list[Judged]:
    judged, causes = [], Causes()
    for question in found.part.questions:
        one = Judged(found.part, question)
        for asked in question.asked():
            about = server.catalogue[f"{found.part.probes}.{asked.probe}"]
            verdict, blocked = Verdict("not judged"), causes.of(question, asked, about["after"])
            if not blocked:
                place = (submission.edition.name, found.part.name, found.folder, submission.root)
                verdict = server.judge(*place, asked.probe, asked.subject, seconds)
                blocked = causes.of_verdict(question, verdict)
            finding = Finding(*asked, verdict, about["must"], about["look"], blocked)
            if verdict.key and not blocked and verdict.status != "not judged":
                causes.unusable[verdict.key] = f"{question.number}: {verdict.key}"
            if blocked or verdict.status not in ("passed", "not judged"):
                cause = blocked or f"{question.number}: {finding.name}"
                causes.failed[asked.probe, asked.subject] = cause, asked.required
            one.findings.append(finding)
        judged.append(without_absent(one))
    return judged


def without_absent(one: Judged) -> Judged:
    """Where one subject of several is enough, leave out those that are not there or not implemented."""
    if one.question.one_of:
        there = [subject for subject in one.question.subjects if not is_absent(one, subject)]
        one.findings = [f for f in one.findings if f.subject in (there or one.question.subjects[:1])]
    return one


def is_absent(one: Judged, subject: str) -> bool:
    first = next(finding for finding in one.findings if finding.subject == subject)
    return first.verdict.status == "stub" or first.verdict.key.startswith("name ")
