"""Palindromes, whose last digit can be named only by remembering the first.

A palindrome of length T is decided by its left half, ceil(T/2) digits. The network reads the first T-1 digits and must
name the last one; the digits in between are irrelevant to the answer and merely disturb the memory.

* `PalindromeDataset`: one palindrome for each item, as the handout's graders call it.
* `draw_palindromes`, `HeldOutSequences`: whole batches at once, as `train.py` uses them, also of the data sets in
  `datasets.py`.
"""

import math
import secrets
import sys
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

COUNTED_DIGITS = 18  # of a left half, when palindromes are counted: 10^18 of them are many


class PalindromeDataset(torch.utils.data.Dataset):
    """Endless data set of random palindromes.

    Item i depends on (seed, i) alone, so that loader workers, however many, never repeat or reorder anything.

    Args:
        seq_length: the palindrome's length T >= 1, target digit included.
        seed: of all items; None draws one from the operating system.

    Attributes:
        num_classes: number of targets.
        num_different: how many palindromes of this length there are, or many.
    """

    def __init__(self, seq_length: int, seed: int | None = None):
        if seq_length < 1:
            raise ValueError(f"a palindrome has at least 1 digit, not {seq_length}")
        self.seq_length = seq_length
        self.seed = secrets.randbits(128) if seed is None else seed
        self.num_classes = 10
        self.num_different = 10 ** min(math.ceil(seq_length / 2), COUNTED_DIGITS)
        self._generator = np.random.default_rng(self.seed)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return (T-1,) float32 digits and the last digit."""
        palindrome = self._palindrome(np.random.default_rng((self.seed, index)))
        return palindrome[:-1], int(palindrome[-1])

    def generate_palindrome(self) -> np.ndarray:
        """Return the next (T,) float32 palindrome of the data set's own stream."""
        return self._palindrome(self._generator)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Return (num, T) int64 palindromes, drawn in one call from a CPU generator."""
        return draw_palindromes(num, self.seq_length, generator)

    def _palindrome(self, generator: np.random.Generator) -> np.ndarray:
        left = generator.integers(0, 10, math.ceil(self.seq_length / 2)).astype(np.float32)
        return np.concatenate((left, left[: self.seq_length // 2][::-1]))


def draw_palindromes(num: int, seq_length: int, generator: torch.Generator) -> Tensor:
    """Return (num, seq_length) int64 palindromes, drawn in one call from a CPU generator."""
    left = torch.randint(10, (num, math.ceil(seq_length / 2)), generator=generator)
    return torch.cat((left, left[:, : seq_length // 2].flip(1)), dim=1)


class BatchDataset(Protocol):
    """What training needs of a data set: (num, L) int64 sequences drawn at once, each with its target as the last."""

    seq_length: int
    num_classes: int
    num_different: int

    def __init__(self, seq_length: int, seed: int | None = None): ...

    def draw(self, num: int, generator: torch.Generator) -> Tensor: ...


class HeldOutSequences:
    """Sequences for validation and test, and training batches that never contain one of them.

    With fewer than 20 different sequences for each one held out, holding out is off (`exclusive` is False): then the
    sets are plain random draws, and collisions are ignored, as the handouts do.

    Args:
        dataset: what is drawn from.
        num_validation, num_test: how many to hold out, all different from each other where `exclusive`.
        generator: a CPU generator that draws them.

    Attributes:
        validation: (num_validation, L) int64, targets last.
        test: (num_test, L) int64, targets last.
    """

    def __init__(self, dataset: BatchDataset, num_validation: int, num_test: int, generator: torch.Generator):
        num = num_validation + num_test
        self.dataset, self.exclusive = dataset, dataset.num_different >= 20 * num
        self._codes = torch.empty(0, dtype=torch.int64)
        held_out = dataset.draw(num, generator)
        if self.exclusive:
            while len(self._codes) < num:
                held_out = torch.cat((held_out, dataset.draw(num, generator)))
                _, first_places = np.unique(hashed(held_out), return_index=True)  # of each different sequence
                held_out = held_out[torch.from_numpy(np.sort(first_places))][:num]
                self._codes = hashed(held_out).sort().values
        self.validation, self.test = held_out.split((num_validation, num_test))

    def draw_others(self, num: int, generator: torch.Generator) -> Tensor:
        """Return (num, L) int64 sequences for training, none of which is held out."""
        sequences = self.dataset.draw(num, generator)
        while self.exclusive:
            code = hashed(sequences)
            place = torch.searchsorted(self._codes, code).clamp_(max=len(self._codes) - 1)
            held_out = self._codes[place] == code
            if not held_out.any():
                break
            sequences[held_out] = self.dataset.draw(int(held_out.sum()), generator)
        return sequences


def hashed(sequences: Tensor) -> Tensor:
    """Return (num,) int64, a polynomial modulo 2^64 of each row of (num, L) integers: the same for the same row."""
    multiplier, code = 6364136223846793005, sequences[:, 0].clone()
    for column in sequences.t()[1:]:
        code = code * multiplier + column + 1
    return code


def as_vectors(digits: Tensor, input_dim: int) -> Tensor:
    """Turn what a model is called on into (B, T, input_dim) float vectors.

    (B, T) digits become one-hot vectors, or stay numbers where `input_dim` is 1; (B, T, input_dim) vectors pass
    unchanged.

    Raises:
        ValueError: another shape, or a digit that is not whole or not below `input_dim`.
    """
    if digits.dim() == 3 and digits.shape[2] == input_dim:
        return digits
    if digits.dim() != 2:
        raise ValueError(
            f"the input must be (batch, length) or (batch, length, {input_dim}), not {tuple(digits.shape)}"
        )
    if input_dim == 1:
        return digits.unsqueeze(2)
    return F.one_hot(_whole(digits, input_dim, f"the digits of one-hot vectors of size {input_dim}"), input_dim)


def as_symbols(x: Tensor, vocabulary_size: int) -> Tensor:
    """Return (B, T) symbols, as a data set's items in a batch are or with one more axis of size 1, as int64.

    Raises:
        ValueError: another shape, or a symbol that is not whole or not below `vocabulary_size`.
    """
    if x.dim() == 3 and 1 in x.shape[1:]:
        x = x.flatten(1)
    if x.dim() != 2:
        raise ValueError(f"the symbols must be (batch, length), not {tuple(x.shape)}")
    return _whole(x, vocabulary_size, "symbols")


def _whole(x: Tensor, end: int, name: str) -> Tensor:
    """Return whole numbers from 0 to end - 1 as int64."""
    whole = x.long()
    if x.numel() and (whole.min() < 0 or whole.max() >= end or (whole != x).any()):
        raise ValueError(f"{name} must be whole, from 0 to {end - 1}")
    return whole
