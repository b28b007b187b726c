"""The studies' own computations, and the figures of the committed results."""

import csv
from argparse import Namespace

import pytest
import torch

from common import experiment
from common.errors import CommandError
from common.experiment import RESULTS, read_results
from part2.experiments import grimm, poems, shakespeare
from part2.model import INITS, TextGenerationModel
from part2.poems import FIRST_CHARACTERS, read_poems


@pytest.mark.parametrize("script", [grimm, poems, shakespeare])
def test_figures_are_drawn_from_the_committed_results(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "FIGURES", tmp_path)
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
    (row,) = grimm.temperatures({0: (model, {"vocabulary": vocabulary})})
    assert float(row["real_words"]) == pytest.approx(5 / 6, abs=1e-4)  # zzz is none
    assert float(row["distinct_words"]) == pytest.approx(4 / 12, abs=1e-4)  # the, cat, saw, zzz, in two equal texts
    assert float(row["distinct_pairs"]) == pytest.approx(4 / 10, abs=1e-4)  # the cat, cat saw, saw the, cat zzz


def test_a_model_that_writes_no_words_has_shares_of_0(monkeypatch):
    monkeypatch.setattr(grimm, "TEMPERATURES", (0,))
    model = TextGenerationModel(Namespace(vocabulary_size=2, embedding_size=2, lstm_hidden_dim=2))
    (row,) = grimm.temperatures({0: (model, {"vocabulary": " ."})})
    assert {row[name] for name in ("real_words", "distinct_words", "distinct_pairs")} == {"0.0000"}


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
    monkeypatch.setattr(poems, "read_poems", lambda source: collection)
    path = poems.write_poems(20)
    chosen = read_poems(str(path))
    assert path != poems.write_poems(21)  # a sweep does not take away the poems of another
    assert len(chosen) == 20 and set(chosen) < set(collection) and chosen != collection[:20]
    with pytest.raises(CommandError, match="must be from 2 to 50, the Tang poems, not 51"):
        poems.write_poems(51)


def test_runs_on_other_poems_have_other_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(poems, "RUNS", tmp_path)
    folders = [
        poems.job(tmp_path / name, "adam", 0.003, "uniform", 0).run_dir.name for name in ("poems.json", "poems_9.json")
    ]
    assert folders == ["adam_0.003_uniform_seed0", "adam_0.003_uniform_seed0_num_poems_9"]


def test_the_whole_study_of_the_tales_has_its_four_runs():
    args = grimm.build_parser().parse_args(["--draw_only"])
    jobs = [grimm.training_job(*run, args) for run in grimm.chosen_plan(args)]
    names = [job.run_dir.name for job in jobs]
    assert names == ["grimm_study_seed0", "grimm_study_seed1", "grimm_study_seed2", "grimm_study_1024"]
    assert jobs[3].arguments == {**grimm.UVA_2021, "seed": 0}


def test_steps_take_the_place_of_epochs():
    args = grimm.build_parser().parse_args(["--train_steps", "20", "--seeds", "7"])
    jobs = [grimm.training_job(*run, args).with_settings(args.settings) for run in grimm.chosen_plan(args)]
    assert [job.arguments["train_steps"] for job in jobs] == [20, 20]
    assert not any("num_epochs" in job.arguments for job in jobs)
    names = ["grimm_study_seed7_train_steps_20", "grimm_study_1024_seed7_train_steps_20"]
    assert [job.run_dir.name for job in jobs] == names


def test_figures_of_a_single_short_run(tmp_path):
    """One evaluation of one run: a dot for each line, within the panel."""
    (row,) = read_results("part2_grimm_curves")[-1:]
    grimm.draw_curves([{**row, "held_out_loss": 3.0, "loss": 3.1}], tmp_path)
    grimm.draw_temperatures([row for row in read_results("part2_grimm_temperatures") if row["seed"] == 1], tmp_path)
    shakespeare.draw([{**read_results(shakespeare.NAME)[0], "held_out_loss": 3.0}], tmp_path)
    poems.draw(read_results("part2_poems_inits")[:1], "init", tmp_path / "poems")
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (grimm, ["--models", "gru"], "argument --models: invalid choice: 'gru'"),
        (shakespeare, ["--train_steps", "0"], "argument --train_steps: must be at least 1, not 0"),
        (poems, ["--optimizers", "lion"], "argument --optimizers: invalid choice: 'lion'"),
    ],
)
def test_impossible_sweeps_are_refused(script, words, message):
    with pytest.raises(CommandError, match=message):
        script.build_parser().parse_args(words)
