"""part2/model.py: equal to torch.nn's modules, and writing as its own distribution says."""

import doctest
import math
from argparse import Namespace
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import part2.model
from common import machine
from part2.model import LSTM, TextGenerationModel, choose, drop


def build(seed=0, **changes):
    settings = {"vocabulary_size": 11, "embedding_size": 5, "lstm_hidden_dim": 7, "lstm_num_layers": 2, **changes}
    return TextGenerationModel(Namespace(**settings), torch.Generator().manual_seed(seed))


def characters(*shape, high=11):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(3))


def test_two_layers_equal_the_library_in_values_and_gradients():
    ours = build().double()
    embedding, lstm, output = library = ours.to_torch()
    x, y = characters(13, 4), characters(13, 4)
    expected = output(lstm(embedding(x))[0])
    logits = ours(x)
    assert (logits - expected).abs().max() < 1e-10
    for result in (logits, expected):
        F.cross_entropy(result.flatten(0, 1), y.flatten()).backward()
    copied = TextGenerationModel.from_torch(*library)  # not the gradients: those go through the same renaming below
    for name, parameter in copied.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name))
    with torch.no_grad():
        for module in library:
            for parameter in module.parameters():
                parameter.copy_(parameter.grad)
        for name, weight in ((f"bias_hh_l{k}", lstm.get_parameter(f"bias_hh_l{k}")) for k in range(2)):
            assert weight.any(), name
            weight.zero_()  # bias_ih and bias_hh have the same gradient; ours is one bias
    for name, gradient in TextGenerationModel.from_torch(*library).named_parameters():
        assert (ours.get_parameter(name).grad - gradient).abs().max() < 1e-10, name


def test_one_layer_called_as_graders_do():
    layer = LSTM(lstm_hidden_dim=7, embedding_size=5)
    for T, B in ((1, 1), (9, 4)):
        assert layer(torch.randn(T, B, 5)).shape == (T, B, 7)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * (7 * 5 + 7 * 7 + 7)


def float64_lstm(**options):
    """A library LSTM, its weights drawn in float64, both biases among them."""
    torch.manual_seed(0)
    return nn.LSTM(5, 7, dtype=torch.float64, **options)


def test_two_layers_of_a_library_lstm_taken_one_by_one():
    library = float64_lstm(num_layers=2)
    first, second = (LSTM.from_torch(library, layer=k) for k in range(2))
    x = torch.randn(9, 4, 5, dtype=torch.float64)
    h, state_1 = first.states(x[:6])
    h, state_2 = second.states(h)
    more, last_1 = first.states(x[6:], state_1)
    more, last_2 = second.states(more, state_2)
    expected, (h_T, c_T) = library(x)
    assert (torch.cat((h, more)) - expected).abs().max() < 1e-10
    for (h, c), h_expected, c_expected in zip((last_1, last_2), h_T, c_T):
        assert (h - h_expected).abs().max() < 1e-10 and (c - c_expected).abs().max() < 1e-10
    with pytest.raises(ValueError, match=r"has 2 layers: name one, as in from_torch\(lstm, layer=0\)"):
        LSTM.from_torch(library)


def test_a_layer_to_torch_and_back():
    layer = LSTM.from_torch(float64_lstm())
    library, x = layer.to_torch(), torch.randn(9, 4, 5, dtype=torch.float64)
    assert type(library) is nn.LSTM and (library(x)[0] - layer(x)).abs().max() < 1e-10
    again = LSTM.from_torch(library)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), layer.parameters()))
    for other in (float64_lstm(bidirectional=True), float64_lstm(proj_size=2), float64_lstm(bias=False), nn.GRU(5, 7)):
        with pytest.raises(ValueError, match=r"only a one-directional nn\.LSTM with biases"):
            LSTM.from_torch(other)


def test_conversion_keeps_all_digits_of_float64():
    library = nn.Embedding(11, 5).double(), float64_lstm(num_layers=2), nn.Linear(7, 11, dtype=torch.float64)
    model = TextGenerationModel.from_torch(*library)
    again = TextGenerationModel.from_torch(*model.to_torch())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_the_docstrings_example_runs():
    results = doctest.testmod(part2.model)
    assert results.attempted and not results.failed


def test_a_state_for_another_number_of_layers_is_refused():
    with pytest.raises(ValueError, match=r"must have one \(h, c\) for each of 2 layers, not 1"):
        build().run(characters(3, 4), [(torch.zeros(4, 7), torch.zeros(4, 7))])


def test_the_whole_pass_equals_the_pass_in_pieces():
    model, x = build().double(), characters(13, 4)
    first, state = model.run(x[:5])
    second, last = model.run(x[5:], state)
    whole, whole_last = model.run(x)
    assert (torch.cat((first, second)) - whole).abs().max() < 1e-12
    for (h, c), (h_whole, c_whole) in zip(last, whole_last):
        assert torch.allclose(h, h_whole) and torch.allclose(c, c_whole) and h.shape == c.shape == (4, 7)
    assert torch.equal(model(x), whole)  # no state is kept between calls


def test_bf16_is_float32_within_its_precision(monkeypatch):
    monkeypatch.setattr(machine, "MULTIPLIES_BFLOAT16", True)
    exact, rough = build(lstm_hidden_dim=64), build(lstm_hidden_dim=64, precision="bf16")
    x, y = characters(30, 8), characters(30, 8)
    for model in (exact, rough):
        logits, state = model.run(x)
        assert logits.dtype == state[0][1].dtype == torch.float32
        model.loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        model.loss.backward()
    assert state[0][0].dtype == torch.bfloat16
    assert 0 < abs(exact.loss - rough.loss) < 0.01
    for (name, a), b in zip(exact.named_parameters(), rough.parameters()):
        assert b.grad.dtype == torch.float32
        assert (a.grad - b.grad).norm() < 0.03 * a.grad.norm(), name


def test_initialisations():
    n = 64
    for init in ("uniform", "normal", "xavier"):
        model = build(lstm_hidden_dim=n, init=init)
        for layer in model.layers:
            b_g, b_i, b_f, b_o = layer.b.detach().chunk(4)
            assert abs(b_f.mean() - 1) < 0.05 and max(abs(b.mean()) for b in (b_g, b_i, b_o)) < 0.05
            spread = {"uniform": n**-0.5 / 3**0.5, "normal": 1, "xavier": (2 / (2 * n)) ** 0.5}[init]
            assert layer.W_h.std().item() == pytest.approx(spread, rel=0.05)
            limit = {"uniform": n**-0.5, "normal": math.inf, "xavier": (6 / (2 * n)) ** 0.5}[init]
            assert limit * 0.95 < layer.W_h.abs().max() <= limit or init == "normal"
    assert not any(parameter.any() for parameter in build(init="zeros").parameters())
    with pytest.raises(ValueError, match="initialisations are uniform, zeros, normal, xavier"):
        build(init="ones")


def test_the_initial_loss_is_that_of_guessing():
    model = build(vocabulary_size=80, embedding_size=64, lstm_hidden_dim=128)
    x, y = characters(30, 64, high=80), characters(30, 64, high=80).flip(0)
    assert abs(F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item() - math.log(80)) < 0.2


def test_equal_seeds_give_equal_weights_whatever_the_global_generator():
    torch.manual_seed(1)
    first = build(seed=5).state_dict()
    torch.manual_seed(2)
    second, other = build(seed=5).state_dict(), build(seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_dropout_leaves_out_the_same_units_at_all_steps():
    torch.manual_seed(0)
    h = drop(torch.ones(6, 200, 50), 0.3)
    assert h.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert torch.equal(h[0], h[5]) and not torch.equal(h[:, 0], h[:, 1])
    assert (h == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    model, x = build(dropout=0.5), characters(9, 4)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_sample_shapes_and_first_characters():
    model = build()
    for length in (1, 2, 30):
        texts = model.sample(batch_size=50, sample_length=length, generator=torch.Generator().manual_seed(0))
        assert texts.shape == (length, 50) and texts.dtype == torch.int64
    assert len(texts[0].unique()) == 11


def test_greedy_writing_carries_the_state():
    """Each character is the likeliest after the whole text so far, computed from the beginning."""
    model = build(seed=1)
    prompt = characters(4, 6)
    texts = model.complete(prompt, 20)
    assert torch.equal(texts[:4], prompt)
    for length in range(4, 24):
        assert torch.equal(texts[length], model(texts[:length])[-1].argmax(dim=-1))


def test_writing_reads_one_character_at_a_time(monkeypatch):
    model, read = build(), []
    run = model._run
    monkeypatch.setattr(model, "_run", lambda x, *rest, **named: read.append(tuple(x.shape)) or run(x, *rest, **named))
    model.complete(characters(5, 3), 40)
    assert read == [(5, 3)] + [(1, 3)] * 39


def test_writing_ignores_dropout_and_keeps_the_mode():
    model, plain = build(dropout=0.9), build()
    plain.load_state_dict(model.state_dict())
    prompt = characters(4, 6)
    assert torch.equal(model.complete(prompt, 20), plain.complete(prompt, 20)) and model.training


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax_at_every_temperature(temperature):
    p = torch.tensor([0.0, 1.0, 2.0, 3.0])
    drawn = choose(p.expand(100_000, 4), temperature, torch.Generator().manual_seed(0))
    expected = torch.exp(p / temperature) / torch.exp(p / temperature).sum()
    assert torch.allclose(drawn.bincount(minlength=4) / 100_000, expected, atol=5e-3)


def test_the_limits_of_temperature():
    logits = torch.tensor([[0.0, 1000.0, 999.0], [5.0, 1.0, 2.0]])
    for temperature in (0, 1e-40, 1e-3):
        assert choose(logits, temperature).tolist() == [1, 0]
    for temperature in (-1.0, math.nan):
        with pytest.raises(ValueError, match="at least 0"):
            choose(logits, temperature)
    hot = choose(logits.expand(2, 3)[1:].expand(3_000, 3), 1e30, torch.Generator().manual_seed(0)).bincount()
    assert hot.min() > 900


def test_top_k_draws_among_the_likeliest():
    p = torch.tensor([3.0, 0.0, 2.0, 1.0])
    drawn = choose(p.expand(20_000, 4), 1.0, torch.Generator().manual_seed(0), top_k=2).bincount(minlength=4) / 20_000
    assert torch.allclose(drawn, torch.tensor([math.e, 0, 1, 0]) / (math.e + 1), atol=0.02)
    assert choose(p.expand(9, 4), 1.0, torch.Generator().manual_seed(0), top_k=99).shape == (9,)
    with pytest.raises(ValueError, match="top_k"):
        choose(p[None], 1.0, top_k=0)


def test_top_p_draws_among_the_nucleus():
    p = torch.tensor([0.05, 0.5, 0.15, 0.3]).log().expand(20_000, 4)

    def shares(temperature=1.0, **limits):
        drawn = choose(p, temperature, torch.Generator().manual_seed(0), **limits)
        return pytest.approx((drawn.bincount(minlength=4) / 20_000).tolist(), abs=0.02)

    for top_p in (0.6, 0.79):
        assert shares(top_p=top_p) == [0, 5 / 8, 0, 3 / 8]
    assert shares(top_p=0.81) == [0, 10 / 19, 3 / 19, 6 / 19]
    for top_p in (1e-9, 0.49):
        assert shares(top_p=top_p) == [0, 1, 0, 0]
    assert shares(0.5, top_p=0.6) == [0, 1, 0, 0]  # the temperature comes first: 0.5^2 of a sum of 0.365
    assert shares(top_k=2, top_p=0.6) == [0, 1, 0, 0]  # and top_k: 0.5 of 0.8
    assert shares(top_k=2, top_p=0.63) == [0, 5 / 8, 0, 3 / 8]


def test_a_nucleus_of_all_changes_no_draw():
    logits = 5 * torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    for top_k in (None, 7):
        plain, all_kept = (choose(logits, 1.0, torch.Generator().manual_seed(1), top_k, top_p) for top_p in (None, 1))
        assert torch.equal(plain, all_kept)
    for wrong in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match="top_p must be above 0 and at most 1"):
            choose(logits, 1.0, top_p=wrong)


def log_probability(model, text, length):
    """Log-probability of the last `length` characters of a (T,) text, which is read at once."""
    model = model.double()
    with torch.no_grad():
        p = model(text[:-1, None])[:, 0]
    p[:, model.never_written] = -math.inf
    return F.cross_entropy(p[-length:], text[-length:], reduction="sum").neg().item()


def all_texts(prompt, num_characters, ends):
    """Every text that begins with a (T,) prompt, and how many characters were added to it."""
    for added in product(range(3), repeat=num_characters):
        ended = [k for k in range(1, num_characters) if any(added[max(0, k - len(end)) : k] == end for end in ends)]
        if not ended or not any(added[ended[0] :]):  # of all that go on after an end, one stands for it
            length = ended[0] if ended else num_characters
            yield torch.cat([prompt, torch.tensor(added[:length])]), length


@pytest.mark.parametrize("ends", [[], [(1,)], [(2, 0)], [(0, 0), (1,)]])
def test_a_beam_wide_enough_finds_the_likeliest_of_all_texts(ends):
    """K = 3 and L = 5: with K^(L-1) beams nothing is dropped before the last step."""
    model, prompt = build(seed=4, vocabulary_size=3).double(), characters(4, 3, high=3)
    with torch.no_grad():
        model.output.weight *= 6  # far from uniform
    found = model.beam_search(prompt, 5, beam_size=81, ends=ends)
    for b in range(3):
        texts = list(all_texts(prompt[:, b], 5, ends))
        assert len(texts) == len({tuple(text.tolist()) for text, _ in texts}) and (len(texts) == 243 or ends)
        scored = [(log_probability(model, text, length) / length, length, text) for text, length in texts]
        scored = sorted(scored, key=lambda one: -one[0])[:81]
        for k, (per_character, length, text) in enumerate(scored):
            assert found.lengths[b, k] == length
            assert torch.equal(found.texts[: 4 + length, b, k], text)
            assert found.log_probabilities[b, k].item() == pytest.approx(per_character * length, abs=1e-10)


def test_one_beam_is_the_greedy_choice():
    model, prompt = build(seed=1), characters(4, 6)
    found = model.beam_search(prompt, 40, beam_size=1)
    assert torch.equal(found.texts[..., 0], model.complete(prompt, 40)) and (found.lengths == 40).all()
    ties = build(init="zeros")
    assert torch.equal(ties.beam_search(prompt, 5, beam_size=1).texts[..., 0], ties.complete(prompt, 5))


def test_beams_take_their_states_along():
    """Each log-probability is that of the whole text, read at once; the best comes first."""
    model, prompt = build(seed=1, never_written=[3]).double(), characters(4, 6)
    texts, log_p, lengths = model.beam_search(prompt, 30, beam_size=5)
    assert torch.equal(texts[:4], prompt.unsqueeze(-1).expand(4, 6, 5)) and not (texts[4:] == 3).any()
    assert (log_p.diff(dim=1) <= 0).all() and (lengths == 30).all()
    for b, k in product(range(6), range(5)):
        assert log_p[b, k].item() == pytest.approx(log_probability(model, texts[:, b, k], 30), abs=1e-10)
    (alone,) = model.beam_search(prompt[:, 2:3], 30, beam_size=5).texts.unbind(1)
    assert torch.equal(alone, texts[:, 2])


def test_beams_read_one_character_at_a_time(monkeypatch):
    model, read = build(), []
    run = model._run
    monkeypatch.setattr(model, "_run", lambda x, *rest, **named: read.append(tuple(x.shape)) or run(x, *rest, **named))
    model.beam_search(characters(5, 3), 40, beam_size=4)
    assert read == [(5, 3)] + [(1, 12)] * 39
    read.clear()
    model.beam_search(characters(5, 3), 40, beam_size=4, ends=[[k] for k in range(11)])
    assert read == [(5, 3)]  # all have ended


def test_fewer_texts_than_beams():
    model, prompt = build(), characters(4, 2)
    assert model.beam_search(prompt, 0, beam_size=5).texts.tolist() == prompt.unsqueeze(-1).tolist()
    assert model.beam_search(prompt, 1, beam_size=50).log_probabilities.exp().sum(dim=1).tolist() == pytest.approx(
        [1, 1]
    )
    log_p = model.beam_search(prompt, 2, beam_size=200, ends=[[k] for k in range(9)]).log_probabilities
    assert (log_p.isfinite().sum(dim=1) == 9 + 2 * 11).all()  # 9 end at once, 2 go on
    assert log_p.exp().sum(dim=1).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="beam_size must be at least 1, not 0"):
        model.beam_search(prompt, 1, beam_size=0)


def test_samples_are_reproducible_and_do_not_leak_into_each_other():
    model = build(seed=2)
    draw = [model.sample(8, 30, 1.0, torch.Generator().manual_seed(seed)).tolist() for seed in (4, 4, 5)]
    assert draw[0] == draw[1] != draw[2]
    prompt = characters(5, 3)
    alone = model.complete(prompt[:, :1], 20)
    assert torch.equal(model.complete(prompt, 20)[:, :1], alone)


def test_no_ready_made_recurrence_inside():
    assert not [m for m in build().modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))]
    for other in ({"bidirectional": True}, {"proj_size": 2}, {"bias": False}):
        with pytest.raises(ValueError, match="only a one-directional"):
            TextGenerationModel.from_torch(nn.Embedding(3, 4), nn.LSTM(4, 5, **other), nn.Linear(5, 3))
