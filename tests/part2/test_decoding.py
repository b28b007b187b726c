"""part2/experiments/decoding.py: its measures by hand, and a sweep of one short run."""

from argparse import Namespace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from part2.dataset import decode
from part2.experiments import decoding, grimm
from part2.experiments.decoding import (
    PROMPT_LENGTH,
    WAYS,
    Tail,
    continued,
    distinct_pairs,
    log_probabilities,
    loop,
    loops,
    real_words,
    repeats,
    sentences,
    short_texts,
)
from part2.model import TextGenerationModel
from tests.harness import trains_small_models

TEXT = "".join(f'Lo, {k} of us.  "No {k}!" ' for k in range(200))  # sentences of 10 and 8 characters


@pytest.fixture
def model():
    sizes = {"vocabulary_size": 7, "embedding_size": 5, "lstm_hidden_dim": 6}
    return TextGenerationModel(Namespace(**sizes), torch.Generator().manual_seed(0)).double()


def characters(*shape):
    return torch.randint(7, shape, generator=torch.Generator().manual_seed(1))


def test_sentences_begin_with_capitals_and_do_not_overlap():
    places = sentences(TEXT).tolist()
    assert places == sentences(TEXT).tolist() and 5 < len(places) <= 64
    assert {TEXT[place] for place in places} == {"L", '"'}
    assert all(b - a >= 220 for a, b in pairwise(sorted(places))) and max(places) <= len(TEXT) - 220


@pytest.mark.parametrize("way", WAYS)
def test_every_way_adds_to_the_prompts(model, way):
    prompts = characters(4, 3)
    texts = continued(model, prompts, 6, torch.Generator().manual_seed(0), **WAYS[way])
    assert texts.shape == (10, 3) and torch.equal(texts[:4], prompts)
    if way == "greedy":
        assert torch.equal(texts, model.complete(prompts, 6))
    if "beam" in way:
        assert torch.equal(texts, model.beam_search(prompts, 6, WAYS[way]["beam_size"]).texts[..., 0])


def test_log_probabilities_are_those_of_what_follows_the_prompt(model):
    texts = characters(PROMPT_LENGTH + 5, 3)
    for b, found in enumerate(log_probabilities(model, texts)):
        logits = model(texts[:-1, b : b + 1])[-5:, 0]
        assert found.item() == pytest.approx(-F.cross_entropy(logits, texts[-5:, b]).item(), abs=1e-12)


def test_shares_are_counted_by_hand():
    texts = ["x the cat saw the cat zzz x", "y the cat y"]  # the outermost words may be cut
    assert distinct_pairs(texts) == pytest.approx(4 / 6)  # the cat (three times), cat saw, saw the, cat zzz
    assert real_words(texts, {"the", "cat", "saw"}) == pytest.approx(7 / 8)
    assert distinct_pairs(["", "one"]) == real_words(["", "one"], set()) == 0


def test_repeats_and_loops_are_found():
    once = "abcdefghijklmnopqrst"
    assert repeats(f"{once}, {once}!") and not repeats(f"{once}, {once[1:]}!") and not repeats("short")
    assert loop("once upon a time, and so and so and so and so") == (17, 7)
    assert loop("x" + 3 * once + once[:5]) == (1, 20)
    assert loop("x" + 2 * once) == (1, 20)
    assert loop("x" + once + once[:19]) == loop("once upon a hill") == (0, 0)


def test_the_next_characters_are_compared_with_the_books(model, monkeypatch):
    """The book is what the model itself writes greedily, so that only this way is always right."""
    monkeypatch.setattr(decoding, "NUM_SHORT", 40)
    monkeypatch.setattr(Tail, "windows", lambda tail, places, length: model.complete(characters(20, 40), length))
    rows = short_texts({0: model}, Tail(characters(100), "abcdefg", set()))
    exact = {(row["way"], row["length"]): float(row["exact"]) for row in rows}
    assert exact["greedy", 5] == exact["greedy", 10] == 1 and exact["tau 1", 10] < 0.5


def test_loops_of_greedy_texts(model, monkeypatch):
    monkeypatch.setattr(decoding, "LOOP_LENGTH", 100)
    (row,) = loops({3: model}, Tail(characters(100), "abcdefg", set()), torch.tensor([7]))
    text = decode(model.complete(characters(100)[7:27, None], 100)[20:, 0], "abcdefg")
    assert (row["start"], row["period"]) == loop(text) and row["seed"] == 3


def test_a_short_sweep_stays_beside_its_run(tmp_path, monkeypatch, tried, capsys):
    for name, value in (("NUM_TEXTS", 4), ("TEXT_LENGTH", 30), ("NUM_SHORT", 6), ("LOOP_LENGTH", 60)):
        monkeypatch.setattr(decoding, name, value)
    monkeypatch.setattr(grimm, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    monkeypatch.setattr(experiment, "run_jobs", trains_small_models(tried))
    words = ["--seeds", "5", "--train_steps", "2", "--ways", "greedy", "5 beams", "tau 1"]
    monkeypatch.setattr("sys.argv", [decoding.__file__, *words])
    decoding.main()
    folder = tmp_path / "runs" / "part2" / "decoding"
    rows = read_results("part2_decoding", folder)
    assert [(row["seed"], row["way"]) for row in rows] == [
        (5, way) for way in ("the book", "greedy", "5 beams", "tau 1")
    ]
    assert rows[0]["likelier_than_book"] == 0 and rows[0]["real_words"] == 1
    texts = read_results("part2_decoding_texts", folder)
    assert {len(row["text"].replace("\\n", "\n")) for row in texts} == {30}
    assert len(read_results("part2_decoding_loops", folder)) == 4
    assert (folder / "part2_decoding.pdf").exists() and "5 beams: " in capsys.readouterr().out


def test_impossible_sweeps_are_refused():
    with pytest.raises(CommandError, match="argument --ways: invalid choice: 'random'"):
        decoding.build_parser().parse_args(["--ways", "random"])
