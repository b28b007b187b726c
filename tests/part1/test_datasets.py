"""The data sets of UvA 2020: each sequence checked from its definition, shares of classes, seeds, held-out sets."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from part1.dataset import HeldOutSequences
from part1.datasets import BaumSweetSequenceDataset, BinaryPalindromeDataset, RandomCombinationsDataset
from tests.harness import ENVIRONMENT, ROOT

ALL = pytest.mark.parametrize("Dataset", [RandomCombinationsDataset, BaumSweetSequenceDataset, BinaryPalindromeDataset])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def written(symbols):
    """The bits of symbols, whose padding must stand on the left."""
    text = "".join("_01"[symbol] for symbol in symbols).lstrip("_")
    assert "_" not in text
    return text


@pytest.mark.parametrize("T", [1, 2, 6, 15])
def test_random_combinations_lack_their_target(T):
    for row in RandomCombinationsDataset(T).draw(200, generator()).tolist():
        assert sorted(row) == list(range(T))


def test_random_combinations_are_evenly_distributed():
    """Chi-squared over 24 orders, 23 degrees of freedom: above 49.7 in one of a thousand fair draws."""
    rows = RandomCombinationsDataset(4).draw(24_000, generator())
    _, counts = rows.unique(dim=0, return_counts=True)
    assert len(counts) == 24 and ((counts - 1000) ** 2 / 1000).sum() < 49.7


@pytest.mark.parametrize("T", [1, 2, 4, 6, 9])
def test_baum_sweet_s_targets_follow_the_definition(T):
    for row in BaumSweetSequenceDataset(T).draw(300, generator()).tolist():
        assert len(row) == 4 * T + 1
        bits = written(row[:-1])
        assert bits[0] == "1" and 10 <= int(bits, 2) <= 10**T
        assert row[-1] == all(len(block) % 2 == 0 for block in re.findall("0+", bits))


@pytest.mark.parametrize(("T", "share"), [(4, 0.82), (5, 0.67), (6, 0.50)])
def test_the_share_of_baum_sweet_s_class_1(T, share):
    """As counted: the class 1 among 10 ... 10^T against the rest, kept with the handout's probability."""
    ones = sum(all(len(z) % 2 == 0 for z in re.findall("0+", f"{k:b}")) for k in range(10, 10**T + 1))
    counted = ones / (ones + 0.016724 * (10**T - 9 - ones))
    assert counted == pytest.approx(share, abs=0.006)
    drawn = BaumSweetSequenceDataset(T).draw(20_000, generator())[:, -1].double().mean().item()
    assert drawn == pytest.approx(counted, abs=4 * math.sqrt(0.25 / 20_000))


@pytest.mark.parametrize("T", [1, 2, 3, 5, 6, 10, 11, 20])
def test_binary_palindromes_are_palindromes_of_the_handout_s_digits(T):
    D = math.ceil(T / 2)
    digit = "(0|1|10|11|100|101|110|111|1000)"
    for row in BinaryPalindromeDataset(T).draw(300, generator()).tolist():
        assert len(row) == 4 * T + 2 and row[-1] in (0, 1)
        bits = written(row[:-1]) + str(row[-1])
        half = bits[: len(bits) // 2]
        assert len(bits) % 2 == 0 and bits == half + half[::-1]
        assert re.fullmatch(digit * D, half) or re.fullmatch(digit * D, half[::-1])


def test_binary_palindromes_are_as_frequent_as_by_the_definition():
    """T = 4, two digits: every half's probability counted over 81 pairs and both directions; chi-squared."""
    expected: dict[str, float] = {}
    for first in range(9):
        for second in range(9):
            half = f"{first:b}{second:b}"
            for text in (half, half[::-1]):
                expected[text] = expected.get(text, 0) + 1 / 162
    found = dict.fromkeys(expected, 0)
    for row in BinaryPalindromeDataset(4).draw(32_400, generator()).tolist():
        bits = written(row[:-1]) + str(row[-1])
        found[bits[: len(bits) // 2]] += 1
    chi_squared = sum((found[text] - 32_400 * p) ** 2 / (32_400 * p) for text, p in expected.items())
    freedom = len(expected) - 1
    assert chi_squared < freedom + 4 * math.sqrt(2 * freedom)


def test_two_of_three_binary_palindromes_end_in_1():
    """8 of 9 first digits begin with a 1, 4 of 9 last ones end in it."""
    drawn = BinaryPalindromeDataset(8).draw(20_000, generator())[:, -1].double().mean().item()
    assert drawn == pytest.approx((8 / 9 + 4 / 9) / 2, abs=0.014)


def test_the_longest_palindrome_of_an_odd_length_does_not_fit():
    """Eights alone: 4 (T + 1) symbols, where the handout has 4 T + 2."""
    assert len("1000" * 3) * 2 == 4 * 5 + 4
    found = {written(row[:-1]) + str(row[-1]) for row in BinaryPalindromeDataset(5).draw(40_000, generator()).tolist()}
    assert max(map(len, found)) == 22 and "1000" * 3 + "0001" * 3 not in found
    even = {written(row[:-1]) + str(row[-1]) for row in BinaryPalindromeDataset(4).draw(4_000, generator()).tolist()}
    assert "10001000" + "00010001" in even


@ALL
def test_items_have_the_handout_s_shapes_and_depend_on_seed_and_index_only(Dataset):
    first, second, other = (Dataset(6, seed) for seed in (3, 3, 4))
    shapes = {RandomCombinationsDataset: (5,), BaumSweetSequenceDataset: (1, 24), BinaryPalindromeDataset: (25, 1)}
    for index in (5, 0, 5, 2**40):
        (x, target), (again, same) = first[index], second[index]
        assert x.shape == shapes[Dataset] and x.dtype == np.int64 and type(target) is int
        assert np.array_equal(x, again) and target == same
        assert 0 <= x.min() and x.max() < first.vocabulary_size and 0 <= target < first.num_classes
    assert any(not np.array_equal(first[k][0], other[k][0]) for k in range(9))
    assert any(not np.array_equal(Dataset(6)[k][0], Dataset(6)[k][0]) for k in range(9))
    assert len(first) == sys.maxsize


@ALL
def test_loader_workers_change_nothing(Dataset):
    def batches(num_workers):
        loader = DataLoader(Dataset(7, seed=1), batch_size=8, num_workers=num_workers)
        return torch.cat([x for (x, _), _ in zip(loader, range(3))])

    assert torch.equal(batches(0), batches(2))


@ALL
def test_held_out_sequences_are_never_drawn(Dataset):
    dataset = Dataset(20 if Dataset is BinaryPalindromeDataset else 10)
    held_out = HeldOutSequences(dataset, 200, 800, generator())
    assert held_out.exclusive
    kept = {tuple(row) for row in torch.cat((held_out.validation, held_out.test)).tolist()}
    assert len(kept) == 1_000
    assert not kept & {tuple(row) for row in held_out.draw_others(20_000, generator(1)).tolist()}


@ALL
def test_few_sequences_are_not_held_out(Dataset):
    held_out = HeldOutSequences(Dataset(4), 2_000, 10_000, generator())
    assert not held_out.exclusive and len(held_out.test) == 10_000


@ALL
@pytest.mark.parametrize("T", [0, -3])
def test_impossible_lengths_are_refused(Dataset, T):
    with pytest.raises(ValueError, match=f"the length T of a {Dataset.__name__} must be .*, not {T}"):
        Dataset(T)


def test_a_number_must_fit_an_int64():
    with pytest.raises(ValueError, match="must be from 1 to 18, not 19"):
        BaumSweetSequenceDataset(19)
    assert BaumSweetSequenceDataset(18).draw(3, generator()).shape == (3, 73)


def test_graders_import_them_from_inside_the_part():
    names = "RandomCombinationsDataset, BaumSweetSequenceDataset, BinaryPalindromeDataset, PalindromeDataset"
    code = (
        f"from datasets import {names}; from gru import GRU; from bi_lstm import biLSTM; from peep_lstm import peepLSTM"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "part1", env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 0, done.stderr
