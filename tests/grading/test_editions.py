"""The editions' data: every probe that a question names is there, and comes after those that it depends on."""

import importlib
from pathlib import Path

import pytest

from grading.editions import read_editions
from grading.probes import find, probes_of
from grading.submission import find_submission
from tests.grading.solutions import EDITIONS, notebook, solution, write
from tests.grading.test_faults import FAULTS

PARTS = [(edition, part) for edition in read_editions() for part in edition.parts.values()]


@pytest.mark.parametrize(("edition", "part"), PARTS, ids=[f"{e.name}-{p.name}" for e, p in PARTS])
def test_probes_are_asked_for_in_an_order_in_which_causes_come_first(edition, part):
    seen = set()
    every = [asked for question in part.questions for asked in question.asked()]
    for question in part.questions:
        for asked in question.asked():
            for other in getattr(find(part.probes, asked.probe), "after", []):
                subjects = (asked.subject, *question.built_on)
                there = [one for one in every if one.probe == other and one.subject in subjects]
                needed = {one[:2] for one in there if one.required or not asked.required}
                assert needed <= seen, f"{asked.probe} is asked for before {needed - seen}"
            assert (asked.probe, asked.subject) not in seen
            seen.add((asked.probe, asked.subject))


def test_every_probe_names_some_fault():
    """Those of handed-out files are left out: there the faults are the handed-out files' own."""
    asked = {
        (part.probes, one.probe)
        for _, part in PARTS
        for question in part.questions
        if question.number != "handed out"
        for one in question.asked()
    }
    probes = {(edition.name, part.name): part.probes for edition, part in PARTS}
    assert asked == {(probes[fault["editions"][0], fault["part"]], fault["probe"]) for fault in FAULTS.values()}


def test_every_probe_is_asked_for_and_says_what_must_hold():
    asked = {(part.probes, one.probe) for _, part in PARTS for question in part.questions for one in question.asked()}
    for module in ("part1", "part2", "part3", "part4"):
        for name, probe in probes_of(importlib.import_module(f"grading.probes.{module}")).items():
            assert (module, name) in asked
            assert probe.__doc__ and probe.__doc__.split("\n\n")[0].rstrip().endswith(".")


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_edition_is_found_out(tmp_path, edition):
    found = find_submission(write(solution(edition), tmp_path), read_editions())
    assert edition in (found.edition.name, *found.others)
    assert set(found.others) == ({"uva-2019-spring"} if edition == "lmu-2024" else set())


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"notes.txt": "nothing"}, "holds no part of any edition"),
        ({"part1/train.py": "def train(args): pass\n"}, "holds no part of any edition"),
        ({f"{name}/lstm.py": solution("lmu-2024")["part1/lstm.py"] for name in "ab"}, "a and b both hold part1"),
    ],
)
def test_what_cannot_be_judged_is_said_in_one_line(tmp_path, files, words):
    with pytest.raises(ValueError, match=words) as error:
        find_submission(write(files, tmp_path), read_editions())
    assert "\n" not in str(error.value)


def test_older_copies_further_down_are_not_taken(tmp_path):
    files = solution("lmu-2024")
    files |= {f"old/{path}": text for path, text in files.items()}
    assert find_submission(write(files, tmp_path), read_editions()).parts[0].folder == Path(tmp_path, "part1").resolve()


def test_a_notebook_beside_the_scripts_is_not_taken(tmp_path):
    files = solution("lmu-2024")
    files["notebook/rnn.ipynb"] = notebook("#cell\n".join(list(files.values())[:3]))
    assert find_submission(write(files, tmp_path), read_editions()).parts[0].folder == Path(tmp_path, "part1").resolve()
