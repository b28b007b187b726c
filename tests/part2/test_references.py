"""part2/experiments/references.py and transformer.py: their measures by hand, and a sweep over small texts."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import experiment
from common.experiment import read_results
from part2.dataset import HELD_OUT, IGNORED, Corpus
from part2.experiments import references, transformer
from part2.experiments.references import Split, best_order, compressed, joined, kneser_ney, lstm, lstm_parameters, split
from part2.experiments.transformer import Transformer, evaluate, held_out_windows, size, width
from part2.poems import END
from tests.harness import ROOT, failure_of

LICENSE = str(ROOT / "LICENSE")


@pytest.mark.parametrize(("K", "T", "d"), [(63, 30, 4), (5, 8, 12), (3500, 50, 132)])
def test_a_transformer_is_as_large_as_asked_for(K, T, d):
    model = Transformer(K, T, d)
    assert size(d, K, T) == sum(parameter.numel() for parameter in model.parameters())
    assert width(size(d, K, T), K, T) == width(size(d + 4, K, T) - 1, K, T) == d


def test_no_character_is_predicted_from_itself_or_later_ones():
    torch.manual_seed(0)
    model, x = Transformer(5, 9, 8).eval(), torch.randint(5, (9, 2))
    changed = x.clone()
    changed[6] = (x[6] + 1) % 5
    difference = (model(x) - model(changed)).abs().amax(dim=(1, 2))
    assert (difference[:6] < 1e-6).all() and (difference[6:] > 1e-4).all()
    assert torch.allclose(model(x[:4]), model(x)[:4], atol=1e-6)  # shorter windows are read alike


@pytest.mark.parametrize("seq_length", [1, 2, 7, 30])
def test_every_held_out_character_is_scored_once_with_half_a_window_before_it(seq_length):
    corpus = Corpus(LICENSE, HELD_OUT)
    torch.manual_seed(0)
    model, losses, targets = Transformer(len(corpus.vocabulary), seq_length, 8), [], []
    for inputs, y, fresh in held_out_windows(corpus, seq_length, batch_size=3):
        assert fresh and inputs.shape == y.shape and len(y) == seq_length
        targets += [k for window in y.t().tolist() for k in window if k != IGNORED]
    assert targets == corpus.tokens[corpus.num_train :].tolist()
    model.eval()
    scored = -(-seq_length // 2)
    for place in range(corpus.num_train, corpus.size):
        before = seq_length - scored + (place - corpus.num_train) % scored + 1
        x = torch.from_numpy(corpus.tokens[place - before : place].astype(np.int64)).unsqueeze(1)
        losses.append(F.cross_entropy(model(x)[-1], torch.tensor([int(corpus.tokens[place])])).item())
    found = evaluate(model, list(held_out_windows(corpus, seq_length)), torch.device("cpu"))
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_transformer_is_trained_for_a_time(tried, tmp_path):
    words = ["--txt_file", LICENSE, "--num_parameters", 8000, "--minutes", 0.02, "--seq_length", 12]
    ending = tried("part2.experiments.transformer", *words, "--run_dir", tmp_path / "run")
    assert ending.code == 0 and "held-out loss" in ending.out, ending
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    with open(tmp_path / "run" / "metrics.csv") as file:
        rows = [line.strip().split(",") for line in file][1:]
    losses = [float(row[4]) for row in rows if row[4]]
    assert len(losses) == transformer.NUM_EVALUATIONS and result["held_out_loss"] == min(losses) < losses[0]
    assert float(rows[-1][2]) == 0 and int(rows[-1][0]) == result["steps"] and result["num_parameters"] <= 8000
    assert result["seconds"] > 0.02 * 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "1", "--num_parameters", "9"], "one of the arguments --txt_file --poems is required"),
        (["--txt_file", LICENSE, "--poems", "tang"], "argument --poems: not allowed with argument --txt_file"),
        (["--txt_file", LICENSE, "--minutes", "0"], "argument --minutes: must be a finite number above 0, not 0"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    assert message in failure_of(transformer.main, "transformer.py", words, monkeypatch, capsys)


def test_poems_become_one_sequence():
    """The second was cut before its END, the third at it; no first character is predicted, nor an END of ours."""
    rows = np.array([[3, 4, 0, IGNORED], [5, 6, 7, 8], [5, 6, 7, 0]])
    tokens, scored = joined(rows, 0)
    assert tokens.tolist() == [3, 4, 0, 5, 6, 7, 8, 0, 5, 6, 7, 0]
    assert scored.tolist() == [number in (1, 2, 4, 5, 6, 9, 10, 11) for number in range(12)]


def test_texts_are_split_as_in_training():
    book, corpus = split({"txt_file": LICENSE}), Corpus(LICENSE, HELD_OUT)
    assert book.num_train == corpus.num_train and book.scored.all() and len(book.scored) == 108
    poems = split({"poems": "builtin"})
    end = poems.vocabulary.index(END)
    assert (poems.tokens == end).sum() == 48 and (poems.tokens[: poems.num_train] == end).sum() == 43
    assert len(poems.scored) - poems.scored.sum() == 5 and poems.tokens[-1] == poems.tokens[poems.num_train - 1] == end


def of(text, num_train):
    vocabulary = "".join(sorted(set(text)))
    tokens = np.array([vocabulary.index(character) for character in text])
    return Split(tokens, num_train, np.full(len(text) - num_train, True), vocabulary)


def test_compressed_sizes_by_hand():
    assert compressed(of("abcabc" * 10, 24), lambda content: content) == pytest.approx(8 * math.log(2))
    assert compressed(of("月山水" * 10, 10), lambda content: content[:3]) == 0
    assert compressed(of("日山水" * 10, 10), lambda content: content) == pytest.approx(3 * 8 * math.log(2))
    noise = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 4_000))
    for method in (references.xz, lambda content: content):
        assert compressed(of(noise, 2_000), method) > math.log(8)
    assert compressed(of(noise[:2_000] * 2, 2_000), references.xz) < 0.1


def test_ppm_learns():
    pytest.importorskip("pyppmd", reason='pip install -e ".[references]"')
    noise = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 4_000))
    assert references.ppm(of(noise[:2_000] * 2, 2_000), 4) < 1 < math.log(8) < references.ppm(of(noise, 2_000), 4)


def test_n_grams_score_what_counts():
    text = of("abcabcabcabcaab", 12)
    assert kneser_ney(text, 3) < math.log(3)
    last = text._replace(scored=np.array([False, True, False]))
    assert kneser_ney(last, 3) > kneser_ney(text, 3)  # a after ca, where b had always come


def test_the_order_is_chosen_on_validation_text():
    losses = {("validation", 2): 1.5, ("validation", 5): 1.2, ("held out", 2): 1.0, ("held out", 5): 1.3}
    monkey = pytest.MonkeyPatch()
    monkey.setitem(references.ORDERS, "ppm", (2, 5))
    found = best_order("tales", "ppm", lambda split, order: losses[split, order], "validation", "held out")
    monkey.undo()
    assert found == {"setting": "order 5", "held_out_loss": 1.3}


def test_our_own_numbers_are_the_committed_ones():
    """The lowest losses of all runs lie about the means that are shown."""
    curves = [row["held_out_loss"] for row in read_results("part2_grimm_curves") if row["lstm_hidden_dim"] == 128]
    assert min(curves) <= lstm("tales")["held_out_loss"] < min(curves) + 0.02
    tang = [row["held_out_loss"] for row in read_results("part2_poems_tang")]
    assert lstm("tang")["held_out_loss"] == min(tang)
    assert all(lstm(text)["minutes"] > 1 for text in references.LSTMS)
    config = json.loads((ROOT / "part2" / "assets" / "grimm" / "config.json").read_text())
    best = torch.load(ROOT / "part2" / "assets" / "grimm" / "best.pt", weights_only=True)["model"]
    assert lstm_parameters("tales", len(config["vocabulary"])) == sum(weights.numel() for weights in best.values())


def test_a_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(references, "find_spec", lambda name: None)
    line = failure_of(references.main, "references.py", ["--texts", "tales", "--methods", "ppm"], monkeypatch, capsys)
    assert 'the method ppm needs pyppmd: pip install -e ".[references]"' in line


def test_a_short_sweep_stays_beside_its_runs(tmp_path, monkeypatch, tried, capsys):
    pytest.importorskip("pyppmd", reason='pip install -e ".[references]"')
    sources = {"tales": {"txt_file": LICENSE}, "tang": {"poems": "builtin"}}
    monkeypatch.setattr(references, "source", sources.get)
    monkeypatch.setattr(references, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(references, "RATES", (1e-3,))
    monkeypatch.setattr(experiment, "ROOT", tmp_path)

    def run_jobs(jobs, executor):
        for job in jobs:
            arguments = {**job.arguments, "num_parameters": 60_000, "precision": "float32", "batch_size": 8}
            words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
            ending = tried("part2.experiments.transformer", *words, "--run_dir", job.run_dir)
            assert ending.code == 0, ending
        return [json.loads((job.run_dir / "result.json").read_text()) for job in jobs]

    monkeypatch.setattr(experiment, "run_jobs", run_jobs)
    words = ["--texts", "tales", "tang", "--train_minutes", "0.01"]
    monkeypatch.setattr("sys.argv", [references.__file__, *words])
    references.main()
    rows = read_results("part2_references", tmp_path / "runs" / "part2" / "references")
    assert [(row["text"], row["method"]) for row in rows] == [
        (text, method) for text in ("tales", "tang") for method in references.METHODS
    ]
    assert all(0.5 < row["held_out_loss"] < 10 for row in rows)
    assert "tang, xz (preset 9e): " in capsys.readouterr().out
