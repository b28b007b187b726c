"""The variants of benchmarks/part1.py compute the same function, and its timing leaves part1/train.py as it was."""

import pytest
import torch
from torch.autograd import grad

from benchmarks.loops import FROM_ZEROS
from benchmarks.part1 import model_variants, train
from part1 import vanilla_rnn
from recurrence.lstm import lstm_states
from recurrence.rnn import rnn_states

T, B, n = 5, 3, 4


@pytest.mark.parametrize("gates, loop", [(1, FROM_ZEROS["RNN"]), (4, FROM_ZEROS["LSTM"])])
def test_the_plain_loops_compute_our_recurrences(gates, loop):
    z = torch.randn(T, B, gates * n, dtype=torch.float64, requires_grad=True)
    W = torch.randn(gates * n, n, dtype=torch.float64, requires_grad=True)
    ours = rnn_states(z, z.new_zeros(B, n), W) if gates == 1 else lstm_states(z, None, None, W, "bptt")[0]
    torch.testing.assert_close(loop(z, W), ours)
    for found, expected in zip(grad(loop(z, W).sum(), (z, W)), grad(ours.sum(), (z, W))):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gates, loop", [(1, FROM_ZEROS["RNN"]), (4, FROM_ZEROS["LSTM"])])
def test_models_side_by_side_get_their_own_gradients(gates, loop):
    W, gradients = torch.nn.Parameter(torch.randn(3, gates * n, n)), []
    for variant in model_variants(loop, torch.randn(3, T, B, gates * n), W).values():
        variant()
        gradients.append(W.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.parametrize("library", [False, True])
def test_the_parts_of_a_training_add_up_and_nothing_stays_patched(library):
    Model, forward = vanilla_rnn.VanillaRNN, vanilla_rnn.VanillaRNN.forward
    rate, shares = train("RNN", library, train_steps=20, threads=1)
    assert rate > 0 and shares.pop("all") == 100 and sum(shares.values()) == pytest.approx(100)
    assert {"forward", "backward", "optimizer", "evaluation", "checkpoints"} <= shares.keys()
    assert min(shares.values()) > 0
    assert vanilla_rnn.VanillaRNN is Model and Model.forward is forward
