"""The studies' own computations, and the figures of the committed results."""

import csv
from argparse import Namespace

import pytest
import torch

from common.experiment import RESULTS, read_results
from part2.experiments import grimm, poems, shakespeare
from part2.model import INITS, TextGenerationModel
from part2.poems import FIRST_CHARACTERS, read_poems


@pytest.mark.parametrize("script", [grimm, poems, shakespeare])
def test_figures_are_drawn_from_the_committed_results(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "FIGURES", tmp_path)
    monkeypatch.setattr("sys.argv", [script.__file__, "--draw_only"])
    script.main()
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png"}
    assert "figure" in capsys.readouterr().out


def test_shares_of_words_are_counted_by_hand(monkeypatch):
    """A model that only ever writes one character after another of a known text."""
    text = "x the cat saw the cat zzz x"
    vocabulary = "".join(sorted(set(text)))

    class Parrot(TextGenerationModel):
        def sample(self, batch_size, sample_length, temperature, generator):
            return torch.tensor([vocabulary.index(c) for c in text]).unsqueeze(1).repeat(1, 2)

    model = Parrot(Namespace(vocabulary_size=3, embedding_size=2, lstm_hidden_dim=2))
    monkeypatch.setattr(grimm, "words", lambda t: t.split() if t == text else "the cat saw".split())
    monkeypatch.setattr(grimm, "TEMPERATURES", (1,))
    (row,) = grimm.temperatures([(model, {"vocabulary": vocabulary})])
    assert float(row["real_words"]) == pytest.approx(5 / 6, abs=1e-4)  # zzz is none
    assert float(row["distinct_words"]) == pytest.approx(4 / 12, abs=1e-4)  # the, cat, saw, zzz, in two equal texts
    assert float(row["distinct_pairs"]) == pytest.approx(4 / 10, abs=1e-4)  # the cat, cat saw, saw the, cat zzz


def test_words():
    assert grimm.words("It's the King's 3 cats, \"Oh!\"") == ["it's", "the", "king's", "cats", "oh"]


def test_the_committed_curves_belong_together():
    rows = read_results("part2_grimm_curves")
    default = [row for row in rows if row["lstm_hidden_dim"] == 128]
    assert {row["seed"] for row in default} == set(grimm.SEEDS)
    for seed in grimm.SEEDS:
        steps = [row["step"] for row in default if row["seed"] == seed]
        assert steps == list(range(500, 10_001, 500))
    assert min(row["held_out_loss"] for row in default) < 1.45


def test_the_committed_samples_are_stages_from_the_same_first_characters():
    rows = read_results("part2_grimm_samples")
    stages = [[row["text"] for row in rows if row["step"] == step] for step in range(2_000, 10_001, 2_000)]
    assert all(len({text[0] for text in stage}) == len(stage) == 5 for stage in stages)
    assert all([text[0] for text in stage] == [text[0] for text in stages[0]] for stage in stages)
    assert all(len(text.replace("\\n", "\n")) == 200 for stage in stages for text in stage)


def test_the_committed_poems_begin_as_they_should():
    with open(RESULTS / "part2_poems.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["first"] for row in rows] == [first for first in FIRST_CHARACTERS for _ in range(3)]
    assert all(row["poem"].startswith(row["first"]) for row in rows)


def test_every_optimizer_and_initialisation_has_three_seeds():
    for name, kind, choices in (
        ("part2_poems_optimizers", "optimizer", poems.LEARNING_RATES),
        ("part2_poems_inits", "init", INITS),
    ):
        runs = {(row[kind], row["seed"]) for row in read_results(name)}
        assert runs == {(choice, seed) for choice in choices for seed in poems.SEEDS}


def test_the_poems_of_the_comparison_come_from_the_collection(tmp_path, monkeypatch):
    collection = [f"{chr(0x4E00 + k)}山。" for k in range(50)]
    monkeypatch.setattr(poems, "RUNS", tmp_path)
    monkeypatch.setattr(poems, "NUM_POEMS", 20)
    monkeypatch.setattr(poems, "read_poems", lambda source: collection)
    poems.write_poems()
    chosen = read_poems(str(tmp_path / "poems.json"))
    assert len(chosen) == 20 and set(chosen) < set(collection) and chosen != collection[:20]
