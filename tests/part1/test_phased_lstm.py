"""The phased LSTM against its equations, the LSTM and finite differences; the experiment's data, clocks and figures."""

import pytest
import torch

from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from part1.experiments import time_gate as script
from part1.lstm import LSTM
from part1.phased_lstm import PhasedLSTM, time_gate

B, T, d, n = 3, 12, 2, 4


def sequence(seed=0):
    """(B, T, d) inputs and (B, T) time stamps at irregular intervals, of each sequence its own."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, T, d, generator=generator).double()
    return x, torch.rand(B, T, generator=generator).double().mul(3).cumsum(dim=1)


def phased(tau=5.0, s=1.0, r_on=0.6, alpha=0.0):
    return PhasedLSTM(d, n, tau, s, r_on, alpha, torch.Generator().manual_seed(0)).double()


def test_the_layer_equals_the_equations_written_out():
    """One sequence and one unit at a time, the cases of k(t) as conditions."""
    cell = phased(torch.tensor([2.0, 5.0, 7.0, 30.0]), torch.tensor([0.0, 1.0, 3.0, -4.0]), 0.6, alpha=0.1)
    x, t = sequence()
    states, last_c = cell(x, t)
    W, U, bias = (weights.detach().unflatten(0, (4, n)) for weights in (cell.W_x, cell.W_h, cell.b))
    for row in range(B):
        h, c = torch.zeros(n).double(), torch.zeros(n).double()
        for step in range(T):
            a = W @ x[row, step] + U @ h + bias  # (4, n)
            g, i, f, o = torch.tanh(a[0]), torch.sigmoid(a[1]), torch.sigmoid(a[2]), torch.sigmoid(a[3])
            new_c = g * i + c * f
            new_h = torch.tanh(new_c) * o
            for unit in range(n):
                tau, s, r_on = (one[unit].item() for one in (cell.tau, cell.s, cell.r_on))
                phi = (t[row, step].item() - s) % tau / tau
                k = 2 * phi / r_on if phi < r_on / 2 else 2 - 2 * phi / r_on if phi < r_on else 0.1 * phi
                c[unit] = k * new_c[unit] + (1 - k) * c[unit]
                h[unit] = k * new_h[unit] + (1 - k) * h[unit]
            torch.testing.assert_close(states[step, row], h, rtol=0, atol=1e-10)
        torch.testing.assert_close(last_c[row], c, rtol=0, atol=1e-10)


def test_with_open_gates_it_is_the_lstm():
    """Time stamps at the peaks, where k = 1: states and the weights' gradients."""
    cell = phased(tau=5.0, s=1.0, r_on=0.5)
    lstm = LSTM(T, d, n, 10, B).double()
    for name in ("W_x", "W_h", "b"):
        getattr(lstm, name).data.copy_(getattr(cell, name).data)
    x, _ = sequence()
    t = 1.0 + 5.0 * (torch.arange(T).double() + 0.25)
    (h, c), (expected_h, expected_c) = cell(x, t), lstm.states(x)
    torch.testing.assert_close(h, expected_h, rtol=0, atol=1e-10)
    torch.testing.assert_close(c, expected_c, rtol=0, atol=1e-10)
    weights = torch.randn(T, B, n, generator=torch.Generator().manual_seed(1)).double()
    found = torch.autograd.grad((h * weights).sum(), (cell.W_x, cell.W_h, cell.b))
    expected = torch.autograd.grad((expected_h * weights).sum(), (lstm.W_x, lstm.W_h, lstm.b))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_it_begins_with_the_weights_of_the_lstm():
    """Drawn from the same generator: what the experiment compares starts alike."""
    cell = PhasedLSTM(d, n, 5, 1, 0.5, generator=torch.Generator().manual_seed(3))
    lstm = LSTM(T, d, n, 10, B, generator=torch.Generator().manual_seed(3))
    for name in ("W_x", "W_h", "b"):
        assert torch.equal(getattr(cell, name), getattr(lstm, name))


def test_a_closed_gate_copies_the_states_bit_for_bit():
    cell = phased(tau=5.0, s=1.0, r_on=0.4).float()  # open from 1 to 3, 6 to 8, ...
    x = sequence()[0].float()
    start = torch.randn(B, n), torch.randn(B, n)
    h, c = cell(x, torch.linspace(3.1, 5.9, T), start)
    assert torch.equal(h, start[0].expand(T, B, n)) and torch.equal(c, start[1])
    assert not torch.equal(cell(x, torch.linspace(3.1, 6.5, T), start)[1], start[1])


def test_gradients_equal_finite_differences():
    """Of the inputs and all parameters, tau, s and r_on too, at time stamps away from the corners of k."""
    cell, (x, t) = phased(tau=torch.tensor([2.0, 5.0, 7.0, 30.0]), alpha=0.01), sequence()
    x, t = x[:2, :6], t[:2, :6]
    names = [name for name, _ in cell.named_parameters()]
    assert {"tau", "s", "r_on"} <= set(names)

    def states(x, *parameters):
        return torch.func.functional_call(cell, dict(zip(names, parameters)), (x, t))

    parameters = [parameter.detach().clone().requires_grad_() for parameter in cell.parameters()]
    assert torch.autograd.gradcheck(states, (x.requires_grad_(), *parameters))


def test_a_sequence_in_two_halves_is_the_whole():
    cell, (x, t) = phased(), sequence()
    h, c = cell(x, t)
    first_h, first_c = cell(x[:, :5], t[:, :5])
    second_h, second_c = cell(x[:, 5:], t[:, 5:], (first_h[-1], first_c))
    torch.testing.assert_close(torch.cat((first_h, second_h)), h, rtol=0, atol=1e-12)
    torch.testing.assert_close(second_c, c, rtol=0, atol=1e-12)


def test_without_time_stamps_the_steps_are_counted_from_one():
    cell, (x, _) = phased(), sequence()
    assert torch.equal(cell(x)[0], cell(x, torch.arange(1.0, T + 1).expand(B, T))[0])


@pytest.mark.parametrize("clock", [{"tau": 0.0}, {"r_on": 0.0}, {"r_on": 1.1}, {"tau": torch.tensor([1.0, -1, 1, 1])}])
def test_impossible_clocks_are_refused(clock):
    with pytest.raises(ValueError, match="tau must be above 0, and r_on above 0 and at most 1"):
        phased(**clock)


def test_other_shapes_are_refused():
    cell, (x, t) = phased(), sequence()
    with pytest.raises(ValueError, match="tau, s and r_on must be numbers or one for each of 4 units"):
        phased(s=torch.zeros(3))
    with pytest.raises(ValueError, match=r"the time stamps must be \(3, 12\) or \(12,\), not \(3, 11\)"):
        cell(x, t[:, :-1])
    with pytest.raises(ValueError, match="the inputs must be"):
        cell(x[..., :1], t)
    with pytest.raises(ValueError, match="c_0 must be"):
        cell(x, t, (torch.zeros(B, n).double(), torch.zeros(1, n).double()))


# The experiment


def test_only_the_signals_decide_the_target():
    x, y = script.draw_sequences(200, torch.Generator().manual_seed(0))
    signals = x[:, script.P - 1 :: script.P, 0]
    assert signals.shape == (200, 5) and x.abs().max() <= 1
    torch.testing.assert_close(y[:, 0], signals.sum(dim=1) * (3 / 5) ** 0.5)
    assert abs(script.draw_sequences(20_000, torch.Generator().manual_seed(0))[1].var() - 1) < 0.05


def test_who_is_told_k_gets_the_gate_of_the_right_clock():
    """It is open, fully, at signals only; and so is every gate of the network that starts with the right clock."""
    (x, _), (told, _) = (script.draw_sequences(2, torch.Generator().manual_seed(0), told) for told in (False, True))
    is_signal = (torch.arange(1, script.T + 1) % script.P == 0).float()
    assert torch.equal(told[..., :1], x)
    torch.testing.assert_close(told[..., 1], is_signal.expand(2, -1), rtol=0, atol=1e-6)
    cell = script.make_network(script.Run("fixed"), torch.Generator().manual_seed(0)).cell
    k = time_gate(torch.arange(1.0, script.T + 1)[:, None], cell.tau, cell.s, cell.r_on)
    torch.testing.assert_close(k, is_signal[:, None].expand(-1, script.NUM_HIDDEN), rtol=0, atol=1e-5)


def test_a_kept_clock_is_kept_and_a_learnt_one_moves(monkeypatch):
    monkeypatch.setattr(script, "NUM_TEST", 10)
    for network, moves in (("fixed", False), ("learnt", True)):
        first = script.make_network(script.Run(network, tau=1.05), torch.Generator().manual_seed(0)).cell
        model, (row,) = script.train(script.Run(network, tau=1.05), 0, 2)
        for name in ("tau", "s", "r_on"):
            assert torch.equal(getattr(model.cell, name), getattr(first, name)) is not moves
        assert not torch.equal(model.cell.W_h, first.W_h) and row["step"] == 2


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """A function that runs the script in a folder of the test's own, and returns what it prints."""

    def run(words):
        monkeypatch.setattr("sys.argv", [script.__name__, *words.split()])
        monkeypatch.setattr(experiment, "ROOT", tmp_path)
        monkeypatch.setattr(script, "RUNS", tmp_path / "kept")
        monkeypatch.setattr(script, "NUM_TEST", 10)
        script.main()
        return capsys.readouterr().out

    return run


def test_the_smallest_sweep_is_drawn_beside_its_runs(sweep, tmp_path, monkeypatch):
    """And again from the finished runs, which are not trained again."""
    monkeypatch.setattr(script, "BASIN_TAUS", (0.5, 1.0))
    words = "--studies networks s basin --seeds 1 --train_steps 1"
    printed = sweep(words)
    assert "learnt, first tau 1, shift 0.375, r_on 0.25, leak 0: error " in printed
    results = tmp_path / "runs" / "part1" / "time_gate"
    assert {path.name for path in results.iterdir()} == {
        *(f"{name}.{suffix}" for name in (script.NAME, script.BASIN) for suffix in ("csv", "json")),
        *(f"{name}.{suffix}" for name in (script.NAME, script.LEARNING) for suffix in ("pdf", "png")),
    }
    monkeypatch.setattr(script, "train", None)
    assert sweep(words) == printed
    assert len(read_results(script.NAME, results)) == 10 and len(read_results(script.BASIN, results)) == 2


def test_the_last_evaluation_of_every_seed_counts():
    run = script.Run("learnt", tau=1.5)
    rows = [{**run._asdict(), "seed": seed, "step": step, "error": seed + step} for seed in (0, 1) for step in (20, 40)]
    assert script.last_rows(rows) == {run: [rows[1], rows[3]]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--studies clocks", "argument --studies: invalid choice: 'clocks'"),
        ("--seeds -1", "argument --seeds: must be at least 0, not -1"),
        ("--train_steps 0", "argument --train_steps: must be at least 1, not 0"),
    ],
)
def test_impossible_sweeps_are_refused(words, message):
    with pytest.raises(CommandError, match=message):
        script.build_parser().parse_args(words.split())
