"""GRU, peephole and bidirectional LSTM: the calls of UvA 2020, the equations, and what torch.nn has of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from part1.bi_lstm import BidirectionalLSTM, biLSTM
from part1.datasets import BaumSweetSequenceDataset, BinaryPalindromeDataset, RandomCombinationsDataset
from part1.gru import GRU
from part1.lstm import LSTM
from part1.numpy_module import NumPyLSTM
from part1.peep_lstm import PeepholeLSTM, peepLSTM
from part1.vanilla_rnn import VanillaRNN

NEW = pytest.mark.parametrize("Model", [GRU, peepLSTM, biLSTM])
ALL = pytest.mark.parametrize("Model", [VanillaRNN, LSTM, NumPyLSTM, GRU, peepLSTM, biLSTM])


def build(Model, input_dim=10, num_hidden=8, num_classes=10, **options):
    generator = torch.Generator().manual_seed(0)
    return Model(10, input_dim, num_hidden, num_classes, 128, generator=generator, **options).double()


def digits(num, length, high=10):
    return torch.randint(high, (num, length), generator=torch.Generator().manual_seed(1))


def test_the_handout_s_names():
    assert (biLSTM, peepLSTM) == (BidirectionalLSTM, PeepholeLSTM)


@NEW
@pytest.mark.parametrize("recurrence", ["loop", "bptt"])
def test_any_batch_size_and_length(Model, recurrence):
    model = build(Model, recurrence=recurrence)
    for num, length in [(1, 1), (3, 10), (40, 4), (2, 37)]:
        assert model(digits(num, length)).shape == (num, 10)


@NEW
@pytest.mark.parametrize("input_dim", [1, 10])
def test_the_fast_way_computes_the_equations(Model, input_dim):
    found = []
    for recurrence in ("loop", "bptt", "auto"):
        model = build(Model, input_dim, recurrence=recurrence)
        logits = model(digits(5, 9))
        loss = F.cross_entropy(logits, digits(5, 1)[:, 0])
        found.append((logits, *torch.autograd.grad(loss, list(model.parameters()))))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12)


@NEW
def test_a_row_decides_its_own_logits_only(Model):
    model, x = build(Model), digits(5, 8)
    changed = x.clone()
    changed[2, 0] = (changed[2, 0] + 5) % 10
    difference = (model(changed) - model(x)).abs().amax(dim=1)
    assert difference[2] > 0 and difference[[0, 1, 3, 4]].max() == 0


@pytest.mark.parametrize("Model", [GRU, peepLSTM])
def test_the_whole_pass_equals_the_stepwise_pass(Model):
    model, x = build(Model), digits(3, 7)
    whole, state, steps = model.states(x), None, []
    for t in range(7):
        found = model.states(x[:, t : t + 1], state)
        h, state = found if Model is peepLSTM else (found, found[-1])
        steps.append(h)
    torch.testing.assert_close(torch.cat(steps), whole[0] if Model is peepLSTM else whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("d", "n"), [(1, 16), (10, 7)])
def test_parameter_counts(d, n):
    """Beside K n + K of the output, with 2 n inputs for two directions."""
    cells = {GRU: 3 * (n * d + n * n), peepLSTM: 4 * (n * d + n) + 3 * n * n, biLSTM: 8 * (n * d + n * n + n)}
    for Model, cell in cells.items():
        output = 10 * n * (2 if Model is biLSTM else 1) + 10
        assert sum(p.numel() for p in build(Model, d, n).parameters()) == cell + output


@ALL
def test_symbols_are_embedded(Model):
    """In the shapes of UvA 2020's items, in a batch; the same as their embeddings given as vectors."""
    model = build(Model, 4, num_classes=2, vocabulary_size=3)
    x = digits(5, 9, 3)
    logits = model(x)
    for other in (x.unsqueeze(1), x.unsqueeze(2), x.float()):
        assert torch.equal(model(other), logits)
    plain = build(Model, 4, num_classes=2)
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name != "embedding"})
    torch.testing.assert_close(plain(model.embedding[x]), logits, rtol=0, atol=1e-14)
    logits.sum().backward()
    assert model.embedding.grad.abs().min() > 0


@ALL
def test_unknown_symbols_and_other_shapes_are_refused(Model):
    model = build(Model, 4, vocabulary_size=3)
    for x in (torch.tensor([[0, 3]]), torch.tensor([[-1, 0]]), torch.tensor([[0.5, 1.0]])):
        with pytest.raises(ValueError, match="symbols must be whole, from 0 to 2"):
            model(x)
    for shape in ((4,), (2, 3, 4), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match=r"the symbols must be \(batch, length\), not"):
            model(torch.zeros(shape))


@ALL
def test_log_probabilities_are_those_of_the_logits(Model):
    logits, log_probs = (build(Model, log_probs=wanted)(digits(4, 6)) for wanted in (False, True))
    torch.testing.assert_close(log_probs, logits.log_softmax(dim=1), rtol=0, atol=1e-14)
    assert not torch.allclose(logits, log_probs)


@ALL
def test_unknown_initialisations_and_ways_are_named(Model):
    with pytest.raises(ValueError, match=f"{Model.__name__} has the initialisations default, .*kaiming, not magic"):
        build(Model, init="magic")
    with pytest.raises(ValueError, match=r"the recurrence is auto, .* not magic"):
        build(Model, recurrence="magic")


@ALL
def test_kaiming_s_weights_have_the_variance_of_two_over_their_inputs(Model):
    model = build(Model, 16, 64, init="kaiming", vocabulary_size=50)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert not parameter.any(), name
        else:
            variance = 1 if name == "embedding" else 2 / parameter.shape[1]
            assert parameter.var().item() == pytest.approx(variance, rel=0.2), name


@NEW
def test_default_weights_are_uniform_and_lstms_remember_at_first(Model):
    model = build(Model, 10, 64)
    for name, parameter in model.named_parameters():
        values = parameter.detach().clone()
        if Model is biLSTM and name.endswith(".b"):
            values.chunk(4)[2].sub_(1)
        assert values.abs().max() <= 0.125 and values.std().item() == pytest.approx(0.125 / 3**0.5, rel=0.25), name


def test_the_bidirectional_lstm_equals_torch_nn_and_comes_back():
    model = build(biLSTM)
    library, output = model.to_torch()
    assert library.bidirectional
    x = F.one_hot(digits(6, 9), 10).double()
    h, _ = library(x.transpose(0, 1))
    expected = output(torch.cat((h[-1, :, :8], h[0, :, 8:]), dim=1))
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    target = torch.arange(6)
    ours = torch.autograd.grad(F.cross_entropy(model(x), target), list(model.parameters()))
    F.cross_entropy(expected, target).backward()
    for parameter in [*library.parameters(), *output.parameters()]:
        parameter.data = parameter.grad
    library.bias_hh_l0.data.zero_()
    library.bias_hh_l0_reverse.data.zero_()
    theirs = [parameter.detach() for parameter in biLSTM.from_torch(library, output).parameters()]
    torch.testing.assert_close(list(ours), theirs, rtol=0, atol=1e-10)


def test_the_library_s_bidirectional_lstm_with_both_biases():
    library, output = nn.LSTM(10, 5, bidirectional=True).double(), nn.Linear(10, 10).double()
    x = F.one_hot(digits(4, 6), 10).double()
    h, _ = library(x.transpose(0, 1))
    expected = output(torch.cat((h[-1, :, :5], h[0, :, 5:]), dim=1))
    torch.testing.assert_close(biLSTM.from_torch(library, output)(x), expected, rtol=0, atol=1e-12)
    for other in (nn.LSTM(10, 5), nn.LSTM(10, 5, 2, bidirectional=True), nn.GRU(10, 5, bidirectional=True)):
        with pytest.raises(ValueError, match=r"only a one-layer, bidirectional nn\.LSTM"):
            biLSTM.from_torch(other, output)


def test_each_direction_is_the_lstm_of_part_1():
    model, x = build(biLSTM), digits(4, 7)
    for cell, order, states in zip((model.forwards, model.backwards), (x, x.flip(1)), model.states(x)):
        lstm = build(LSTM)
        lstm.load_state_dict({**lstm.state_dict(), **cell.state_dict()})
        h = lstm.states(order)[0]
        torch.testing.assert_close(states, h if cell is model.forwards else h.flip(0), rtol=0, atol=1e-14)


def test_items_of_the_data_sets_go_through_every_model():
    for Dataset in (RandomCombinationsDataset, BaumSweetSequenceDataset, BinaryPalindromeDataset):
        dataset = Dataset(4, seed=0)
        loader = torch.utils.data.DataLoader(dataset, batch_size=6)
        x, target = next(iter(loader))
        for Model in (LSTM, GRU, biLSTM, peepLSTM):
            model = Model(4, 1, 8, dataset.num_classes, 6, vocabulary_size=dataset.vocabulary_size, log_probs=True)
            F.nll_loss(model(x), target).backward()
