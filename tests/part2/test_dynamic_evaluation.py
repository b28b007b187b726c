"""part2/dynamic_evaluation.py: every way to score a text against a plain loop, and learning by hand; the experiment."""

import copy
from argparse import Namespace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from part2.dataset import HELD_OUT, Corpus
from part2.dynamic_evaluation import EPSILON, cold_losses, dynamic_losses, mean_square_gradients, static_losses
from part2.experiments import dynamic_evaluation, grimm
from part2.model import TextGenerationModel, load_model
from tests.harness import ROOT, trains_small_models

K = 5


def build(**changes):
    sizes = {"vocabulary_size": K, "embedding_size": 4, "lstm_hidden_dim": 6, "lstm_num_layers": 2, **changes}
    return TextGenerationModel(Namespace(**sizes), torch.Generator().manual_seed(0)).double().eval()


def characters(length, seed=0):
    return torch.randint(K, (length,), generator=torch.Generator().manual_seed(seed))


def one_by_one(model, text, window):
    """The loss of each character, read alone, from a state of zero after every `window` characters."""
    losses, state = [], None
    for place, (x, y) in enumerate(pairwise(text)):
        logits, state = model.run(x.view(1, 1), state if place % window else None)
        losses.append(F.cross_entropy(logits[0, 0], y).item())
    return losses


@pytest.mark.parametrize("window", [1, 7, 10, 30])
def test_cold_windows_are_read_from_zero(window):
    model, text = build(), characters(31)
    assert cold_losses(model, text, window).tolist() == pytest.approx(one_by_one(model, text, window), abs=1e-12)


@pytest.mark.parametrize("piece", [1, 7, 30, 100])
def test_the_state_is_carried_through_the_whole_text(piece):
    model, text = build(), characters(31)
    assert static_losses(model, text, piece).tolist() == pytest.approx(one_by_one(model, text, 31), abs=1e-12)


@pytest.mark.parametrize("model", [build(), build().float()])
def test_without_a_rate_dynamic_evaluation_is_static(model):
    text, before = characters(50), copy.deepcopy(model.state_dict())
    mean_squares = mean_square_gradients(model, text)
    for decay in (0.0, 0.3, 1.0):
        found = dynamic_losses(model, text, mean_squares, rate=0.0, decay=decay, piece=8)
        assert torch.equal(found, static_losses(model, text, 8))
        assert all(torch.equal(model.state_dict()[name], weights) for name, weights in before.items())


@pytest.mark.parametrize("decay", [0.0, 0.25, 1.0])
def test_two_steps_by_hand(decay):
    """Of a model of zeros only the output's bias has a gradient: softmax(bias), less 1 at the character that came."""
    model = build(init="zeros", lstm_num_layers=1)
    squares = [torch.full_like(parameter, 4.0) for parameter in model.parameters()]  # R = 2, as its mean
    losses = dynamic_losses(model, torch.tensor([0, 3, 1]), squares, rate=0.1, decay=decay, piece=1)
    bias = torch.zeros(K, dtype=torch.float64)
    for y, loss in zip((3, 1), losses):
        p = torch.softmax(bias, dim=0)
        assert loss.item() == pytest.approx(-p[y].log().item(), abs=1e-12)
        p[y] -= 1
        bias = (1 - decay) * bias - 0.1 * p / (2 + EPSILON * 2)
    assert torch.allclose(model.output.bias, bias, rtol=0, atol=1e-12)
    others = [weights for name, weights in model.named_parameters() if name != "output.bias"]
    assert not any(weights.any() for weights in others)


def test_a_step_of_a_model_with_memory():
    """The gradient of the second piece goes through that piece only, at the weights that the first one has left."""
    model, text = build(), characters(13)
    squares = [parameter.detach() ** 2 + 0.1 for parameter in model.parameters()]
    ours, trained = copy.deepcopy(model), [parameter.detach().clone() for parameter in model.parameters()]
    losses = dynamic_losses(ours, text, squares, rate=0.05, decay=0.9, piece=6)
    mean_R = sum(square.sqrt().sum() for square in squares) / sum(square.numel() for square in squares)
    state, expected = None, []
    for start in (0, 6):
        x, y = text[start : start + 6], text[start + 1 : start + 7]
        logits, state = model.run(x.unsqueeze(1), state)
        state = [(h.detach(), c.detach()) for h, c in state]
        model.zero_grad()
        loss = F.cross_entropy(logits[:, 0], y, reduction="none")
        expected.append(loss.detach())
        loss.mean().backward()
        with torch.no_grad():
            for weight, trained_weight, square in zip(model.parameters(), trained, squares):
                R = square.sqrt()
                share = torch.minimum(0.9 * R / mean_R, torch.tensor(1.0))
                weight += share * (trained_weight - weight) - 0.05 * weight.grad / (R + EPSILON * mean_R)
    assert torch.allclose(losses, torch.cat(expected), rtol=0, atol=1e-12)
    for weight, found in zip(model.parameters(), ours.parameters()):
        assert torch.allclose(weight, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", [1, 5, 10, 23])
def test_no_character_is_learnt_before_it_is_scored(place):
    """Whatever stands at a place, it changes no loss before its own, and learning from it changes those behind."""
    text, losses = characters(31), []
    for number in range(K):
        text[place] = number
        model = build()
        squares = [torch.ones_like(parameter) for parameter in model.parameters()]
        losses.append(dynamic_losses(model, text, squares, rate=0.1, decay=0.01, piece=5))
    for other in losses[1:]:
        assert torch.equal(other[: place - 1], losses[0][: place - 1])
        assert not torch.isclose(other[place + 4 :], losses[0][place + 4 :]).any()


def test_learning_from_a_text_lowers_the_loss_on_its_repetitions():
    model, text = build(), characters(20).repeat(30)
    squares, static = mean_square_gradients(model, characters(1_000)), static_losses(model, text)
    losses = dynamic_losses(model, text, squares, rate=0.01, decay=0.001, piece=20)
    assert losses[-100:].mean() < 1.3 < 1.5 < static[-100:].mean()


def test_mean_squares_are_those_of_the_pieces():
    model, text = build(), characters(21)
    squares, state = [0.0 for _ in model.parameters()], None
    for start in (0, 8, 16):
        logits, state = model.run(text[start : min(start + 8, 20)].unsqueeze(1), state)
        state = [(h.detach(), c.detach()) for h, c in state]
        model.zero_grad()
        F.cross_entropy(logits[:, 0], text[start + 1 : start + 9]).backward()
        squares = [square + parameter.grad**2 / 3 for square, parameter in zip(squares, model.parameters())]
    for found, expected in zip(mean_square_gradients(model, text, 8), squares):
        assert torch.allclose(found, expected, rtol=1e-10, atol=0)


def test_a_text_of_one_character_is_refused():
    with pytest.raises(ValueError, match="the text has 1 characters: one to read and one to predict are needed"):
        static_losses(build(), characters(1))


def test_a_short_sweep_stays_beside_its_runs(tmp_path, monkeypatch, tried, capsys):
    """The setting is chosen on the last tenth of the training part, by the run that has not seen that."""
    monkeypatch.setitem(grimm.DEFAULT, "txt_file", str(ROOT / "LICENSE"))
    for module in (grimm, dynamic_evaluation):
        monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(dynamic_evaluation, "RATES", (1e-4, 1e-3))
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    monkeypatch.setattr(experiment, "run_jobs", trains_small_models(tried))
    words = ["--texts", "tales", "--train_steps", "20"]
    monkeypatch.setattr("sys.argv", [dynamic_evaluation.__file__, *words])
    dynamic_evaluation.main()
    folder = tmp_path / "runs" / "part2" / "dynamic_evaluation"
    choice, rows = (read_results(f"part2_dynamic_evaluation{name}", folder) for name in ("_choice", ""))
    assert [(row["rate"], row["piece"]) for row in choice] == [
        (0, 100), (1e-4, 20), (1e-4, 100), (1e-3, 20), (1e-3, 100)
    ]  # fmt: skip
    best = min(choice, key=lambda row: row["validation_loss"])
    assert [row["evaluation"] for row in rows] == ["static", "cold windows of 256", "dynamic"]
    assert (rows[2]["rate"], rows[2]["piece"]) == (best["rate"], best["piece"])
    whole, part = Corpus(ROOT / "LICENSE", HELD_OUT), Corpus(tmp_path / "runs" / "tales.txt", HELD_OUT)
    assert part.size == whole.num_train
    for name, corpus, loss in (
        ("grimm_study_seed0", whole, rows[0]["held_out_loss"]),
        ("tales", part, choice[0]["validation_loss"]),
    ):
        model, checkpoint = load_model(tmp_path / "runs" / f"{name}_train_steps_20")
        assert checkpoint["text_checksum"] == corpus.checksum
        tail = torch.from_numpy(corpus.tail.astype("int64"))
        assert static_losses(model, tail).mean().item() == pytest.approx(loss, abs=1e-5)
    assert "tales, dynamic (rate 0.0" in capsys.readouterr().out


def test_impossible_sweeps_are_refused():
    with pytest.raises(CommandError, match="argument --texts: invalid choice: 'tang'"):
        dynamic_evaluation.build_parser().parse_args(["--texts", "tang"])
