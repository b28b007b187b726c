"""Faults, planted one at a time in a correct solution: each is named at its question, and at no other.

Most stand in published solutions of the assignment. The fast tests judge the first fault of each probe, in the first of
its editions; the slow ones judge all faults in all of their editions.
"""

from pathlib import Path

import pytest

from grading.answer import ADVICE, FAILED, STUB
from grading.editions import tomllib
from tests.grading.solutions import edited, solution, variant

FAULTS = tomllib.loads(Path(__file__).with_name("faults.toml").read_text(encoding="utf-8"))
PROBES = [(fault["part"], fault["probe"]) for fault in FAULTS.values()]
CASES = [
    pytest.param(edition, fault, id=f"{edition}: {what}", marks=[pytest.mark.slow] * (not is_first))
    for number, (what, fault) in enumerate(FAULTS.items())
    for edition in fault["editions"]
    for is_first in [PROBES.index(PROBES[number]) == number and edition == fault["editions"][0]]
]


@pytest.mark.parametrize(("edition", "fault"), CASES)
def test_a_fault_is_named_at_its_question_and_at_no_other(judged, edition, fault):
    found = judged(edited(solution(edition), fault["edits"]), edition, fault["part"])
    named = {
        (one.question.number, finding.probe): (finding.subject, finding.verdict.message, finding.verdict.place)
        for one in found
        for finding in one.findings
        if finding.state in (FAILED, ADVICE, STUB)
    }
    question, probe = fault["question"], fault["probe"]
    assert (question, probe) in named, named
    assert {number for number, _ in named} == {question}, named
    subject, message, place = named[question, probe]
    assert "Traceback" not in message and "\n" not in message
    if subject and not message.startswith("no file defines"):
        assert place.startswith(fault["edits"][0][0]), (place, message)


def test_of_the_forms_that_fail_the_one_that_fits_best_is_told(judged):
    """The first data set's symbols are too many for this table; the step's shapes are wrong for every one of them."""
    text = variant("lstm", "3").replace("self.b = zeros(4 * hidden_dim)", "self.b = zeros(4 * hidden_dim).unsqueeze(1)")
    finding = judged({"Part 1/lstm.py": text})[0].findings[0]
    assert finding.probe == "runs"
    assert "must match the size of tensor" in finding.verdict.message
