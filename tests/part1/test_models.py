"""VanillaRNN, LSTM and NumPyLSTM: the handout's calls, and equality with torch.nn."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from part1.dataset import draw_palindromes
from part1.lstm import LSTM
from part1.numpy_module import NumPyLSTM
from part1.vanilla_rnn import VanillaRNN

ALL = pytest.mark.parametrize("Model", [VanillaRNN, LSTM, NumPyLSTM])
LIBRARY = {VanillaRNN: nn.RNN, LSTM: nn.LSTM}


def build(Model, input_dim=1, num_hidden=16, seed=0, **options):
    return Model(10, input_dim, num_hidden, 10, 128, generator=torch.Generator().manual_seed(seed), **options)


def digits(num, length, seed=1):
    return torch.randint(10, (num, length), generator=torch.Generator().manual_seed(seed)).float()


@ALL
@pytest.mark.parametrize("input_dim", [1, 10])
def test_any_batch_size_and_length(Model, input_dim):
    model = build(Model, input_dim)
    for num, length in [(1, 1), (3, 10), (200, 4), (2, 37)]:
        assert model(digits(num, length)).shape == (num, 10)


@ALL
def test_vectors_and_digits_are_the_same_input(Model):
    x = digits(4, 6)
    torch.testing.assert_close(build(Model, 1)(x), build(Model, 1)(x.unsqueeze(2)))
    torch.testing.assert_close(build(Model, 10)(x), build(Model, 10)(F.one_hot(x.long(), 10).float()))
    torch.testing.assert_close(build(Model, 10)(x), build(Model, 10)(x.long()))


@ALL
def test_a_row_decides_its_own_logits_only(Model):
    """And its first digit matters: time is the second axis, the batch the first."""
    model, x = build(Model, 10), digits(5, 8)
    changed = x.clone()
    changed[2, 0] = (changed[2, 0] + 5) % 10
    difference = (model(changed) - model(x)).abs().amax(dim=1)
    assert difference[2] > 0
    assert difference[[0, 1, 3, 4]].max() == 0


@ALL
def test_repeated_calls_agree(Model):
    model, x = build(Model), digits(5, 8)
    assert torch.equal(model(x), model(x))


@ALL
def test_the_whole_pass_equals_the_stepwise_pass(Model):
    model, x = build(Model, 10).double(), digits(3, 7)
    whole, state, steps = model.states(x), None, []
    for t in range(7):
        result = model.states(x[:, t : t + 1], state)
        h, state = (result, result[-1]) if Model is VanillaRNN else (result[0], (result[0][-1], result[1]))
        steps.append(h)
    torch.testing.assert_close(torch.cat(steps), whole if Model is VanillaRNN else whole[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize(("Model", "gates"), [(VanillaRNN, 1), (LSTM, 4)])
@pytest.mark.parametrize(("d", "n"), [(1, 128), (10, 7)])
def test_parameter_count_is_the_formula_of_question_1_5b(Model, gates, d, n):
    model = build(Model, d, n)
    assert sum(p.numel() for p in model.parameters()) == gates * (n * d + n * n + n) + 10 * n + 10


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_to_torch_computes_the_same_values_and_gradients(Model):
    model = build(Model, 10).double()
    recurrence, output = model.to_torch()
    assert type(recurrence) is LIBRARY[Model]
    x = F.one_hot(digits(6, 9).long(), 10).double().requires_grad_()
    x_too = x.detach().clone().requires_grad_()
    logits, expected = model(x), output(recurrence(x_too.transpose(0, 1))[0][-1])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    target = torch.arange(6)
    F.cross_entropy(logits, target).backward()
    F.cross_entropy(expected, target).backward()
    torch.testing.assert_close(x.grad, x_too.grad, rtol=0, atol=1e-10)
    theirs = Model.from_torch(*_gradients_as_weights(recurrence, output))
    ours = dict(model.named_parameters())
    for name, gradient in theirs.named_parameters():
        torch.testing.assert_close(ours[name].grad, gradient.detach(), rtol=0, atol=1e-10)


def _gradients_as_weights(recurrence, output):
    """Move every gradient into its weight, so that from_torch renames gradients too; b_hh's equals b_ih's, keep one."""
    for parameter in [*recurrence.parameters(), *output.parameters()]:
        parameter.data = parameter.grad
    recurrence.bias_hh_l0.data.zero_()
    return recurrence, output


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_from_torch_undoes_to_torch_and_adds_both_biases(Model):
    model = build(Model, 10)
    again = Model.from_torch(*model.to_torch())
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    library, output = LIBRARY[Model](10, 5), nn.Linear(5, 10)
    x = F.one_hot(digits(4, 6).long(), 10).float()
    expected = output(library(x.transpose(0, 1))[0][-1])
    torch.testing.assert_close(Model.from_torch(library, output)(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_conversion_keeps_all_digits_of_float64(Model):
    model = build(Model, 10).double()
    for parameter in model.parameters():
        parameter.data += 1e-12 * torch.rand_like(parameter)
    again = Model.from_torch(*model.to_torch())
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_from_torch_without_biases(Model):
    library, output = LIBRARY[Model](10, 5, bias=False), nn.Linear(5, 10, bias=False)
    x = F.one_hot(digits(4, 6).long(), 10).float()
    expected = output(library(x.transpose(0, 1))[0][-1])
    torch.testing.assert_close(Model.from_torch(library, output)(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}])
def test_from_torch_refuses_other_forms(Model, options):
    with pytest.raises(ValueError, match="one-layer"):
        Model.from_torch(LIBRARY[Model](10, 5, **options), nn.Linear(5, 10))


@ALL
def test_the_initial_loss_is_near_log_10(Model):
    palindromes = draw_palindromes(2000, 11, torch.Generator().manual_seed(0))
    for init in Model.INITS:
        loss = F.cross_entropy(build(Model, 10, 128, init=init)(palindromes[:, :-1]), palindromes[:, -1])
        assert abs(loss.item() - math.log(10)) < (0.5 if init == "kaiming" else 0.2), init


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_one_batch_can_be_overfitted(Model):
    model = build(Model, 10, 64)
    palindromes = draw_palindromes(32, 7, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(200):
        loss = F.cross_entropy(model(palindromes[:, :-1]), palindromes[:, -1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


def test_the_numpy_lstm_equals_the_torch_one():
    ours, numpy_model = build(LSTM, 10).double(), build(NumPyLSTM, 10).double()
    x, target = digits(6, 9), torch.arange(6)
    F.cross_entropy(ours(x), target).backward()
    F.cross_entropy(numpy_model(x), target).backward()
    for (name, p), q in zip(ours.named_parameters(), numpy_model.parameters()):
        torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@ALL
def test_default_init_is_uniform_and_the_lstm_adds_a_forget_bias(Model):
    parameters = dict(build(Model, 10, 400).named_parameters())
    if Model is not VanillaRNN:
        parameters["b"] = parameters["b"] - torch.cat((torch.zeros(800), torch.ones(400), torch.zeros(400)))
    for name, values in parameters.items():
        assert values.abs().max() <= 0.05 + 1e-6, name  # 1/sqrt(400)
        if values.numel() > 300:
            assert abs(values.std().item() - 0.05 / math.sqrt(3)) < 0.002, name


@pytest.mark.parametrize("Model", [VanillaRNN, LSTM])
def test_orthogonal_init_keeps_lengths(Model):
    model = build(Model, 10, 16, init="orthogonal")
    for W in (model.W_hh if Model is VanillaRNN else model.W_h).detach().split(16):
        torch.testing.assert_close(W @ W.t(), torch.eye(16), rtol=0, atol=1e-5)


def test_orthogonal_init_keeps_the_state_where_tanh_is_linear():
    """Whatever the length: before training, no unit of the last state is near saturation."""
    for T in (10, 400):
        model = VanillaRNN(T, 10, 128, 10, 1, init="orthogonal", generator=torch.Generator().manual_seed(0))
        last = model.states(digits(50, T - 1))[-1]
        assert last.abs().max() < 0.3 and last.norm(dim=1).mean() > 0.1, T


def test_identity_init():
    model = build(VanillaRNN, init="identity")
    assert torch.equal(model.W_hh.detach(), torch.eye(16)) and not model.b_h.any()


def test_bistable_units_keep_the_sign_that_the_first_digits_gave_them():
    model = VanillaRNN(200, 10, 128, 10, 1, init="bistable", generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.W_hh.detach(), 2 * torch.eye(128)) and not model.b_h.any()
    states = model.states(digits(50, 199)).detach()
    assert torch.equal(states[20].sign(), states[-1].sign())
    assert states[-1].abs().min() > 0.9


def test_chrono_init_spreads_the_forgetting_times():
    model = LSTM(101, 10, 2000, 10, 1, init="chrono", generator=torch.Generator().manual_seed(0))
    b_g, b_i, b_f, b_o = model.b.detach().chunk(4)
    assert torch.equal(b_i, -b_f) and not b_g.any() and not b_o.any()
    times = b_f.exp()
    assert 1 <= times.min() < 2 and 99 < times.max() <= 100.001
    assert abs(times.mean() - 50.5) < 2  # U(1, 100)


@ALL
def test_same_generator_same_weights(Model):
    first, second, other = build(Model, seed=3), build(Model, seed=3), build(Model, seed=4)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))
    assert not any(torch.equal(p, q) for p, q in zip(first.parameters(), other.parameters()))


@ALL
def test_bad_input_is_named(Model):
    with pytest.raises(ValueError, match="from 0 to 9"):
        build(Model, 10)(torch.tensor([[3.0, 10.0]]))
    with pytest.raises(ValueError, match="must be"):
        build(Model, 10)(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="initialisations"):
        build(Model, init="zeros")
