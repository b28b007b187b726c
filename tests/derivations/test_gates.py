"""The formulas of the report's section on other gates: GRU, peepholes, two directions, and UvA 2020's data sets."""

import itertools
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from part1.bi_lstm import biLSTM
from part1.dataset import draw_palindromes
from part1.datasets import BinaryPalindromeDataset, RandomCombinationsDataset
from part1.gru import GRU
from part1.lstm import LSTM
from part1.peep_lstm import peepLSTM
from recurrence.gru import gru_sequence
from recurrence.peephole import peephole_sequence
from tests.derivations.numerics import assert_equal, numbers

pytestmark = pytest.mark.usefixtures("float64")

T, B, d, n = 6, 3, 2, 4


def kept(tensor):
    """A quantity of the forward pass whose gradient is wanted."""
    tensor.retain_grad()
    return tensor


def test_the_backward_equations_of_the_gru():
    """Every d_v of the derivation against autograd, with a loss that sees all states."""
    x, h = numbers(T, B, d), numbers(B, n).requires_grad_()
    W_zx, W_rx, W_cx = (numbers(n, d, seed=k) for k in range(3))
    W_zh, W_rh, W_ch = (numbers(n, n, seed=k + 9) for k in range(3))
    steps, grad_h, before = [], numbers(T, B, n), kept(h * 1)
    loss = 0
    for t in range(T):
        a_z, a_r = kept(x[t] @ W_zx.T + before @ W_zh.T), kept(x[t] @ W_rx.T + before @ W_rh.T)
        z, r = a_z.sigmoid(), a_r.sigmoid()
        q = kept(r * before)
        a_c = kept(x[t] @ W_cx.T + q @ W_ch.T)
        h = kept((1 - z) * before + z * a_c.tanh())
        loss = loss + (grad_h[t] * h).sum()
        steps.append((before, z, r, q, a_z, a_r, a_c, h))
        before = h
    loss.backward()
    d_next = torch.zeros(B, n)  # what comes from step t + 1
    for t in reversed(range(T)):
        before, z, r, q, a_z, a_r, a_c, h = steps[t]
        d_h = grad_h[t] + d_next
        d_a_c = d_h * z * (1 - a_c.tanh() ** 2)
        d_q = d_a_c @ W_ch
        d_a_z = d_h * (a_c.tanh() - before) * z * (1 - z)
        d_a_r = d_q * before * r * (1 - r)
        d_next = d_h * (1 - z) + d_q * r + d_a_z @ W_zh + d_a_r @ W_rh
        found, expected = (d_h, d_a_c, d_q, d_a_z, d_a_r), (h.grad, a_c.grad, q.grad, a_z.grad, a_r.grad)
        assert_equal(found, expected)
    assert_equal(d_next, steps[0][0].grad)


def test_the_backward_equations_of_the_peephole_lstm():
    x, c = numbers(T, B, d), numbers(B, n)
    W_x, b = [numbers(n, d, seed=k) for k in range(4)], [numbers(n, seed=k) for k in range(4)]  # g, i, f, o
    W_c = [numbers(n, n, seed=k + 9) for k in range(3)]  # i, f, o
    steps, grad_h, before = [], numbers(T, B, n), kept(c.requires_grad_() * 1)
    loss = 0
    for t in range(T):
        a = [kept(x[t] @ W.T + bias + before * 0) for W, bias in zip(W_x[:1], b)]
        a += [kept(x[t] @ W.T + before @ V.T + bias) for W, V, bias in zip(W_x[1:], W_c, b[1:])]
        g, i, f, o = (part.sigmoid() for part in a)
        c = kept(g * i + before * f)
        loss = loss + (grad_h[t] * torch.tanh(c) * o).sum()
        steps.append((before, g, i, f, o, a, c))
        before = c
    loss.backward()
    d_next = torch.zeros(B, n)
    for t in reversed(range(T)):
        before, g, i, f, o, a, c = steps[t]
        d_c = grad_h[t] * o * (1 - torch.tanh(c) ** 2) + d_next
        d_a = [d_c * i * g * (1 - g), d_c * g * i * (1 - i), d_c * before * f * (1 - f)]
        d_a.append(grad_h[t] * torch.tanh(c) * o * (1 - o))
        d_next = d_c * f + sum(part @ V for part, V in zip(d_a[1:], W_c))
        assert_equal((d_c, *d_a), (c.grad, *(part.grad for part in a)))
    assert_equal(d_next, steps[0][0].grad)


def torch_gru(W_x, W_h):
    """nn.GRU with the handout's weights: its z is 1 - z here, so that a_z changes its sign; no biases."""
    size = W_h.shape[1]
    library = nn.GRU(W_x.shape[1], size, bias=False)
    order = [torch.cat((W[size : 2 * size], -W[:size], W[2 * size :])) for W in (W_x, W_h)]  # r, z, candidate
    library.load_state_dict(dict(zip(("weight_ih_l0", "weight_hh_l0"), order)))
    return library


def test_with_one_unit_the_handout_s_gru_is_torch_s():
    """r and W_ch are numbers then, so that it does not matter which multiplies first."""
    x, W_x, W_h = numbers(T, B, d), numbers(3, d), numbers(3, 1)
    assert_equal(gru_sequence(x, None, W_x, W_h), torch_gru(W_x, W_h)(x)[0])


def test_with_more_units_torch_s_gru_resets_after_the_product():
    x, W_x, W_h = numbers(T, B, d), numbers(3 * n, d), numbers(3 * n, n)
    before, after = gru_sequence(x, None, W_x, W_h), torch_gru(W_x, W_h)(x)[0]
    assert (before - after).abs().max() > 0.01
    (W_zx, W_rx, W_cx), (W_zh, W_rh, W_ch) = W_x.chunk(3), W_h.chunk(3)
    h = torch.zeros(B, n)
    for t in range(T):  # the library's equations, with its z turned around
        z, r = torch.sigmoid(x[t] @ W_zx.T + h @ W_zh.T), torch.sigmoid(x[t] @ W_rx.T + h @ W_rh.T)
        h = (1 - z) * h + z * torch.tanh(x[t] @ W_cx.T + r * (h @ W_ch.T))
        assert_equal(h, after[t])


def test_a_gru_s_state_is_a_mean_of_candidates():
    """With weights z(t) and what later steps keep, which sum to 1 less what is left of h(0): so |h| < 1."""
    x, h_0, W_x, W_h = numbers(T, B, d), torch.zeros(B, n), numbers(3 * n, d), 9 * numbers(3 * n, n)
    assert gru_sequence(x, h_0, W_x, W_h).abs().max() < 1
    z = torch.rand(T)
    weights = [z[t] * torch.prod(1 - z[t + 1 :]) for t in range(T)]
    assert_equal(sum(weights) + torch.prod(1 - z), torch.tensor(1.0))


def test_the_printed_peephole_lstm_never_reads_h():
    """What only h depends on, the output gate, changes no cell; in the LSTM it does."""
    for Model, changes in ((peepLSTM, False), (LSTM, True)):
        model = Model(T, d, n, 3, B)
        x = numbers(B, T, d)
        before = model.states(x)[1]
        with torch.no_grad():
            model.b.chunk(4)[3].add_(1)
        assert (not torch.equal(model.states(x)[1], before)) == changes


def test_the_printed_peephole_lstm_s_cells_are_never_negative():
    """Its candidate is a sigmoid: so 0 <= h < 1, and a cell falls only by being forgotten; with tanh it does not."""
    peephole, lstm = (M(T, d, n, 3, B, generator=torch.Generator().manual_seed(0)) for M in (peepLSTM, LSTM))
    h, c = peephole.states(20 * numbers(B, T, d))
    assert c.min() >= 0 and h.min() >= 0 and h.max() < 1
    assert lstm.states(20 * numbers(B, T, d))[1].min() < 0


def test_the_slowest_of_an_untrained_lstm_s_forget_gates():
    """Digits as numbers spread the gates: 0.73 on average, as the bias alone sets them, and above 0.8 in one unit."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        model = LSTM(100, 1, 128, 10, 1, generator=generator)
        digits = draw_palindromes(32, 100, generator)[:, :-1].double()
        h = torch.cat((torch.zeros(1, 32, 128), model.states(digits)[0][:-1]))
        W_fx, W_fh, b_f = (parameter.chunk(4)[2] for parameter in (model.W_x, model.W_h, model.b))
        f = torch.sigmoid(digits.T[:, :, None] * W_fx.T + h @ W_fh.T + b_f)  # (T, B, n)
        of_units = f.log().mean(dim=(0, 1)).exp()
        assert of_units.mean().item() == pytest.approx(0.73, abs=0.01) and 0.8 < of_units.max() < 0.86


@pytest.mark.parametrize("Model", [LSTM, biLSTM])
def test_reading_backwards_the_first_digit_is_the_last_one_read(Model):
    """Of an untrained network's gradient at its input, the share of a palindrome's first digit among 99."""
    generator = torch.Generator().manual_seed(0)
    model = Model(100, 10, 32, 10, B, generator=generator)
    palindromes = draw_palindromes(16, 100, generator)
    x = F.one_hot(palindromes[:, :-1], 10).double().requires_grad_()
    F.cross_entropy(model(x), palindromes[:, -1]).backward()
    share = x.grad.norm(dim=2)[:, 0].mean() / x.grad.norm(dim=2).amax(dim=1).mean()
    assert share > 0.3 if Model is biLSTM else share < 1e-6


def test_torch_s_bidirectional_lstm_is_ours_but_its_last_step_is_not_what_we_read():
    model, x = biLSTM(T, d, n, 3, B), numbers(B, T, d)
    library, output = model.to_torch()
    forwards, backwards = library(x.transpose(0, 1))[0].split(n, dim=2)
    assert_equal(output(torch.cat((forwards[-1], backwards[0]), dim=1)), model(x))
    assert (output(torch.cat((forwards[-1], backwards[-1]), dim=1)) - model(x)).abs().max() > 0.01
    one_symbol = library(x.transpose(0, 1)[-1:])[0].split(n, dim=2)[1]
    assert_equal(backwards[-1], one_symbol[0])


def test_of_the_printed_peephole_lstm_s_output_gates_only_the_last_one_counts():
    """No step reads h, and the output sees the last h only."""
    model = peepLSTM(T, d, n, 3, B)
    z = F.linear(numbers(B, T, d).transpose(0, 1), model.W_x, model.b).detach().requires_grad_()
    states = peephole_sequence(z, None, torch.eye(4 * n), model.W_c.detach(), torch.zeros(4 * n))[0]
    model.output(states[-1]).square().sum().backward()
    of_o = z.grad[..., 3 * n :]
    assert not of_o[:-1].any() and of_o[-1].all()


def test_parameter_counts_of_the_cells():
    assert [4 * 256 * 258, 3 * 256 * 257, 8 * 256 * 258, 4 * 256 * 2 + 3 * 256**2] == [264192, 197376, 528384, 198656]
    for inputs, units in ((1, 256), (10, 7)):
        counts = {
            LSTM: 4 * (units * inputs + units**2 + units),
            GRU: 3 * (units * inputs + units**2),
            biLSTM: 8 * (units * inputs + units**2 + units),
            peepLSTM: 4 * (units * inputs + units) + 3 * units**2,
        }
        for Model, count in counts.items():
            model = Model(6, inputs, units, 2, 1)
            assert sum(p.numel() for p in model.parameters()) - model.W_ph.numel() - model.b_p.numel() == count


def test_the_missing_number_is_what_the_sum_lacks():
    rows = RandomCombinationsDataset(9).draw(100, torch.Generator().manual_seed(0))
    assert torch.equal(9 * 8 // 2 - rows[:, :-1].sum(dim=1), rows[:, -1])


def test_baum_sweet_numbers_of_k_bits_are_a_fibonacci_number():
    """Their share falls by 1.618 / 2 a bit: it halves with every decimal digit."""
    counts = [
        sum(all(len(z) % 2 == 0 for z in re.findall("0+", f"{k:b}")) for k in range(2**bits, 2 ** (bits + 1)))
        for bits in range(14)
    ]
    assert counts[:6] == [1, 1, 2, 3, 5, 8] and all(a + b == c for a, b, c in zip(counts, counts[1:], counts[2:]))
    golden = (1 + math.sqrt(5)) / 2
    assert (golden / 2) ** math.log2(10) == pytest.approx(0.5, abs=0.01)


def test_three_states_decide_baum_sweet():
    """Even so far, within a block of odd length, failed: a memory of any length needs no more."""
    step = {("even", "1"): "even", ("even", "0"): "odd", ("odd", "0"): "even", ("odd", "1"): "failed"}
    for k in range(1, 2_000):
        state = "even"
        for bit in f"{k:b}":
            state = step.get((state, bit), "failed")
        assert (state == "even") == all(len(z) % 2 == 0 for z in re.findall("0+", f"{k:b}"))


def test_the_last_bit_of_a_binary_palindrome_is_its_first():
    """And it is 1 with probability (8/9 + 4/9) / 2: of the digits 0 ... 8 eight begin with a 1, four end in it."""
    rows = BinaryPalindromeDataset(10).draw(2_000, torch.Generator().manual_seed(0))
    first = torch.tensor([next(symbol for symbol in row if symbol) - 1 for row in rows[:, :-1].tolist()])
    assert torch.equal(first, rows[:, -1])
    digits = [f"{digit:b}" for digit in range(9)]
    begins, ends = (sum(text[place] == "1" for text in digits) for place in (0, -1))
    assert (begins, ends) == (8, 4)


def test_the_rest_of_a_binary_palindrome_hardly_tells_its_first_bit():
    """At T = 10: who knows all the other bits of a half names the first in 69 % of cases, who knows none in 67 %."""
    halves: dict[str, int] = {}
    for digits in itertools.product([f"{digit:b}" for digit in range(9)], repeat=5):
        for half in ("".join(digits), "".join(digits)[::-1]):
            halves[half] = halves.get(half, 0) + 1
    by_rest: dict[str, list[int]] = {}
    for half, number in halves.items():
        by_rest.setdefault(half[1:], [0, 0])[int(half[0])] += number
    assert sum(map(max, by_rest.values())) / sum(halves.values()) == pytest.approx(0.695, abs=0.0005)
    assert sum(counts[1] for counts in by_rest.values()) / sum(halves.values()) == pytest.approx(2 / 3)


def test_lengths_and_bounds_that_the_2020_handout_gets_wrong():
    assert (10**4).bit_length() == 14  # not 4 T - 1 = 15, nor the 4 T = 16 symbols after padding
    assert 10 * math.exp(4) == pytest.approx(546, abs=0.5)  # where 10^4 is meant
    assert f"{124:b}" == "1111100" and "".join(f"{digit:b}" for digit in (1, 2, 4)) == "110100"  # as printed, as drawn
    longest = max(len(f"{a:b}{b:b}{c:b}") for a, b, c in itertools.product(range(9), repeat=3))
    assert 2 * longest == 24 > 4 * 5 + 2  # T = 5: three eights do not fit
