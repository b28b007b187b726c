"""Palindromes: true ones, evenly distributed, the same from the same seed, held out when they are said to be."""

import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from part1.dataset import HeldOutSequences, PalindromeDataset, as_vectors, draw_palindromes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("T", [1, 2, 5, 6, 61])
def test_items_are_palindromes(T):
    dataset = PalindromeDataset(T)
    assert len(dataset) == sys.maxsize
    digits, target = dataset[7]
    assert digits.dtype == np.float32 and digits.shape == (T - 1,) and type(target) is int
    whole = [*digits, target]
    assert whole == whole[::-1]
    palindrome = dataset.generate_palindrome()
    assert palindrome.dtype == np.float32 and palindrome.shape == (T,) and (palindrome == palindrome[::-1]).all()


@pytest.mark.parametrize("T", [1, 2, 5, 6, 61])
def test_batches_are_palindromes(T):
    palindromes = draw_palindromes(1000, T, generator())
    assert palindromes.shape == (1000, T) and palindromes.dtype == torch.int64
    assert torch.equal(palindromes, palindromes.flip(1))


def test_digits_are_uniform():
    """Chi-squared over ten digits, 9 degrees of freedom: above 27.9 in one of a thousand fair draws."""
    batch = draw_palindromes(20_000, 5, generator())[:, :3].flatten()
    dataset = PalindromeDataset(5, seed=0)
    items = torch.from_numpy(np.concatenate([dataset.generate_palindrome()[:3] for _ in range(5000)])).long()
    for digits in (batch, items):
        counts, expected = torch.bincount(digits, minlength=10).double(), len(digits) / 10
        assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_items_depend_on_seed_and_index_only():
    first, second, other, fresh = (PalindromeDataset(11, seed) for seed in (3, 3, 4, None))
    indices = [5, 0, 5, 2**40]
    assert all(np.array_equal(first[i][0], second[i][0]) for i in indices)
    assert not all(np.array_equal(first[i][0], other[i][0]) for i in indices)
    assert not all(np.array_equal(PalindromeDataset(11)[i][0], fresh[i][0]) for i in indices)


def test_loader_workers_change_nothing():
    def batches(num_workers):
        loader = DataLoader(PalindromeDataset(11, seed=1), batch_size=8, num_workers=num_workers)
        return torch.cat([digits for (digits, _), _ in zip(loader, range(4))])

    assert torch.equal(batches(0), batches(2))
    assert len(batches(0).unique(dim=0)) == 32


def test_batches_depend_on_the_generator_only():
    assert torch.equal(draw_palindromes(50, 9, generator(1)), draw_palindromes(50, 9, generator(1)))
    assert not torch.equal(draw_palindromes(50, 9, generator(1)), draw_palindromes(50, 9, generator(2)))


@pytest.mark.parametrize("T", [11, 60])
def test_held_out_palindromes_are_never_drawn(T):
    held_out = HeldOutSequences(PalindromeDataset(T), 2_000, 10_000, generator())
    assert held_out.exclusive
    assert held_out.validation.shape == (2_000, T) and held_out.test.shape == (10_000, T)
    kept = torch.cat((held_out.validation, held_out.test))
    assert len(kept.unique(dim=0)) == 12_000
    drawn = held_out.draw_others(300_000, generator(1))
    assert torch.equal(drawn, drawn.flip(1))
    kept_set = set(map(tuple, kept.tolist()))
    assert not kept_set & set(map(tuple, drawn.tolist()))
    if T == 11:  # the check can fail: plain draws of this length do collide
        assert kept_set & set(map(tuple, draw_palindromes(20_000, T, generator(1)).tolist()))


def test_short_palindromes_are_too_few_to_hold_out():
    held_out = HeldOutSequences(PalindromeDataset(5), 2_000, 10_000, generator())
    assert not held_out.exclusive
    assert held_out.validation.shape == (2_000, 5) and held_out.test.shape == (10_000, 5)
    assert held_out.draw_others(64, generator()).shape == (64, 5)


def test_held_out_targets_stay_uniform():
    targets = HeldOutSequences(PalindromeDataset(11), 2_000, 10_000, generator()).test[:, -1]
    counts = torch.bincount(targets, minlength=10).double()
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9


def test_as_vectors():
    digits = torch.tensor([[3.0, 0.0, 9.0]])
    assert torch.equal(as_vectors(digits, 1), digits.unsqueeze(2))
    assert as_vectors(digits, 10).argmax(dim=2).tolist() == [[3, 0, 9]]
    assert as_vectors(digits, 10).sum().item() == 3


def test_a_palindrome_has_a_digit():
    with pytest.raises(ValueError, match="at least 1"):
        PalindromeDataset(0)
