"""One warm process judges all fixtures."""

import pytest

from grading.editions import read_editions
from grading.judging import judge
from grading.server import Server
from grading.submission import find_submission
from tests.grading.solutions import write


@pytest.fixture(scope="session")
def server():
    with Server() as server:
        yield server


@pytest.fixture
def judged(server, tmp_path):
    """A function that judges a solution's files, or a folder: the questions and what was found.

    The handed-out files are left out unless `handed_out`, since their probes start Python anew.
    """

    def judged(files, edition=None, part=None, handed_out=False):
        folder = write(files, tmp_path / "submission") if isinstance(files, dict) else files
        editions = [one for one in read_editions() if edition in (None, one.name)]
        for one in () if handed_out else [part for edition in editions for part in edition.parts.values()]:
            one.questions = [question for question in one.questions if question.number != "handed out"]
        return judge(server, find_submission(folder, editions, part))

    return judged


@pytest.fixture
def states(judged):
    """The same, as {(question, subject, probe): state}."""

    def states(*arguments, **words):
        return {
            (one.question.number, finding.subject, finding.probe): finding.state
            for one in judged(*arguments, **words)
            for finding in one.findings
        }

    return states
