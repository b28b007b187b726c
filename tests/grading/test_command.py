"""`python -m grading`: what it prints and writes, and its exit code."""

import json
import subprocess
import sys

import pytest

from tests.grading.solutions import edited, solution, write
from tests.harness import ENVIRONMENT, ROOT

FAULTY = edited(solution("lmu-2024"), [["part1/lstm.py", "return p", "return p.softmax(dim=1)"]])


def grading(*words):
    command = [sys.executable, "-m", "grading", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def test_a_right_solution_ends_with_0(tmp_path):
    done = grading(write(solution("lmu-2024"), tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "lmu-2024: LMU Munich" in done.stdout
    assert "it fits uva-2019-spring as well: --edition decides" in done.stdout
    assert "25 of 25 required probes hold" in done.stdout


def test_a_fault_ends_with_1_and_is_explained(tmp_path):
    write(FAULTY, tmp_path / "mine")
    results, page = tmp_path / "results.json", tmp_path / "answer.md"
    words = ["--edition", "lmu-2024", "--part", "part1", "--hints", "--json", results, "--markdown", page]
    done = grading(tmp_path / "mine", *words)
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    start = lines.index("- LSTM: output is logits (part1/lstm.py:18)")
    assert lines[start + 1] == "asked  The output is logits, not probabilities: the loss applies the softmax."
    assert lines[start + 2] == "found  every row sums to one: softmax was applied"
    assert lines[start + 3].startswith("look   Look at the end of forward:")
    assert "? 4 not judged: blocked by 1.6: LSTM: output is logits" in lines
    assert "hint  part1/lstm.py; report, section Gates" in lines

    tests = json.loads(results.read_text(encoding="utf-8"))["tests"]
    fields = {"number", "name", "score", "max_score", "status", "output", "visibility"}
    assert all(set(test) == fields for test in tests)
    assert {test["status"] for test in tests} == {"passed", "failed"}
    assert sum(test["max_score"] for test in tests) == 25
    assert sum(test["score"] for test in tests) == 25 - 1 - 4
    failed = next(test for test in tests if test["name"] == "1.6 LSTM: output is logits")
    assert (failed["score"], failed["max_score"], failed["status"]) == (0, 1, "failed")
    assert "where: part1/lstm.py:18" in failed["output"]
    assert len({test["number"] for test in tests}) == len(tests)

    text = page.read_text(encoding="utf-8")
    assert "### 1.6 [7 of 12 hold]" in text
    assert "* **does not hold**: LSTM: output is logits (`part1/lstm.py:18`)" in text
    assert "  * blocked by 1.6: LSTM: output is logits" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{empty}"], "grading: {empty} holds no part of any edition: none of the names that its handout fixes"),
        (["{empty}/nowhere"], "grading: {empty}/nowhere: there is no such folder"),
        (["{empty}", "--part", "part9"], "grading: there is no part 'part9': the parts are part1, part2, part3"),
        (["{empty}", "--edition", "uva-1999"], "grading: argument --edition: invalid choice: 'uva-1999'"),
        (["{empty}", "--json", "{empty}/a/b.json"], "grading: {empty}/a/b.json: there is no folder to write it to"),
        (["{empty}", "--markdown", "{empty}"], "grading: {empty} is a folder, not a file to write"),
    ],
)
def test_what_cannot_be_judged_ends_with_2_and_one_line(tmp_path, words, message):
    done = grading(*(word.format(empty=tmp_path) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message.format(empty=tmp_path))
    assert len(done.stderr.splitlines()) == 1
