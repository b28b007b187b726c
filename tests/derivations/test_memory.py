"""The formulas of the report's section on memory: the task, clipping, evaluation and the optimizers' equations."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.optimizers import OPTIMIZERS
from part1.dataset import draw_palindromes
from part1.experiments.optimizers import CURVATURE, PATH_LEARNING_RATES, PATH_STEPS, START
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN, random_orthogonal
from recurrence.lstm import to_torch_order
from tests.derivations.numerics import assert_equal, numbers

pytestmark = pytest.mark.usefixtures("float64")

ETA = 0.01


def test_only_the_first_digit_tells_the_last():
    """Whatever stands at 2 ... T-1, every last digit is equally frequent (T = 5, all palindromes)."""
    palindromes = np.array([(a, b, c, b, a) for a, b, c in itertools.product(range(10), repeat=3)])
    for middle in itertools.product(range(10), repeat=2):
        same = palindromes[(palindromes[:, 1] == middle[0]) & (palindromes[:, 2] == middle[1])]
        assert sorted(same[:, -1]) == list(range(10))
    drawn = draw_palindromes(500, 9, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, drawn.flip(1))


@pytest.mark.parametrize("recurrence", ["loop", "bptt"])
@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_the_models_equal_torch_nn(Model, recurrence):
    """Logits and the gradients of the input and of all weights."""
    generator = torch.Generator().manual_seed(0)
    model = Model(11, 10, 16, 10, 1, generator=generator, recurrence=recurrence).double()
    library, output = model.to_torch()
    digits, target = torch.randint(10, (6, 10), generator=generator), torch.arange(6)
    x = F.one_hot(digits, 10).double().requires_grad_()

    logits = model(x)
    loss = F.cross_entropy(logits, target)
    d_x, *d_cell, d_W_ph, d_b_p = torch.autograd.grad(loss, [x, *model.parameters()])
    if Model is LSTM:
        d_cell = [to_torch_order(gradient) for gradient in d_cell]

    expected = output(library(x.transpose(0, 1))[0][-1])
    weights = [library.weight_ih_l0, library.weight_hh_l0, library.bias_ih_l0, output.weight, output.bias]
    gradients = torch.autograd.grad(F.cross_entropy(expected, target), [x, *weights])
    assert_equal(logits, expected)
    assert_equal((d_x, *d_cell, d_W_ph, d_b_p), gradients)


@pytest.mark.parametrize("size", [0.01, 1.0, 1e6])
def test_clipping_scales_all_gradients_by_one_factor(size):
    """g <- g min(1, max_norm / |g|), the norm taken over all parameters together."""
    parameters = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
    gradients = [size * numbers(3, 4), size * 10 * numbers(5)]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    assert abs(nn.utils.clip_grad_norm_(parameters, max_norm=10.0).item() / norm - 1) < 1e-12
    factor = min(1, 10 / norm)
    for parameter, gradient in zip(parameters, gradients):
        torch.testing.assert_close(parameter.grad, factor * gradient, rtol=1e-5, atol=0)
    clipped = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in parameters))
    assert clipped <= 10.0


def test_clipping_does_not_mend_vanishing_gradients():
    """The share of the gradient that reaches the first step is the same before and after."""
    rows = torch.stack([10.0 ** -torch.arange(20.0, 0, -1), torch.ones(20)])  # |gradient| by step: vanishing, steady
    for scale in (1e-3, 1e6):
        parameter = nn.Parameter(torch.zeros_like(rows))
        parameter.grad = scale * rows
        nn.utils.clip_grad_norm_([parameter], max_norm=10.0)
        shares = parameter.grad[0, 0] / parameter.grad[0, -1]
        torch.testing.assert_close(shares, rows[0, 0] / rows[0, -1], rtol=1e-12, atol=0)
        if scale < 1:
            assert torch.equal(parameter.grad, scale * rows)  # a small gradient stays as it is


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adagrad"])
def test_a_common_factor_changes_nothing_for_adaptive_steps(name):
    """Gradients that are all clipped by the same factor give the same path; SGD's would be shortened by it."""

    def end(name, factor):
        parameter = nn.Parameter(torch.zeros(4))
        optimizer = OPTIMIZERS[name]([parameter], lr=ETA)
        for step in range(20):
            parameter.grad = factor * (1 + numbers(4, seed=step))
            optimizer.step()
        return parameter.detach()

    assert_equal(end(name, 1.0), end(name, 0.01), 1e-5)
    assert_equal(0.01 * end("sgd", 1.0), end("sgd", 0.01))


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adagrad"])
def test_clipping_every_step_changes_adaptive_steps(name):
    """Four gradients of different norms, all above the limit: clipping changes where the path ends."""

    def end(max_norm):
        parameter = nn.Parameter(torch.zeros(2))
        optimizer = OPTIMIZERS[name]([parameter], lr=ETA)
        for size, gradient in zip((2, 50, 3, 20), ([3.0, 1.0], [-1.0, 2.0], [2.0, 2.0], [1.0, -3.0])):
            parameter.grad = size * torch.tensor(gradient)
            assert nn.utils.clip_grad_norm_([parameter], max_norm) > 1
            optimizer.step()
        return parameter.detach()

    clipped, unclipped = end(max_norm=1.0), end(max_norm=torch.inf)
    assert (clipped - unclipped).norm() > 0.1 * unclipped.norm()


def test_the_mean_of_the_50_best_batches_flatters():
    """Guessing at 10 classes, 10,000 batches of 128: the 50 best average 0.18, not 0.10."""
    generator = np.random.default_rng(0)
    best = [np.sort(generator.binomial(128, 0.1, 10_000) / 128)[-50:].mean() for _ in range(20)]
    assert abs(np.mean(best) - 0.18) < 0.005
    assert np.std(best) < 0.005


def path_by_formula(name, gradients):
    """The printed update equations, with PyTorch's default constants."""
    theta, t = torch.zeros_like(gradients[0]), 0
    u = s = v = w = m = torch.zeros_like(theta)
    for g in gradients:
        t += 1
        if name == "sgd":
            theta = theta - ETA * g
        if name == "momentum":
            u = 0.9 * u + g
            theta = theta - ETA * u
        if name == "adagrad":
            s = s + g**2
            theta = theta - ETA * g / (s.sqrt() + 1e-10)
        if name == "rmsprop":
            v = 0.99 * v + 0.01 * g**2
            theta = theta - ETA * g / (v.sqrt() + 1e-8)
        if name == "adadelta":
            v = 0.9 * v + 0.1 * g**2
            delta = (w + 1e-6).sqrt() / (v + 1e-6).sqrt() * g
            w = 0.9 * w + 0.1 * delta**2
            theta = theta - ETA * delta
        if name == "adam":
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2
            theta = theta - ETA * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return theta


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_equations(name):
    gradients = [0.3 + numbers(6, seed=step) for step in range(30)]
    parameter = nn.Parameter(torch.zeros(6))
    optimizer = OPTIMIZERS[name]([parameter], lr=ETA)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    assert_equal(path_by_formula(name, gradients), parameter.detach(), 1e-12)


def test_momentum_on_steady_and_alternating_gradients():
    gamma, steady, alternating = 0.9, 0.0, 0.0
    for t in range(500):
        steady, alternating = gamma * steady + 1, gamma * alternating + (-1) ** t
    assert abs(steady - 1 / (1 - gamma)) < 1e-9
    assert abs(abs(alternating) - 1 / (1 + gamma)) < 1e-9


def test_bias_correction():
    """m_t = (1 - beta) sum of beta^(t-i) g_i, whose weights sum to 1 - beta^t: divided by that, E m_t = E g."""
    beta, gradients = 0.9, numbers(12)
    m = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta * m + (1 - beta) * g
        weights = torch.tensor([(1 - beta) * beta ** (t - i) for i in range(1, t + 1)])
        assert_equal(m, (weights * gradients[:t]).sum())
        assert abs(weights.sum().item() - (1 - beta**t)) < 1e-12
    samples = 3 + torch.randn(200_000, 5, generator=torch.Generator().manual_seed(0))  # E g = 3, t = 5
    m = torch.zeros(200_000)
    for g in samples.T:
        m = beta * m + (1 - beta) * g
    assert abs(m.mean().item() - (1 - beta**5) * 3) < 0.005
    assert abs((m / (1 - beta**5)).mean().item() - 3) < 0.01


def first_step(name, g):
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([g])
    OPTIMIZERS[name]([parameter], lr=ETA).step()
    return parameter.item()


@pytest.mark.parametrize("g", [1e-3, -2.0, 500.0])
def test_the_first_steps(g):
    """Adam moves by eta; without its correction by sqrt(10) eta; RMSprop, which has none, by 10 eta; AdaGrad by eta."""
    sign = math.copysign(1, g)
    assert abs(first_step("adam", g) / ETA + sign) < 1e-4
    assert abs(0.1 * g / math.sqrt(0.001 * g * g) - sign * math.sqrt(10)) < 1e-9
    assert abs(first_step("rmsprop", g) / ETA + 10 * sign) < 1e-2
    assert abs(first_step("adagrad", g) / ETA + sign) < 1e-4


def test_equal_betas_keep_the_step_below_eta():
    """|m_hat| <= sqrt(v_hat) when beta_1 = beta_2 (Jensen), with equality for a constant gradient."""
    beta = 0.9
    for gradients in (numbers(50), torch.arange(1.0, 51.0), 1.5 ** torch.arange(50.0)):
        m = v = 0.0
        for t, g in enumerate(gradients, start=1):
            m, v = beta * m + (1 - beta) * g, beta * v + (1 - beta) * g**2
            assert abs(m / (1 - beta**t)) <= math.sqrt(v / (1 - beta**t)) * (1 + 1e-12)
    m = v = 0.0
    for t in range(1, 20):
        m, v = beta * m + (1 - beta), beta * v + (1 - beta)
        assert abs(m / (1 - beta**t) / math.sqrt(v / (1 - beta**t)) - 1) < 1e-12
    m = v = 0.0  # an alternating gradient: v grows, the step shrinks
    for t in range(200):
        m, v = beta * m + (1 - beta) * (-1) ** t, beta * v + (1 - beta)
    assert abs(abs(m) / math.sqrt(v) - (1 - beta) / (1 + beta)) < 1e-6


def test_rates_in_the_valley():
    """Factors a step for kappa = 50.

    SGD: at best (kappa-1)/(kappa+1). Momentum: at best (sqrt kappa-1)/(sqrt kappa+1), and sqrt(0.9) at gamma = 0.9.
    """
    low, high = 1.0, 50.0

    def momentum_rate(eta, gamma):
        return max(
            max(abs(np.linalg.eigvals([[1 + gamma - eta * curvature, -gamma], [1, 0]]))) for curvature in (low, high)
        )

    grid = np.linspace(0.001, 0.0399, 2_000)
    sgd = [max(abs(1 - eta * low), abs(1 - eta * high)) for eta in grid]
    assert abs(min(sgd) - 49 / 51) < 1e-4
    assert max(abs(1 - 0.041 * low), abs(1 - 0.041 * high)) > 1  # above 2/50 it diverges
    root = math.sqrt(50)
    best = (root - 1) / (root + 1)
    assert abs(best - 0.752) < 5e-4 and abs(best**2 - 0.566) < 5e-4
    assert abs(momentum_rate((2 / (1 + root)) ** 2, best**2) - best) < 1e-3
    assert abs(momentum_rate(0.01, 0.9) - math.sqrt(0.9)) < 1e-9
    assert min(momentum_rate(eta, 0.9) for eta in grid[::20]) > 0.94


def test_turned_by_45_degrees_the_valley_is_no_longer_easy():
    """With each optimizer's best rate of the grid: steps of its own for each coordinate help along the axes only."""
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / math.sqrt(2)
    hessian, start = torch.diag(CURVATURE.double()), torch.tensor(START, dtype=torch.float64)

    def end(name, hessian, start):
        ends = {}
        for learning_rate in PATH_LEARNING_RATES[8:20]:  # 0.01 ... 5.6
            position = start.clone().requires_grad_()
            optimizer = OPTIMIZERS[name]([position], lr=learning_rate)
            values = []
            for _ in range(PATH_STEPS + 1):
                gradient = hessian @ position.detach()
                values.append(0.5 * (position.detach() @ gradient).item())
                position.grad = gradient
                optimizer.step()
            if all(map(math.isfinite, values)):
                ends[sum(values)] = values[-1]
        return ends[min(ends)]

    straight = {name: end(name, hessian, start) for name in ("sgd", "rmsprop", "adagrad")}
    turned = {name: end(name, turn @ hessian @ turn.T, turn @ start) for name in straight}
    assert abs(turned["sgd"] / straight["sgd"] - 1) < 1e-6
    for name in ("rmsprop", "adagrad"):
        assert straight[name] < 1e-6 * straight["sgd"]
        assert turned[name] > turned["sgd"]


def test_a_rotation_keeps_the_gradient():
    """An orthogonal W_hh at h = 0: the product of 59 Jacobians has all singular values 1."""
    W = random_orthogonal(32, torch.Generator().manual_seed(0))
    product = torch.linalg.matrix_power(W, 59)
    assert_equal(torch.linalg.svdvals(product), torch.ones(32), 1e-5)


def test_a_switch_is_not_turned_by_small_inputs():
    """h <- tanh(2h + u): stable at +-0.958; |u| below sqrt 2 - ln(1 + sqrt 2) = 0.533 leaves a state on either side."""
    limit = math.sqrt(2) - math.log(1 + math.sqrt(2))
    assert abs(limit - 0.533) < 5e-4
    h = torch.tensor(0.1)
    for _ in range(100):
        h = torch.tanh(2 * h)
    assert abs(h.item() - 0.958) < 1e-3 and abs(2 * (1 - h.item() ** 2) - 0.166) < 1e-3
    assert abs((998 * math.log10(2 * (1 - h.item() ** 2))) + 777) < 1
    for u, turned in ((-limit + 1e-3, False), (-limit - 1e-3, True)):  # the worst: the same input at every step
        state = h.clone()
        for _ in range(10_000):
            state = torch.tanh(2 * state + u)
        assert (state < 0) == turned
    inputs = limit * (2 * torch.rand(1_000, 500, generator=torch.Generator().manual_seed(0)) - 1)
    states = h.expand(500).clone()
    for u in inputs:
        states = torch.tanh(2 * states + u)
        assert (states > 0).all()


def test_the_first_input_sets_the_switch():
    """From h = 0 with small inputs, h(t) is near the sum of 2^(t-s) u(s): u(1) has 3 times the others' variance."""
    u = 1e-9 * numbers(20, 50)
    h = torch.zeros(50)
    for u_t in u:
        h = torch.tanh(2 * h + u_t)
    weights = 2.0 ** torch.arange(19, -1, -1)
    assert_equal(h / 1e-9 / 2**19, (weights.unsqueeze(1) * u).sum(0) / 1e-9 / 2**19, 1e-5)
    assert abs(weights[0] ** 2 / weights[1:].square().sum() - 3) < 1e-9 * 3e3
