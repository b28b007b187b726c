"""Correct solutions, in every edition and in every form, hold in full, with the same verdicts in each form."""

from pathlib import Path

import pytest

from grading.answer import ADVICE, HELD
from grading.editions import tomllib
from tests.grading.solutions import EDITIONS, LSTM, edited, notebook, solution, variant

FORMS = tomllib.loads(Path(__file__).with_name("forms.toml").read_text(encoding="utf-8"))


def required(judged):
    """Return {(question, subject, probe): what was found} of all required probes, and why one does not hold."""
    return {
        (one.question.number, finding.subject, finding.probe): finding.state
        if finding.state == HELD
        else (finding.state, finding.verdict.message, finding.blocked_by)
        for one in judged
        for finding in one.findings
        if finding.required
    }


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_solution_of_each_edition_holds_in_full(judged, edition):
    found = judged(solution(edition), edition=None if edition != "uva-2019-spring" else edition)
    assert {state for state in required(found).values()} == {HELD}, required(found)
    assert {one.part.name for one in found} == {
        path.split("/")[0].lower().replace(" ", "") for path in solution(edition)
    }
    advice = [finding for one in found if one.question.number != "handed out" for finding in one.findings]
    assert not [finding for finding in advice if finding.state == ADVICE]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_correct_form_has_the_same_verdicts(judged, form):
    files = edited(solution(form["edition"]), form["edits"])
    found = required(judged(files, form["edition"], form["part"]))
    assert {state for state in found.values()} == {HELD}, found


@pytest.mark.parametrize("place", ["", "assignment2/", "group 7/code/assignment2/"])
def test_a_submission_may_lie_at_any_depth(judged, place):
    files = {place + path: text for path, text in solution("uva-2021").items() if path.startswith("part3")}
    files = {path: text.replace("from data", "from assignment2.part3.data") for path, text in files.items()}
    found = required(judged(files))
    assert {state for state in found.values()} == {HELD}, found


def test_the_folder_may_be_the_part_itself(judged, tmp_path):
    files = {path.split("/")[1]: text for path, text in solution("uva-2019-november").items() if "part2" in path}
    files["train.py"] = files["train.py"].replace("from dataset", "from part2.dataset")
    for path, text in files.items():
        (tmp_path / "part2").mkdir(exist_ok=True)
        (tmp_path / "part2" / path).write_text(text, encoding="utf-8")
    found = required(judged(tmp_path / "part2", "uva-2019-november"))
    assert {state for state in found.values()} == {HELD}, found


def test_a_part_may_be_a_notebook(judged):
    files = {"part1/rnn.ipynb": notebook("#cell\n".join(list(solution("lmu-2024").values())[:3]))}
    found = required(judged(files))
    training = [found.pop(key) for key in list(found) if key[0] == "1.2 (training)"]
    assert {state for state in found.values()} == {HELD}, found
    assert all("there is no train.py" in str(one) for one in training), training


@pytest.mark.parametrize("name", ["gru", "peep_lstm", "bi_lstm"])
@pytest.mark.parametrize("symbols", ["num_classes", "3"])
def test_one_variant_of_2020_is_enough_for_one_data_set(judged, name, symbols):
    files = {"Part 1/lstm.py": variant("lstm", symbols), f"Part 1/{name}.py": variant(name, symbols)}
    found = required(judged(files))
    assert {state for state in found.values()} == {HELD}, found
    assert len({subject for _, subject, _ in found}) == 2


def test_a_model_of_2020_may_leave_the_softmax_to_its_training(judged):
    log_softmax, logits = "torch.log_softmax(h @ self.W_ph + self.b_p, dim=1)", "h @ self.W_ph + self.b_p"
    files = {f"Part 1/{name}.py": variant(name).replace(log_softmax, logits) for name in ("lstm", "gru")}
    files["Part 1/train.py"] = "criterion = torch.nn.CrossEntropyLoss()\n"
    found = required(judged(files, "uva-2020"))
    assert {state for state in found.values()} == {HELD}, found


def test_a_name_may_be_imported_from_another_file(judged):
    files = solution("lmu-2024") | {"part1/lstm.py": "from mine import LSTM\n", "part1/mine.py": LSTM}
    found = required(judged(files))
    assert {state for state in found.values()} == {HELD}, found
