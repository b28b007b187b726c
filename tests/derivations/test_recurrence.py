"""The formulas of the report's section on recurrence, written as printed, against autograd and the project's code."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from part1 import lstm_numpy
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from recurrence.lstm import lstm_states
from tests.derivations.numerics import assert_equal, numbers

pytestmark = pytest.mark.usefixtures("float64")

T, d, n, K = 6, 3, 5, 4
diag, outer = torch.diag, torch.outer


def product(matrices):
    """The factors as they are printed, from left to right; without any, the identity."""
    result = torch.eye(n)
    for matrix in matrices:
        result = result @ matrix
    return result


class RNN:
    """Equations 1 and 2 on one random sequence; h[t] is h(t), x[t] is x(t); every state keeps its gradient."""

    def __init__(self, h_0=None, steps=T):
        self.W_hx, self.W_hh, self.W_ph = 0.4 * numbers(n, d), 0.5 * numbers(n, n), numbers(K, n)
        self.b_h, self.b_p = 0.2 * numbers(n, seed=1), numbers(K, seed=2)
        self.parameters = [p.requires_grad_() for p in (self.W_hx, self.W_hh, self.b_h, self.W_ph, self.b_p)]
        self.x = [None, *numbers(steps, d)]
        self.h = [numbers(n, seed=3) if h_0 is None else h_0]
        for t in range(1, steps + 1):
            self.h.append(torch.tanh(self.W_hx @ self.x[t] + self.W_hh @ self.h[t - 1] + self.b_h))
            self.h[t].retain_grad()
        self.p = self.W_ph @ self.h[-1] + self.b_p
        self.y_hat = torch.softmax(self.p, dim=0)
        self.y = F.one_hot(torch.tensor(1), K).double()
        self.loss = -(self.y * self.y_hat.log()).sum()

    def D(self, t):
        return diag(1 - self.h[t] ** 2)

    def J(self, t):
        return self.D(t) @ self.W_hh

    def gradients(self):
        return torch.autograd.grad(self.loss, self.parameters, retain_graph=True)


def test_gradient_of_softmax_and_cross_entropy():
    p = numbers(K).requires_grad_()
    y_hat = torch.softmax(p, dim=0)
    jacobian = torch.autograd.functional.jacobian(lambda p: torch.softmax(p, dim=0), p)
    assert_equal(jacobian, diag(y_hat) - outer(y_hat, y_hat))
    for y in (F.one_hot(torch.tensor(2), K).double(), torch.softmax(numbers(K, seed=9), dim=0)):  # soft targets too
        (gradient,) = torch.autograd.grad(-(y * torch.softmax(p, dim=0).log()).sum(), p)
        assert_equal(gradient, y_hat - y)


def test_gradient_of_the_output_layer():
    net = RNN()
    *_, d_W_ph, d_b_p = net.gradients()
    assert_equal(outer(net.y_hat - net.y, net.h[T]), d_W_ph)
    assert_equal(net.y_hat - net.y, d_b_p)


def test_gradient_of_the_recurrent_weights():
    """The sum over time with the Jacobians' product, in the printed order; the recursion; and the project's models."""
    net = RNN(h_0=torch.zeros(n))
    d_W_hx, d_W_hh, d_b_h, *_ = net.gradients()
    e = net.W_ph.T @ (net.y_hat - net.y)
    d_a = {s: net.D(s) @ product(net.J(j) for j in range(T, s, -1)).T @ e for s in range(1, T + 1)}
    assert_equal(sum(outer(d_a[s], net.h[s - 1]) for s in range(1, T + 1)), d_W_hh)
    assert_equal(sum(outer(d_a[s], net.x[s]) for s in range(1, T + 1)), d_W_hx)
    assert_equal(sum(d_a.values()), d_b_h)

    recursion = net.D(T) @ e
    for s in range(T - 1, 0, -1):
        assert_equal(recursion, d_a[s + 1])
        recursion = net.D(s) @ net.W_hh.T @ recursion
    assert_equal(recursion, d_a[1])

    names = ("W_hx", "W_hh", "b_h", "W_ph", "b_p")
    for recurrence in ("loop", "auto", "bptt"):
        model = VanillaRNN(T, d, n, K, 1, recurrence=recurrence).double()
        model.load_state_dict(dict(zip(names, net.parameters)))
        F.cross_entropy(model(torch.stack(net.x[1:])[None]), torch.tensor([1])).backward()
        assert_equal((model.W_hx.grad, model.W_hh.grad, model.b_h.grad), (d_W_hx, d_W_hh, d_b_h))


def test_gradient_with_a_loss_at_every_step():
    net = RNN()
    y = torch.softmax(numbers(T, K, seed=8), dim=1)
    p = torch.stack(net.h[1:]) @ net.W_ph.T + net.b_p
    (d_W_hh,) = torch.autograd.grad(-(y * torch.log_softmax(p, dim=1)).sum(), net.W_hh)
    error = torch.softmax(p, dim=1) - y
    d_a = {T + 1: torch.zeros(n)}
    for s in range(T, 0, -1):
        d_a[s] = net.D(s) @ (net.W_hh.T @ d_a[s + 1] + net.W_ph.T @ error[s - 1])
    assert_equal(sum(outer(d_a[s], net.h[s - 1]) for s in range(1, T + 1)), d_W_hh)


def test_gradient_written_out_for_three_steps():
    net = RNN(steps=3)
    _, d_W_hh, *_ = net.gradients()
    h, W_hh, D = net.h, net.W_hh, net.D
    e = net.W_ph.T @ (net.y_hat - net.y)
    assert_equal(
        outer(D(3) @ e, h[2])
        + outer(D(2) @ W_hh.T @ D(3) @ e, h[1])
        + outer(D(1) @ W_hh.T @ D(2) @ W_hh.T @ D(3) @ e, h[0]),
        d_W_hh,
    )


def test_the_first_term_vanishes_with_a_zero_initial_state():
    net = RNN(h_0=torch.zeros(n), steps=3)
    _, d_W_hh, *_ = net.gradients()
    e = net.W_ph.T @ (net.y_hat - net.y)
    assert_equal(outer(net.D(3) @ e, net.h[2]) + outer(net.D(2) @ net.W_hh.T @ net.D(3) @ e, net.h[1]), d_W_hh)


def test_equation_7_needs_immediate_derivatives():
    """With total derivatives its sum counts every path once for each step that the path passes."""
    net, steps = RNN(steps=3), 3
    _, d_W_hh, *_ = net.gradients()

    def state(t, W_hh):
        return net.h[0] if t == 0 else torch.tanh(net.W_hx @ net.x[t] + W_hh @ state(t - 1, W_hh) + net.b_h)

    def immediate(t, W_hh):
        return torch.tanh(net.W_hx @ net.x[t] + W_hh @ net.h[t - 1].detach() + net.b_h)

    def equation_7(derivative, first):
        row = (net.y_hat - net.y) @ net.W_ph
        factors = {s: row @ product(net.J(j) for j in range(steps, s, -1)) for s in range(first, steps + 1)}
        return sum(torch.einsum("i,ijk->jk", factors[s], derivative(s)) for s in range(first, steps + 1))

    def derivative_of(h):
        def derivative(t):
            if t == 0:
                return torch.zeros(n, n, n)
            return torch.autograd.functional.jacobian(lambda W: h(t, W), net.W_hh.detach())

        return derivative

    total, immediate_derivative = derivative_of(state), derivative_of(immediate)

    assert_equal(equation_7(immediate_derivative, 0), d_W_hh)  # the term t' = 0 adds nothing
    assert_equal(equation_7(immediate_derivative, 1), d_W_hh)
    assert_equal(equation_7(total, 3), d_W_hh)  # one total derivative is the whole sum already
    e = net.W_ph.T @ (net.y_hat - net.y)
    terms = {s: outer(net.D(s) @ product(net.J(j) for j in range(steps, s, -1)).T @ e, net.h[s - 1]) for s in (1, 2, 3)}
    assert_equal(equation_7(total, 0), 3 * terms[1] + 2 * terms[2] + terms[3])
    assert (equation_7(total, 0) - d_W_hh).norm() > 0.1 * d_W_hh.norm()


def test_the_element_of_the_immediate_derivative():
    net = RNN()
    jacobian = torch.autograd.functional.jacobian(
        lambda W: torch.tanh(net.W_hx @ net.x[2] + W @ net.h[1].detach() + net.b_h), net.W_hh.detach()
    )
    slope = 1 - net.h[2] ** 2
    assert_equal(torch.einsum("i,ij,k->ijk", slope, torch.eye(n), net.h[1]), jacobian)


def jacobian_product(W, z, h, steps):
    """dh(steps) / dh(0) of h <- tanh(W h + z), by autograd."""

    def run(h):
        for _ in range(steps):
            h = torch.tanh(W @ h + z)
        return h

    return torch.autograd.functional.jacobian(run, h)


def spectral_radius(W):
    return torch.linalg.eigvals(W).abs().max().item()


def norm(W):
    return torch.linalg.matrix_norm(W, 2).item()


@pytest.mark.parametrize("sigma_max", [0.5, 0.9, 1.5])
def test_bound_on_the_product_of_jacobians(sigma_max):
    """|product| <= (gamma sigma_max)^k, gamma the largest slope of tanh on the way; gamma <= 1."""
    W = numbers(n, n)
    W *= sigma_max / norm(W)
    z, h, k = 0.3 * numbers(n, seed=4), torch.zeros(n), 12
    states = [h]
    for _ in range(k):
        states.append(torch.tanh(W @ states[-1] + z))
    gamma = max((1 - state**2).max().item() for state in states[1:])
    assert gamma < 1
    actual = norm(jacobian_product(W, z, h, k))
    assert 0 < actual <= (gamma * sigma_max) ** k <= sigma_max**k


def test_counterexample_saturation():
    """w = 2 > 1: from h = 0 the gradient doubles at every step, from h = 0.5 it vanishes."""
    W, zero = torch.tensor([[2.0]]), torch.zeros(1)
    assert_equal(jacobian_product(W, zero, zero, 20).item(), 2.0**20, 1e-6)
    h = torch.tensor([0.5])
    for _ in range(100):
        h = torch.tanh(W @ h)
    assert abs(h.item() - 0.958) < 5e-4
    assert abs((2 * (1 - h**2)).item() - 0.166) < 5e-4
    assert jacobian_product(W, zero, torch.tensor([0.5]), 20).item() < 1e-14


def test_counterexample_spectral_radius_zero():
    """W nilpotent, one unit saturated: the gradient doubles at every step although all eigenvalues of W are 0."""
    W = torch.tensor([[2.0, 2.0], [-2.0, -2.0]])
    assert torch.equal(W @ W, torch.zeros(2, 2))
    assert abs(norm(W) - 4) < 1e-12
    h_2 = 1.0
    for _ in range(200):
        h_2 = math.tanh(10 - 2 * h_2)  # the fixed point with h_1 = 0
    z, h = torch.tensor([-2 * h_2, 10.0]), torch.tensor([0.0, h_2])
    assert_equal(torch.tanh(W @ h + z), h)
    assert 1 - h_2 < 1e-6
    assert_equal(diag(1 - h**2) @ W, torch.tensor([[2.0, 2.0], [0.0, 0.0]]), 1e-5)
    size = [norm(jacobian_product(W, z, h, k)) for k in (10, 11, 12)]
    assert abs(size[0] - 2**10.5) < 1
    assert abs(size[1] / size[0] - 2) < 1e-3
    assert abs(size[2] / size[1] - 2) < 1e-3


def test_default_initialisation_shrinks_gradients():
    """Uniform in +-1/sqrt(n): E |W^T v|^2 = |v|^2 / 3, spectral radius near 1/sqrt(3), sigma_max near 2/sqrt(3) > 1."""
    n, v = 128, F.normalize(numbers(128), dim=0)
    weights = [
        VanillaRNN(60, 1, n, 10, 1, generator=torch.Generator().manual_seed(seed)).W_hh.detach().double()
        for seed in range(20)
    ]
    ratio = np.mean([(W.T @ v).square().sum().item() for W in weights])
    assert abs(ratio - 1 / 3) < 0.03
    for W in weights[:1]:
        assert abs(spectral_radius(W) - 3**-0.5) < 0.06
        assert abs(norm(W) - 2 * 3**-0.5) < 0.06
        assert norm(W) > 1
        decay = norm(torch.linalg.matrix_power(W, 40)) ** (1 / 40)
        assert decay < 0.7


@pytest.mark.parametrize(("n_input", "n_hidden", "n_output"), [(1, 128, 10), (7, 5, 3)])
def test_parameter_count(n_input, n_hidden, n_output):
    model = LSTM(10, n_input, n_hidden, n_output, 4)
    count = {name: parameter.numel() for name, parameter in model.named_parameters()}
    cell = count["W_x"] + count["W_h"] + count["b"]
    assert cell == 4 * (n_hidden * n_input + n_hidden**2 + n_hidden)
    assert sum(count.values()) == cell + n_hidden * n_output + n_output
    assert (n_input, n_hidden, n_output) != (1, 128, 10) or (cell, sum(count.values())) == (66_560, 67_850)


def test_slopes_of_the_gates():
    """sigma' = sigma (1 - sigma) <= 1/4, tanh' = 1 - tanh^2 <= 1, both largest at 0."""
    a = torch.linspace(-8, 8, 1601).requires_grad_()
    (slope,) = torch.autograd.grad(torch.sigmoid(a).sum(), a)
    assert_equal(slope, torch.sigmoid(a) * (1 - torch.sigmoid(a)))
    assert slope.max().item() == slope[800].item() == 0.25
    (slope,) = torch.autograd.grad(torch.tanh(a).sum(), a)
    assert_equal(slope, 1 - torch.tanh(a) ** 2)
    assert slope.max().item() == slope[800].item() == 1


class Cell:
    """Equations 4-9 on one random sequence; index t is time; every quantity keeps its gradient."""

    def __init__(self, steps=T, last_state_only=False):
        names = "gifo"
        self.W_x = {k: numbers(n, d, seed=10 + j).mul(0.4).requires_grad_() for j, k in enumerate(names)}
        self.W_h = {k: numbers(n, n, seed=20 + j).mul(0.7).requires_grad_() for j, k in enumerate(names)}
        self.b = {k: numbers(n, seed=30 + j).mul(0.3).requires_grad_() for j, k in enumerate(names)}
        self.x = [None, *(row.requires_grad_() for row in numbers(steps, d))]
        self.h, self.c = [numbers(n, seed=40).requires_grad_()], [numbers(n, seed=41).requires_grad_()]
        self.a, self.gate = {k: [None] for k in names}, {k: [None] for k in names}
        for t in range(1, steps + 1):
            for k in names:
                self.a[k].append(self.W_x[k] @ self.x[t] + self.W_h[k] @ self.h[t - 1] + self.b[k])
                self.gate[k].append((torch.tanh if k == "g" else torch.sigmoid)(self.a[k][t]))
            g, i, f, o = (self.gate[k][t] for k in names)
            self.c.append(g * i + self.c[t - 1] * f)
            self.h.append(torch.tanh(self.c[t]) * o)
        self.steps = steps
        self.weights = numbers(steps + 1, n, seed=50)  # the loss looks at every h(t), and at c(T)
        if last_state_only:
            self.weights[:-1] = 0
        self.loss = (
            sum((self.weights[t] * self.h[t]).sum() for t in range(1, steps + 1)) + (self.weights[0] * self.c[-1]).sum()
        )

    def gradient(self, of, by):
        return torch.autograd.grad(of, by, retain_graph=True)

    def backward(self):
        """The report's recursion from t = T to 1; returns d_h, d_c and d_a by time, d_h[0] and d_c[0] included."""
        d_h, d_c, d_a = {}, {self.steps + 1: None}, {}
        for t in range(self.steps, 0, -1):
            g, i, f, o = (self.gate[k][t] for k in "gifo")
            tanh_c = torch.tanh(self.c[t])
            d_h[t] = self.weights[t]
            if t < self.steps:
                d_h[t] = d_h[t] + sum(self.W_h[k].T @ d_a[k, t + 1] for k in "gifo")
                d_c[t] = d_c[t + 1] * self.gate["f"][t + 1] + d_h[t] * o * (1 - tanh_c**2)
            else:
                d_c[t] = self.weights[0] + d_h[t] * o * (1 - tanh_c**2)
            d_a["g", t] = d_c[t] * i * (1 - g**2)
            d_a["i", t] = d_c[t] * g * i * (1 - i)
            d_a["f", t] = d_c[t] * self.c[t - 1] * f * (1 - f)
            d_a["o", t] = d_h[t] * tanh_c * o * (1 - o)
        d_h[0] = sum(self.W_h[k].T @ d_a[k, 1] for k in "gifo")
        d_c[0] = d_c[1] * self.gate["f"][1]
        return d_h, d_c, d_a


def test_one_step_of_the_lstm_backwards():
    """PRML 1.1: every gradient of one step, with its own part of dL/dc."""
    cell = Cell(steps=1)
    d_h, d_c, d_a = cell.backward()
    g, i, f, o = (cell.gate[k][1] for k in "gifo")
    assert_equal(d_h[1] * torch.tanh(cell.c[1]), cell.gradient(cell.loss, o)[0])
    assert_equal(d_c[1], cell.gradient(cell.loss, cell.c[1])[0])
    assert_equal((d_c[1] * i, d_c[1] * g, d_c[1] * cell.c[0]), cell.gradient(cell.loss, (g, i, f)))
    for k in "gifo":
        assert_equal(d_a[k, 1], cell.gradient(cell.loss, cell.a[k][1])[0])
        expected = cell.gradient(cell.loss, (cell.W_x[k], cell.W_h[k], cell.b[k]))
        assert_equal((outer(d_a[k, 1], cell.x[1]), outer(d_a[k, 1], cell.h[0]), d_a[k, 1]), expected)
    assert_equal(sum(cell.W_x[k].T @ d_a[k, 1] for k in "gifo"), cell.gradient(cell.loss, cell.x[1])[0])
    assert_equal((d_h[0], d_c[0]), cell.gradient(cell.loss, (cell.h[0], cell.c[0])))


def test_the_lstm_through_time():
    """PRML 1.2: the recursion over d_h, d_c and d_a, against autograd, lstm_numpy.py and recurrence/lstm.py."""
    cell = Cell()
    d_h, d_c, d_a = cell.backward()
    for t in range(1, T + 1):
        assert_equal((d_h[t], d_c[t]), cell.gradient(cell.loss, (cell.h[t], cell.c[t])))
        assert_equal(sum(cell.W_x[k].T @ d_a[k, t] for k in "gifo"), cell.gradient(cell.loss, cell.x[t])[0])
    assert_equal((d_h[0], d_c[0]), cell.gradient(cell.loss, (cell.h[0], cell.c[0])))
    d_W_x, d_W_h, d_b = [], [], []
    for k in "gifo":
        d_W_x.append(sum(outer(d_a[k, t], cell.x[t]) for t in range(1, T + 1)))
        d_W_h.append(sum(outer(d_a[k, t], cell.h[t - 1]) for t in range(1, T + 1)))
        d_b.append(sum(d_a[k, t] for t in range(1, T + 1)))
        expected = cell.gradient(cell.loss, (cell.W_x[k], cell.W_h[k], cell.b[k]))
        assert_equal((d_W_x[-1], d_W_h[-1], d_b[-1]), expected)

    W_x, W_h, b = (torch.cat(list(part.values())).detach() for part in (cell.W_x, cell.W_h, cell.b))
    x, h_0, c_0 = torch.stack(cell.x[1:])[:, None].detach(), cell.h[0][None].detach(), cell.c[0][None].detach()
    grad_h, grad_c = cell.weights[1:, None], cell.weights[:1]
    _, _, caches = lstm_numpy.lstm_sequence(*(array.numpy() for array in (x, h_0, c_0, W_x, W_h, b)))
    theirs = lstm_numpy.lstm_sequence_backward(grad_h.numpy(), grad_c.numpy(), caches)
    for ours, array in ((d_W_x, theirs.W_x), (d_W_h, theirs.W_h), (d_b, theirs.b)):
        assert_equal(torch.cat(ours), torch.from_numpy(array))

    z, W_h = (x @ W_x.T + b).requires_grad_(), W_h.requires_grad_()
    h, c = lstm_states(z, h_0, c_0, W_h, recurrence="bptt")
    gradients = torch.autograd.grad((h * grad_h).sum() + (c * grad_c).sum(), (z, W_h))
    stacked = torch.stack([torch.cat([d_a[k, t] for k in "gifo"]) for t in range(1, T + 1)])[:, None]
    assert_equal((stacked, torch.cat(d_W_h)), gradients)


def jacobians_of_a_step():
    """A cell, and ((dh(t)/dh(t-1), dh(t)/dc(t-1)), (dc(t)/dh(t-1), dc(t)/dc(t-1))) by autograd."""
    cell = Cell(steps=1)

    def step(h, c):
        a = {k: cell.W_x[k] @ cell.x[1] + cell.W_h[k] @ h + cell.b[k] for k in "gifo"}
        c = torch.tanh(a["g"]) * torch.sigmoid(a["i"]) + c * torch.sigmoid(a["f"])
        return torch.tanh(c) * torch.sigmoid(a["o"]), c

    return cell, torch.autograd.functional.jacobian(step, (cell.h[0].detach(), cell.c[0].detach()))


def test_jacobians_of_a_step_of_the_lstm():
    cell, ((dh_dh, dh_dc), (dc_dh, dc_dc)) = jacobians_of_a_step()
    g, i, f, o = (cell.gate[k][1] for k in "gifo")
    tanh_c = torch.tanh(cell.c[1])
    S = diag(o * (1 - tanh_c**2))
    B = {
        "o": diag(tanh_c * o * (1 - o)),
        "g": S @ diag(i * (1 - g**2)),
        "i": S @ diag(g * i * (1 - i)),
        "f": S @ diag(cell.c[0] * f * (1 - f)),
    }

    def jacobian(by):
        rows = [cell.gradient(cell.h[1][j], by)[0] for j in range(n)]
        return torch.stack(rows)

    assert_equal(S, jacobian(cell.c[1]))
    assert_equal(diag(tanh_c), jacobian(cell.gate["o"][1]))
    assert_equal(S @ diag(i), jacobian(cell.gate["g"][1]))
    assert_equal(S @ diag(g), jacobian(cell.gate["i"][1]))
    assert_equal(S @ diag(cell.c[0]), jacobian(cell.gate["f"][1]))
    assert_equal(sum(B[k] @ cell.W_h[k] for k in "gifo"), dh_dh)
    assert_equal(sum(B[k] @ cell.W_x[k] for k in "gifo"), jacobian(cell.x[1]))
    assert_equal(S @ diag(f), dh_dc)
    assert_equal(diag(f), dc_dc)
    for k in "gifo":
        assert_equal(B[k], jacobian(cell.a[k][1]))
        assert_equal(B[k], jacobian(cell.b[k]))
        assert_equal(torch.einsum("j,jk,l->jkl", B[k].diagonal(), torch.eye(n), cell.h[0]), jacobian(cell.W_h[k]))
        assert_equal(torch.einsum("j,jk,l->jkl", B[k].diagonal(), torch.eye(n), cell.x[1]), jacobian(cell.W_x[k]))
    A = (
        diag(i * (1 - g**2)) @ cell.W_h["g"]
        + diag(g * i * (1 - i)) @ cell.W_h["i"]
        + diag(cell.c[0] * f * (1 - f)) @ cell.W_h["f"]
    )
    assert_equal(A, dc_dh)


def test_prml_report_misses_the_candidate():
    """Its dh(t)/dh(t-1) and dh(t)/dx(t) leave out exactly the path through g."""
    cell, ((dh_dh, _), _) = jacobians_of_a_step()
    g, i, f, o = (cell.gate[k][1] for k in "gifo")
    tanh_c = torch.tanh(cell.c[1])
    S = diag(o * (1 - tanh_c**2))
    theirs = (
        diag(tanh_c) @ diag(o * (1 - o)) @ cell.W_h["o"]
        + S @ diag(cell.c[0]) @ diag(f * (1 - f)) @ cell.W_h["f"]
        + S @ diag(g) @ diag(i * (1 - i)) @ cell.W_h["i"]
    )
    missing = S @ diag(i) @ diag(1 - g**2) @ cell.W_h["g"]
    assert_equal(theirs + missing, dh_dh)
    assert norm(missing) > 0.1 * norm(dh_dh)


def test_prml_report_misses_the_path_through_the_cell():
    """Its delta(t-1) = delta(t) dh(t)/dh(t-1), even with the right Jacobian, loses what c carries on from t to t+1."""
    cell = Cell(steps=12, last_state_only=True)
    d_h, d_c, _ = cell.backward()
    delta = d_h[12]
    for t in range(12, 0, -1):
        g, i, f, o = (cell.gate[k][t] for k in "gifo")
        tanh_c = torch.tanh(cell.c[t])
        A = (
            diag(i * (1 - g**2)) @ cell.W_h["g"]
            + diag(g * i * (1 - i)) @ cell.W_h["i"]
            + diag(cell.c[t - 1] * f * (1 - f)) @ cell.W_h["f"]
        )
        dh_dh = diag(tanh_c * o * (1 - o)) @ cell.W_h["o"] + diag(o * (1 - tanh_c**2)) @ A
        delta = delta @ dh_dh
        # dL/dc(t) apart from the path through h(t)
        later = d_c[t + 1] * cell.gate["f"][t + 1] if t < 12 else torch.zeros(n)
        assert_equal(d_h[t] @ dh_dh + later @ A, d_h[t - 1])  # the right recursion
        assert_equal(d_h[t - 1], cell.gradient(cell.loss, cell.h[t - 1])[0])
        if t == 12:
            assert_equal(delta, d_h[11])  # its first step back is right
    assert (delta - d_h[0]).norm() > 0.5 * d_h[0].norm()


def test_the_memory_path():
    """dc(t)/dc(t-1): diag f on the direct path, and all of it, in which h(t-1) = tanh c(t-1) o(t-1) moves the gates."""
    cell = Cell(steps=2)
    g, i, f = (cell.gate[k][2] for k in "gif")
    A = (
        diag(i * (1 - g**2)) @ cell.W_h["g"]
        + diag(g * i * (1 - i)) @ cell.W_h["i"]
        + diag(cell.c[1] * f * (1 - f)) @ cell.W_h["f"]
    )
    total = torch.stack([cell.gradient(cell.c[2][k], cell.c[1])[0] for k in range(n)])
    assert_equal(diag(f) + A @ diag(cell.gate["o"][1] * (1 - torch.tanh(cell.c[1]) ** 2)), total)


def test_the_direct_path_is_the_product_of_forget_gates():
    """With all recurrent weights zero nothing else is left, and dc(T)/dc(0) is that product, below 1."""
    cell = Cell()
    for k in "gifo":
        cell.W_h[k].data.zero_()
    with torch.no_grad():
        forget = [torch.sigmoid(cell.W_x["f"] @ cell.x[t] + cell.b["f"]) for t in range(1, T + 1)]

    def last_cell(c):
        for t in range(1, T + 1):
            g = torch.tanh(cell.W_x["g"] @ cell.x[t] + cell.b["g"])
            i = torch.sigmoid(cell.W_x["i"] @ cell.x[t] + cell.b["i"])
            c = g * i + c * forget[t - 1]
        return c

    jacobian = torch.autograd.functional.jacobian(last_cell, cell.c[0].detach())
    assert_equal(jacobian, diag(torch.stack(forget).prod(dim=0)))
    assert 0 < jacobian.diagonal().min() and jacobian.diagonal().max() < 1


def test_what_chrono_does_to_the_memory_path():
    """sigma(log u) = u/(1+u), sigma(-log u) = 1/(1+u); 58 steps of it, u uniform in 1 ... 59, against a bias of 1."""
    u = torch.linspace(1, 59, 100_001)
    forget = torch.sigmoid(u.log())
    assert_equal(forget, u / (1 + u))
    assert_equal(torch.sigmoid(-u.log()), 1 / (1 + u))
    assert abs(torch.sigmoid(torch.tensor(1.0)).item() - 0.731) < 5e-4
    assert abs(torch.sigmoid(torch.tensor(1.0)).item() ** 58 / 1.3e-8 - 1) < 0.05
    assert abs((59 / 60) ** 58 - 0.377) < 5e-4  # the slowest unit; tends to 1/e
    assert abs((forget**58).mean().item() - 0.16) < 0.005
    half_life = math.log(2) / -math.log(0.731)
    assert abs(half_life - 2.2) < 0.05

    model = LSTM(60, 1, 500, 10, 1, init="chrono", generator=torch.Generator().manual_seed(0))
    _, b_i, b_f, _ = model.b.detach().double().chunk(4)
    assert 1 <= b_f.exp().min() < 1.5
    assert 58.5 < b_f.exp().max() <= 59.001
    assert torch.equal(b_i, -b_f)
    assert abs((torch.sigmoid(b_f) ** 58).mean().item() - (forget**58).mean().item()) < 0.02
