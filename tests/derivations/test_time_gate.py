"""The formulas of the report's section on gates with a clock: k(t), what it does to the states, and its derivatives."""

import math

import pytest
import torch

from part1.phased_lstm import time_gate
from tests.derivations.numerics import assert_equal, numbers

pytestmark = pytest.mark.usefixtures("float64")

TAU, S, R_ON = 10.0, 3.0, 0.4  # open from 3 to 7, fully at 5


def gate(t, tau=TAU, s=S, r_on=R_ON, alpha=0.0):
    t, tau, s, r_on = (torch.as_tensor(x, dtype=torch.float64) for x in (t, tau, s, r_on))
    return time_gate(t, tau, s, r_on, alpha)


def printed_gate(t, tau, s, r_on):
    """The handout's cases, with its strict inequalities."""
    phi = (t - s) % tau / tau
    if phi < r_on / 2:
        return 2 * phi / r_on
    if r_on / 2 < phi < r_on:
        return 2 - 2 * phi / r_on
    return 0.0


def derivatives(t, tau=TAU, s=S, r_on=R_ON, alpha=0.0):
    """dk/dtau, dk/ds and dk/dr_on by autograd, of the shape of t."""
    t = torch.as_tensor(t, dtype=torch.float64)
    clock = [torch.full_like(t, x).requires_grad_() for x in (tau, s, r_on)]
    return torch.autograd.grad(time_gate(t, *clock, alpha).sum(), clock)


def test_the_gate_over_one_period():
    """Corners, period, continuity; open for a share r_on of the time, r_on / 2 on average."""
    assert_equal(gate([3, 4, 5, 6, 7, 8, 12.9]), torch.tensor([0, 0.5, 1, 0.5, 0, 0, 0]))
    t = torch.arange(0, 40, 0.001)
    assert_equal(gate(t), gate(t + 7 * TAU))
    assert (gate(t).diff().abs() <= 0.001 * 2 / (R_ON * TAU) + 1e-10).all()
    assert abs((gate(t) > 0).double().mean() - R_ON) < 1e-3
    assert abs(gate(t).mean() - R_ON / 2) < 1e-3


def test_the_printed_gate_is_zero_at_its_peak():
    """With tau = 4, s = 0, r_on = 1/2 the phases of whole t are 0, 1/4, 1/2, 3/4: it never opens; elsewhere as ours."""
    t = torch.arange(1.0, 41)
    assert not any(printed_gate(x, 4, 0, 0.5) for x in t.tolist())
    assert_equal(gate(t, 4, 0, 0.5), (t % 4 == 1).double())
    for x in torch.rand(500).mul(40).tolist():
        assert abs(printed_gate(x, TAU, S, R_ON) - gate(x)) < 1e-10


def test_the_printed_tanh_shows_a_half_open_step_twice_damped():
    """h with tanh(c) and with tanh(c~): equal where k is 0 or 1; from k = 0 on the first moves to tanh(c(t-1)) o."""
    c_before, h_before, new_c, o = numbers(4), numbers(4, seed=1), numbers(4, seed=2), torch.rand(4)

    def states(k):
        c = k * new_c + (1 - k) * c_before
        printed, ours = (k * torch.tanh(cell) * o + (1 - k) * h_before for cell in (c, new_c))
        return printed, ours

    for k in (0.0, 1.0):
        assert_equal(*states(k))
    assert (states(0.5)[0] - states(0.5)[1]).abs().min() > 1e-3
    step = 1e-7
    of_printed, of_ours = ((h - h_before) / step for h in states(step))
    assert_equal(of_printed, torch.tanh(c_before) * o - h_before, 1e-6)
    assert_equal(of_ours, torch.tanh(new_c) * o - h_before, 1e-6)


def test_the_direct_path_of_a_gated_cell():
    """With the gates' values held, dc(t)/dc(t-1) = 1 - k (1 - f): 1 where the gate is closed, f where it is open."""
    c, g, i, f = numbers(6).requires_grad_(), numbers(6, seed=1), torch.rand(6), torch.rand(6)
    k = torch.tensor([0, 0.2, 0.5, 0.8, 1, 0])
    new_c = g * i + c * f
    (slope,) = torch.autograd.grad((k * new_c + (1 - k) * c).sum(), c)
    assert_equal(slope, 1 - k * (1 - f))
    assert slope[0] == 1 and slope[4] == f[4]


@pytest.mark.parametrize("f", [0.3, 1 / (1 + math.exp(-1)), 0.99])
@pytest.mark.parametrize("r_on", [0.05, 0.5, 1.0])
def test_how_fast_a_gated_cell_forgets(f, r_on):
    """The mean of -ln(1 - k (1 - f)) over a period is r_on (1 + f ln f / (1 - f)), near f = 1 about r_on (1 - f)/2."""
    t = (torch.arange(1_000_000) + 0.5) / 1_000_000
    rate = -(1 - gate(t, 1, 0, r_on) * (1 - f)).log().mean().item()
    assert rate == pytest.approx(r_on * (1 + f * math.log(f) / (1 - f)), rel=1e-6)
    if f == 0.99:
        assert rate == pytest.approx(r_on * (1 - f) / 2, rel=0.01)
    if f == 1 / (1 + math.exp(-1)):  # the LSTM of the report: half-lives of 2.2 steps and, for r_on = 0.05, 93
        assert math.log(2) / -math.log(f) == pytest.approx(2.2, abs=0.05)
        assert r_on != 0.05 or math.log(2) / rate == pytest.approx(93, abs=0.5)


def test_some_gate_is_open_at_nearly_every_moment():
    """n units with random shifts: at any time one is open with the chance 1 - (1 - r_on)^n, 0.9986 for 128 at 0.05."""
    chance = 1 - (1 - 0.05) ** 128
    assert abs(chance - 0.9986) < 5e-5
    shifts = torch.rand(20_000, 30, generator=torch.Generator().manual_seed(0)) * TAU
    found = (gate(17.3, s=shifts, r_on=0.05) > 0).any(dim=1).double().mean()
    assert abs(found - (1 - 0.95**30)) < 0.01


def test_the_derivatives_of_the_gate():
    """dk/dphi times -(m + phi)/tau and -1/tau, m periods after s, and -+2 phi / r_on^2; also by finite differences."""
    t = torch.tensor([-16.2, 3.5, 4.9, 5.1, 6.8, 8.0, 14.0, 16.5, 104.0, 2006.0])
    m, phi = ((t - S) / TAU).floor(), ((t - S) % TAU) / TAU
    slope = torch.where(phi < R_ON / 2, 2 / R_ON, torch.where(phi < R_ON, -2 / R_ON, 0.0))
    by_tau, by_s, by_r_on = derivatives(t)
    assert_equal(by_tau, -slope * (m + phi) / TAU)
    assert_equal(by_s, -slope / TAU)
    assert_equal(by_r_on, -slope * phi / R_ON)
    for position, found in enumerate((by_tau, by_s, by_r_on)):
        step = [1e-7 if k == position else 0.0 for k in range(3)]
        up = gate(t, TAU + step[0], S + step[1], R_ON + step[2])
        down = gate(t, TAU - step[0], S - step[1], R_ON - step[2])
        assert_equal((up - down) / 2e-7, found, 1e-5)


def test_a_closed_gate_teaches_its_clock_nothing():
    """All three derivatives are exactly 0; with a leak, those by tau and s are alpha's share of phi's."""
    t = torch.tensor([7.5, 9.0, 12.9, 1008.0])
    assert not torch.stack(derivatives(t)).any()
    by_tau, by_s, by_r_on = derivatives(t, alpha=0.1)
    assert_equal(by_s, torch.full((4,), -0.1 / TAU))
    assert by_tau.all() and not by_r_on.any()


def test_the_derivatives_jump_where_the_gate_turns():
    """At the wrap of the phase, at the peak and where it closes k is continuous, and its slope in s is not."""
    for corner, before, after in ((3.0, 0, 2), (5.0, 2, -2), (7.0, -2, 0)):
        t = torch.tensor([corner - 1e-9, corner + 1e-9])
        assert_equal(gate(t)[0], gate(t)[1], 1e-8)
        _, by_s, _ = derivatives(t)
        assert_equal(by_s * -TAU * R_ON, torch.tensor([before, after], dtype=torch.float64))


def test_the_derivative_by_tau_grows_with_time():
    """At the same phase, m periods on: by 1/tau of the slope for each period."""
    by_tau = torch.stack([derivatives(S + 1.0 + TAU * m)[0] for m in range(0, 1000, 100)])
    assert_equal(by_tau.diff(), torch.full((9,), -100 * (2 / R_ON) / TAU))


def test_as_a_function_of_tau_the_gate_has_many_teeth():
    """Between two periods it opens and closes as often as floor((t - s)/tau) changes: about every tau^2 / t."""
    t, taus = 403.0, torch.arange(8, 12, 1e-4)
    is_open = gate(t, taus, S) > 0
    openings = int((~is_open[:-1] & is_open[1:]).sum())
    assert abs(openings - (math.floor((t - S) / 8) - math.floor((t - S) / 12))) <= 1
    assert openings >= 16
    closed = (~is_open[1:] & is_open[:-1]).nonzero().flatten()  # where a tooth ends
    near_ten = taus[closed][(taus[closed] - 10).abs().argsort()[:2]]
    assert abs(near_ten.diff().abs().item() - 10**2 / t) < 0.03


@pytest.mark.parametrize("M", [1, 5, 10])
def test_between_which_periods_every_signal_meets_an_open_gate(M):
    """Signals at P, 2 P, ..., M P, gates open around 0, tau, ...: for tau / P from 1 / (1 + r) to 1 / (1 - r)."""
    P, r_on = 8.0, 0.25
    r = r_on / (2 * M)

    def all_seen(tau):
        t = P * torch.arange(1, M + 1)
        return bool((gate(t, tau, -r_on * tau / 2, r_on) > 0).all())

    for bound, inwards in ((P / (1 + r), 1e-6), (P / (1 - r), -1e-6)):
        assert all_seen(bound + inwards) and not all_seen(bound - inwards)
    assert all_seen(P)
