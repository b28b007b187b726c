"""The studies' own computations, and the figures of the committed results."""

import csv
import json
from argparse import Namespace

import pytest
import torch

from common import experiment
from common.errors import CommandError
from common.experiment import RESULTS, read_results
from common.paths import readable
from part2.experiments import grimm, poems, shakespeare
from part2.model import INITS, TextGenerationModel, load_model
from part2.poems import FIRST_CHARACTERS, read_poems
from tests.harness import ROOT, trains_small_models


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


def test_the_longest_copy_of_a_text():
    assert grimm.longest_copy("at the cat sat on a hat", "see the cat sit in the hall") == len(" the cat s")
    assert grimm.longest_copy("at the cat", "at the cat") == 10 and grimm.longest_copy("yes", "no") == 0


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


def test_the_wide_model_s_committed_samples_are_three_stages_and_its_texts_more_than_30_characters():
    samples, texts = read_results("part2_grimm_samples_1024"), read_results("part2_grimm_texts_1024")
    steps = read_results("part2_grimm_curves")[-1]["step"]
    assert [row["step"] for row in samples] == [steps * stage // 3 for stage in (1, 2, 3) for _ in range(5)]
    assert {row["text"][0] for row in samples[:5]} == {row["text"][0] for row in samples[10:]}
    assert [row["temperature"] for row in texts] == [tau for tau in grimm.HANDOUT_TEMPERATURES for _ in range(3)]
    assert all(len(row["text"].replace("\\n", "\n")) == 200 for row in samples + texts)


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
    assert not any({"num_epochs", "sample_every"} & {*job.arguments} for job in jobs)
    names = ["grimm_study_seed7_train_steps_20", "grimm_study_1024_seed7_train_steps_20"]
    assert [job.run_dir.name for job in jobs] == names


def test_both_models_of_the_tales_write_when_they_are_trained(tmp_path, monkeypatch, tried, capsys):
    """A short sweep: each model's samples, texts and temperatures have names of their own, beside the runs."""
    for model in grimm.MODELS.values():
        monkeypatch.setitem(model, "txt_file", str(ROOT / "LICENSE"))
    monkeypatch.setattr(grimm, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(grimm, "PROMPTS", ("the",))
    monkeypatch.setattr(grimm, "NUM_TEXTS", 2)
    monkeypatch.setattr(grimm, "TEMPERATURES", (0, 2))
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    monkeypatch.setattr(experiment, "run_jobs", trains_small_models(tried))
    monkeypatch.setattr("sys.argv", [grimm.__file__, "--train_steps", "6", "--seeds", "0", "1"])
    grimm.main()
    folder = tmp_path / "runs" / "part2" / "grimm_study"
    curves = read_results("part2_grimm_curves", folder)
    assert {(row["lstm_hidden_dim"], row["seed"]) for row in curves} == {(128, 0), (128, 1), (1024, 0), (1024, 1)}
    for ending, layers in (("", 2), ("_1024", 1)):
        run = tmp_path / "runs" / f"grimm_study{ending or '_seed0'}_train_steps_6"
        assert len(load_model(run)[0].layers) == layers
        stages = json.loads((run / "samples.json").read_text(encoding="utf-8"))
        samples, texts = (read_results(f"part2_grimm_{name}{ending}", folder) for name in ("samples", "texts"))
        assert [row["text"] for row in samples] == [readable(text) for stage in stages for text in stage["texts"]]
        assert {len(text) for stage in stages for text in stage["texts"]} == {200}
        assert [row["temperature"] for row in texts] == [tau for tau in grimm.HANDOUT_TEMPERATURES for _ in range(3)]
        assert len(read_results(f"part2_grimm_completions{ending}", folder)) == 3
        shares = read_results(f"part2_grimm_temperatures{ending}", folder)
        assert [row["temperature"] for row in shares] == [*grimm.TEMPERATURES] * 2
    assert "1 x 1024 units, temperature 2: 0." in capsys.readouterr().out


def test_figures_of_a_single_short_run(tmp_path):
    """One evaluation of one run: a dot for each line, within the panel."""
    (row,) = read_results("part2_grimm_curves")[-1:]
    grimm.draw_curves([{**row, "held_out_loss": 3.0, "loss": 3.1}], tmp_path)
    shares = [row for row in read_results("part2_grimm_temperatures") if row["seed"] == 1]
    grimm.draw_temperatures({"default": shares}, tmp_path)
    shakespeare.draw([{**read_results(shakespeare.NAME)[0], "held_out_loss": 3.0}], tmp_path)
    poems.draw(read_results("part2_poems_inits")[:1], "init", tmp_path / "poems")
    poems.draw_perplexity(read_results("part2_poems_tang")[:1], tmp_path / "tang")
    assert len(list(tmp_path.glob("*.png"))) == 5


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
