"""The formulas of the report's section on text, written as printed, against autograd or brute force in float64."""

import math
from argparse import Namespace
from collections import Counter
from itertools import combinations, product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.experiment import read_results
from part2.dataset import TextDataset
from part2.model import TextGenerationModel, choose, nucleus
from report.values import text

K, d, n, T, B = 11, 5, 7, 6, 4


def build(layers=1, seed=0, **changes):
    sizes = {"vocabulary_size": K, "embedding_size": d, "lstm_hidden_dim": n, "lstm_num_layers": layers, **changes}
    return TextGenerationModel(Namespace(**sizes), torch.Generator().manual_seed(seed)).double()


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def characters(*shape, high=K, seed=2):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def cross_entropy(model, x, y, reduction="mean"):
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction=reduction)


def gradients(loss, model):
    return torch.autograd.grad(loss, tuple(model.parameters()))


# UvA 2021 2.3


def test_embedding_and_its_gradient():
    """x(t) = E^T u(t); dL/dE = sum of u(t) delta(t)^T: row k sums delta over the places where character k stands."""
    model, x, y = build(), characters(T, B, high=K - 2), characters(T, B, seed=3)
    E, u = model.embedding.weight, F.one_hot(x, K).double()
    assert torch.equal(model.embedding(x), u @ E)  # x(t) = E^T u(t), written for rows
    W_x, b = model.layers[0].W_x, model.layers[0].b
    table = W_x @ E.t()  # (4n, K)
    assert torch.allclose(table[:, x].permute(1, 2, 0) + b, model.embedding(x) @ W_x.t() + b, atol=1e-14)

    vectors = model.embedding.weight.detach()[x].requires_grad_()
    h = model.layers[0](vectors)
    F.cross_entropy(model.output(h).flatten(0, 1), y.flatten()).backward()
    delta, expected = vectors.grad, torch.zeros(K, d, dtype=torch.float64)
    for t in range(T):
        for j in range(B):
            expected[x[t, j]] += delta[t, j]
    assert torch.allclose(torch.einsum("tbk,tbd->kd", u, delta), expected, atol=1e-15)
    cross_entropy(model, x, y).backward()
    assert torch.allclose(model.embedding.weight.grad, expected, atol=1e-15)
    assert expected[: K - 2].any(dim=1).sum() > 5
    assert not expected[K - 2 :].any()  # characters that do not occur get no gradient


# UvA 2021 2.4a


def test_sum_and_mean_over_time():
    """The gradient of the sum is T times that of the mean; Adam does not see such a factor, clipping does."""
    model = build()
    for length in (3, 12):
        x, y = characters(length, B), characters(length, B, seed=3)
        logits = model(x)
        losses = [F.cross_entropy(logits[t], y[t]) for t in range(length)]
        for a, b in zip(gradients(sum(losses), model), gradients(cross_entropy(model, x, y), model)):
            assert torch.allclose(a, length * b, atol=1e-14)

    moved, clipped = [], []
    for scale in (1, 30):
        parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([parameter], lr=0.1)
        for step in range(5):
            optimizer.zero_grad()
            (scale * (parameter * draw(3, seed=step)).sum()).backward()
            optimizer.step()
        moved.append(parameter.detach())
        gradient = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        gradient.grad = scale * draw(3)
        nn.utils.clip_grad_norm_([gradient], 5.0)
        clipped.append(gradient.grad / scale)
    assert torch.allclose(*moved, atol=1e-6)
    assert not torch.allclose(*clipped, atol=1e-2)


def test_perplexity_in_every_base():
    p = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(min=0.01)
    H = -p.log().mean().item()
    bits = H / math.log(2)
    assert bits == pytest.approx(-p.log2().mean().item(), rel=1e-12)
    inverse_geometric_mean = p.prod().item() ** (-1 / 50)
    for perplexity in (math.exp(H), 2**bits, 10 ** (-p.log10().mean().item())):
        assert perplexity == pytest.approx(inverse_geometric_mean, rel=1e-12)
    uniform = F.cross_entropy(torch.zeros(9, K, dtype=torch.float64), characters(9))
    assert math.exp(uniform) == pytest.approx(K, rel=1e-12)
    assert 2**H == pytest.approx(inverse_geometric_mean ** math.log(2), rel=1e-12)  # bases mixed: not the perplexity


def test_prediction_t_has_read_character_t(tmp_path):
    model, x = build(layers=2), characters(T, 1)
    for t in range(T):
        other = x.clone()
        other[t] = (x[t] + 1) % K
        changed = (model(other) != model(x)).flatten(1).any(dim=1)
        assert changed.tolist() == [place >= t for place in range(T)]  # p(t) has read x(t), and nothing after it
    (tmp_path / "text.txt").write_text("Hello world!")
    inputs, targets = TextDataset(tmp_path / "text.txt", 11, random_select=False)[0]
    letters = sorted(set("Hello world!"))
    assert [letters[k] for k in targets[:2]] == ["e", "l"] and letters[inputs[0]] == "H"


def test_reading_reaches_beyond_the_gradient():
    """With the state carried and cut off, the second window depends on the first, but no gradient goes there."""
    model, x, y = build(), characters(2 * T, B), characters(T, B, seed=3)
    vectors = model.embedding.weight.detach()[x].requires_grad_()

    def loss(vectors, cut):
        layer = model.layers[0]
        _, state = layer.states(vectors[:T])
        h, _ = layer.states(vectors[T:], tuple(part.detach() for part in state) if cut else state)
        return F.cross_entropy(model.output(h).flatten(0, 1), y.flatten())

    (truncated,) = torch.autograd.grad(loss(vectors, cut=True), vectors)
    assert not truncated[:T].any() and truncated[T:].any()
    step, h = torch.zeros_like(vectors), 1e-5
    step[0] = 1
    with torch.no_grad():
        slope = (loss(vectors + h * step, cut=True) - loss(vectors - h * step, cut=True)) / (2 * h)
    (full,) = torch.autograd.grad(loss(vectors, cut=False), vectors)
    assert slope.item() == pytest.approx(full[0].sum().item(), rel=1e-4) and abs(slope) > 1e-6


def test_losses_of_both_kinds_of_words_add_up():
    """The whole is the sum of share times loss, and a contribution is such a product."""
    for name in ("8 minutes", "30 minutes"):
        parts = [row for row in read_results("part2_shakespeare_words") if row["run"] == name]
        whole = min(row["held_out_loss"] for row in read_results("part2_shakespeare") if row["run"] == name)
        assert sum(row["share_of_characters"] for row in parts) == pytest.approx(1, abs=1e-4)
        assert sum(row["share_of_characters"] * row["loss"] for row in parts) == pytest.approx(whole, abs=2e-4)
        for row in parts:
            assert row["contribution"] == pytest.approx(row["share_of_characters"] * row["loss"], abs=1e-4)


# UvA 2021 2.4c


def tempered(p, tau):
    return torch.exp(p / tau) / torch.exp(p / tau).sum()


def entropy(q):
    return -(q * q.log()).sum()


def test_limits_of_the_temperature():
    p = torch.tensor([1.0, 3.0, 3.0, -2.0], dtype=torch.float64)
    ties_share = torch.tensor([0, 0.5, 0.5, 0], dtype=torch.float64)
    assert torch.allclose(tempered(p, 0.01), ties_share, atol=1e-12)
    assert torch.allclose(tempered(p, 1e8), torch.full((4,), 0.25, dtype=torch.float64), atol=1e-7)
    for tau in (0.5, 2.0):
        assert (tempered(p, tau)[0] / tempered(p, tau)[1]).item() == pytest.approx(math.exp(-2 / tau), rel=1e-12)
    assert choose(p.expand(3, 4), 0).tolist() == [1, 1, 1]  # the code takes the first of equals
    for beta in (0.5, 1.0, 2.0):
        assert torch.allclose(torch.softmax(beta * p, 0), tempered(p, 1 / beta), atol=1e-15)


def test_entropy_grows_with_the_temperature():
    """dH/dtau = Var(p) / tau^3, the variance of the logits under the tempered distribution."""
    p = 2 * draw(K)
    for tau in (0.3, 1.0, 2.5):
        q, h = tempered(p, tau), 1e-5
        variance = (q * p**2).sum() - (q * p).sum() ** 2
        slope = (entropy(tempered(p, tau + h)) - entropy(tempered(p, tau - h))) / (2 * h)
        assert slope.item() == pytest.approx((variance / tau**3).item(), rel=1e-7) and slope > 0
        log_Z = torch.logsumexp(p / tau, 0)
        assert entropy(q).item() == pytest.approx((log_Z - (q * p).sum() / tau).item(), rel=1e-12)


def test_temperature_as_a_factor():
    """softmax(tau p), as in November 2019 and 2020, is our tau's reciprocal: there 2 is the colder one."""
    p = 2 * draw(K)
    for tau in (0.5, 1.0, 2.0):
        assert torch.allclose(torch.softmax(tau * p, 0), tempered(p, 1 / tau), atol=1e-15)
    entropies = [entropy(torch.softmax(tau * p, 0)) for tau in (0.5, 1.0, 2.0)]
    assert entropies[0] > entropies[1] > entropies[2]
    drawn = choose(p.expand(100_000, K), 1 / 2.0, torch.Generator().manual_seed(0)).bincount(minlength=K) / 100_000
    assert torch.allclose(drawn.double(), torch.softmax(2.0 * p, 0), atol=5e-3)


def test_the_nucleus_is_the_smallest_set():
    """Of all sets of characters that reach P, none is smaller, and of those as small none is likelier."""
    q = torch.softmax(draw(7), 0)
    for P in (0.1, 0.5, 0.9, 0.99):
        kept = nucleus(q.unsqueeze(0), P)[0] > 0
        enough = [
            (size, -q[list(chosen)].sum().item())
            for size in range(1, 8)
            for chosen in combinations(range(7), size)
            if q[list(chosen)].sum() >= P
        ]
        size, minus_probability = min(enough)
        assert kept.sum() == size and q[kept].sum().item() == pytest.approx(-minus_probability, abs=1e-15)


# UvA November 2019 2.3


def log_probabilities(model, prompt, added):
    """ln P of the first 1, 2, ... L characters of (L, N) texts after a (T,) prompt: (L, N)."""
    texts = torch.cat([prompt.unsqueeze(1).expand(-1, added.shape[1]), added])
    with torch.no_grad():
        log_p = torch.log_softmax(model(texts[:-1]), dim=-1).gather(-1, texts[1:].unsqueeze(-1))[..., 0]
    return log_p[len(prompt) - 1 :].cumsum(dim=0)


def test_beam_search_lies_between_greedy_and_exact():
    """One beam is the greedy choice; with K^(L-1) the text is the likeliest of all K^L; five find it more often."""
    L, found = 4, Counter()
    texts = torch.tensor(list(product(range(4), repeat=L))).t()  # (L, 4^L)
    for seed in range(20):
        model, prompt = build(vocabulary_size=4, seed=seed), characters(3, 1, high=4, seed=seed)
        with torch.no_grad():
            model.output.weight *= 5
        log_p = log_probabilities(model, prompt[:, 0], texts)[-1]
        likeliest = texts[:, log_p.argmax()]
        for S in (1, 5, 4 ** (L - 1)):
            beams = model.beam_search(prompt, L, S)
            found[S] += torch.equal(beams.texts[3:, 0, 0], likeliest)
            assert beams.log_probabilities[0, 0] <= log_p.max() + 1e-12
    assert found[1] < found[5] <= found[4 ** (L - 1)] == 20


def test_a_text_is_never_likelier_than_its_beginning():
    """So that, of texts of different length, the product of probabilities prefers the short ones; a mean does not."""
    model = build()
    log_p = log_probabilities(model, characters(3), characters(20, 50))  # (20, 50)
    assert (log_p.diff(dim=0) < 0).all()
    per_character = log_p / torch.arange(1, 21).unsqueeze(1)
    assert (per_character.diff(dim=0) > 0).any() and (per_character.diff(dim=0) < 0).any()
    p = torch.softmax(torch.tensor([0.0, 0.0, 1.0]), 0)  # always the same step; character 0 is the end
    assert p[0] > p[2] ** 2 * p[0] and math.log(p[0]) < (2 * math.log(p[2]) + math.log(p[0])) / 3


def test_the_likeliest_text_is_not_typical():
    """Independent characters of probability 0.6 and 0.4: nearly all texts that are drawn have a share of 0.6."""
    p, H = 0.6, -0.6 * math.log(0.6) - 0.4 * math.log(0.4)

    def near_the_entropy(L):
        """Return the probability that -ln P / L is within 0.05 of H: of k characters of 0.6 among L."""
        counts = [k for k in range(L + 1) if abs(-(k * math.log(p) + (L - k) * math.log(1 - p)) / L - H) < 0.05]
        return sum(math.comb(L, k) * p**k * (1 - p) ** (L - k) for k in counts)

    assert near_the_entropy(10) < near_the_entropy(50) < 0.95 < 0.999 < near_the_entropy(200)
    texts = [math.prod(p if one else 1 - p for one in text) for text in product((True, False), repeat=10)]
    assert max(texts) == pytest.approx(p**10) and math.log(max(texts)) / 10 == pytest.approx(math.log(p))
    assert -math.log(p) < H - 0.15  # likelier than typical texts, by far
    assert sum(-P * math.log(P) for P in texts) / 10 == pytest.approx(H)  # the mean over what is drawn


# UvA spring 2019 2.2


def test_carrying_the_state_writes_what_reading_again_would():
    model, prompt = build(layers=2, seed=1), characters(4, 3)
    written = model.complete(prompt, 40)
    again = prompt
    for _ in range(40):
        again = torch.cat([again, model(again)[-1].argmax(dim=-1, keepdim=True).t()])
    assert torch.equal(written, again)


# PRML 2.1


@pytest.mark.parametrize("layers", [1, 2])
def test_from_zeros_only_the_output_bias_learns(layers):
    model = build(layers, init="zeros")
    x, y = characters(T, B), characters(T, B, high=4, seed=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = cross_entropy(model, x, y)
        loss.backward()
        optimizer.step()
    learnt = {name for name, parameter in model.named_parameters() if parameter.any()}
    assert learnt == {"output.bias"}
    frequencies = torch.tensor([Counter(y.flatten().tolist())[k] / y.numel() for k in range(4)], dtype=torch.float64)
    assert torch.allclose(torch.softmax(model.output.bias, 0)[:4], frequencies, atol=0.01)
    assert loss.item() == pytest.approx(entropy(frequencies).item(), abs=0.02)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.Adadelta])
def test_equal_units_stay_equal(optimizer):
    """With equal rows in each gate and equal columns after it the gradients are equal, and so are all updates."""
    model, x, y = build(layers=2), characters(T, B), characters(T, B, seed=3)
    with torch.no_grad():  # the embedding and the output's bias stay random
        for layer in model.layers:
            for gate in range(4):
                block = slice(gate * n, (gate + 1) * n)
                layer.W_x[block] = layer.W_x[gate * n] if layer is model.layers[0] else 0.1 * (gate + 1)
                layer.W_h[block] = 0.2 * (gate - 1)
                layer.b[block] = layer.b[gate * n].clone()
        model.output.weight.copy_(model.output.weight[:, :1].expand(K, n))
    before, step = model.layers[0].W_x.detach().clone(), optimizer(model.parameters(), lr=0.1)
    for _ in range(5):
        step.zero_grad()
        cross_entropy(model, x, y).backward()
        step.step()
    h = model.embedding(x)
    for layer in model.layers:
        h = layer(h)
        assert torch.allclose(h, h[..., :1].expand_as(h), atol=1e-12) and h.std() > 0
    assert not torch.allclose(before, model.layers[0].W_x, atol=1e-3)  # but they have learnt


def test_units_are_interchangeable():
    """L(P theta) = L(theta) and grad L(P theta) = P grad L(theta), for a permutation of one layer's units."""
    model, x, y = build(), characters(T, B), characters(T, B, seed=3)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([gate * n + order for gate in range(4)])

    def permute(state):
        moved = dict(state)
        moved["layers.0.W_x"], moved["layers.0.b"] = state["layers.0.W_x"][rows], state["layers.0.b"][rows]
        moved["layers.0.W_h"] = state["layers.0.W_h"][rows][:, order]
        moved["output.weight"] = state["output.weight"][:, order]
        return moved

    twin = build()
    twin.load_state_dict(permute(model.state_dict()))
    for network in (model, twin):
        network.loss = cross_entropy(network, x, y)
        network.loss.backward()
    assert model.loss.item() == pytest.approx(twin.loss.item(), rel=1e-13)
    expected = permute({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, parameter in twin.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-15), name


def test_variances_behind_xavier():
    """Var a = n_in Var w E x^2, Var delta_x = n_out Var w E delta_a^2, and U(-b, b) has variance b^2 / 3."""
    n_in, n_out, samples = 300, 100, 400
    b = math.sqrt(6 / (n_in + n_out))
    generator = torch.Generator().manual_seed(0)
    W = torch.empty(n_out, n_in, dtype=torch.float64).uniform_(-b, b, generator=generator)
    assert W.var().item() == pytest.approx(2 / (n_in + n_out), rel=0.02)
    assert nn.init.xavier_uniform_(torch.empty(n_out, n_in), generator=generator).abs().max() <= b
    x, delta_a = 1 + draw(samples, n_in), 3 * draw(samples, n_out)  # E x^2 = 2, E delta_a^2 = 9
    assert (x @ W.t()).square().mean().item() == pytest.approx(n_in * b**2 / 3 * 2, rel=0.1)
    assert (delta_a @ W).square().mean().item() == pytest.approx(n_out * b**2 / 3 * 9, rel=0.1)
    model = build(embedding_size=128, lstm_hidden_dim=256, init="xavier")
    assert model.layers[0].W_x.abs().max().item() == pytest.approx(math.sqrt(6 / (128 + 256)), rel=1e-2)


def test_gates_and_logits_of_the_normal_initialisation():
    """E sigma'(a) is about 1 / sqrt(2 pi Var a) with Var a = d at the first step, and Var p = n E h^2."""
    size, units, x = 128, 256, characters(20, 8, high=60)
    model = build(vocabulary_size=2_000, embedding_size=size, lstm_hidden_dim=units, init="normal")
    vectors = model.embedding(x)
    a = vectors[0] @ model.layers[0].W_x[units : 2 * units].t()
    assert a.var().item() == pytest.approx(size, rel=0.2)
    slope = torch.sigmoid(a) * (1 - torch.sigmoid(a))
    assert slope.mean().item() == pytest.approx(1 / math.sqrt(2 * math.pi * size), rel=0.15)
    h = model.layers[0](vectors)
    assert model(x).var().item() == pytest.approx(units * h.square().mean().item(), rel=0.1)
    uniform = build(vocabulary_size=2_000, embedding_size=size, lstm_hidden_dim=units)
    y = characters(20, 8, high=2_000, seed=3)
    assert cross_entropy(model, x, y) > 2 * math.log(2_000) > 1.9 * cross_entropy(uniform, x, y)


# PRML 2.3


def step_sizes(optimizer, gradients):
    """Return how far each of the gradients moves one parameter."""
    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer, moved = optimizer([parameter]), []
    for g in gradients:
        before = parameter.item()
        parameter.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        moved.append(before - parameter.item())
    return moved


def test_adagrad():
    """With constant g the step is eta / sqrt(t), and t steps lead nearly 2 eta sqrt(t) far."""
    eta, t = 0.03, 400
    for g in (-7.0, 0.01):
        moved = step_sizes(lambda p: torch.optim.Adagrad(p, eta), [g] * t)
        assert moved == pytest.approx([math.copysign(eta, g) / math.sqrt(s) for s in range(1, t + 1)], rel=1e-6)
        assert 2 * math.sqrt(t + 1) - 2 < abs(sum(moved)) / eta < 2 * math.sqrt(t)


def test_adadelta():
    """Its first step is eta sqrt(epsilon / (1 - rho)), whatever the gradient."""
    rho, epsilon, eta = 0.9, 1e-6, 10.0
    for g in (-7.0, 0.5):
        (step,) = step_sizes(lambda p: torch.optim.Adadelta(p, eta), [g])
        assert step == pytest.approx(math.copysign(eta * math.sqrt(epsilon / (1 - rho)), g), rel=1e-3)


# What report/values/text.py counts


def test_loops_and_quotes_are_found():
    assert text.loop("so he sat and sat and sat") == " and sat"
    assert text.loop("once upon a time") is None
    assert text.quotes_alternate('"Who?" he said. "I"\nand')
    assert text.quotes_alternate("")
    assert not text.quotes_alternate('just" in')
    assert not text.quotes_alternate('"a "b')


def test_numbers_agree_with_a_second_count():
    found = text.values(read_results)
    rows = [row for row in read_results("part2_grimm_curves") if row["lstm_hidden_dim"] == 128]
    best = [min(row["held_out_loss"] for row in rows if row["seed"] == seed) for seed in range(3)]
    assert found["text-grimm-loss"] == f"{sum(best) / 3:.3f}"
    assert found["text-grimm-perplexity"] == f"{2 ** float(sum(best) / 3 / math.log(2)):.2f}"
    samples = [row["text"] for row in read_results("part2_grimm_samples")]
    ends = sum(any(sample.endswith(2 * sample[-k:]) for k in range(1, 101)) for sample in samples)
    assert found["text-loops-long"] == f"{ends} of {len(samples)}"
    last = [row for row in read_results("part2_poems_optimizers") if row["epoch"] == 8]
    adam, sgd = ([row["held_out_loss"] for row in last if row["optimizer"] == name] for name in ("adam", "sgd"))
    assert found["text-adam-first"] == found["text-sgd-last"] == "all three" and max(adam) < min(sgd)
    assert text.tables(read_results)["text_poems"].count(r"\zh{") == 7
