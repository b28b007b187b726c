"""Palindromes, whose last digit can be named only by remembering the first.

A palindrome of length T is decided by its left half, ceil(T/2) digits. The network reads the first T-1 digits and must
name the last one; the digits in between are irrelevant to the answer and merely disturb the memory.

* `PalindromeDataset`: one palindrome for each item, as the handout's graders call it.
* `draw_palindromes`, `HeldOutPalindromes`: whole batches at once, as `train.py` uses them.
"""

import math
import secrets
import sys

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MAX_CODE_DIGITS = 18  # the digits of a left half that fit an int64


class PalindromeDataset(torch.utils.data.Dataset):
    """Endless data set of random palindromes.

    Item i depends on (seed, i) alone, so that loader workers, however many, never repeat or reorder anything.

    Args:
        seq_length: the palindrome's length T >= 1, target digit included.
        seed: of all items; None draws one from the operating system.
    """

    def __init__(self, seq_length: int, seed: int | None = None):
        if seq_length < 1:
            raise ValueError(f"a palindrome has at least 1 digit, not {seq_length}")
        self.seq_length = seq_length
        self.seed = secrets.randbits(128) if seed is None else seed
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

    def _palindrome(self, generator: np.random.Generator) -> np.ndarray:
        left = generator.integers(0, 10, math.ceil(self.seq_length / 2)).astype(np.float32)
        return np.concatenate((left, left[: self.seq_length // 2][::-1]))


def draw_palindromes(num: int, seq_length: int, generator: torch.Generator) -> Tensor:
    """Return (num, seq_length) int64 palindromes, drawn in one call from a CPU generator."""
    left = torch.randint(10, (num, math.ceil(seq_length / 2)), generator=generator)
    return torch.cat((left, left[:, : seq_length // 2].flip(1)), dim=1)


class HeldOutPalindromes:
    """Palindromes for validation and test, and training batches that never contain one of them.

    With fewer than 20 palindromes of this length for each one held out, holding out is off (`exclusive` is False): the
    sets are then plain random draws, and collisions are ignored, as the handout does.

    Args:
        seq_length: the palindromes' length T.
        num_validation, num_test: how many to hold out, all different from each other where `exclusive`.
        generator: a CPU generator that draws them.

    Attributes:
        validation: (num_validation, T) int64.
        test: (num_test, T) int64.
    """

    def __init__(self, seq_length: int, num_validation: int, num_test: int, generator: torch.Generator):
        num = num_validation + num_test
        num_digits = min(math.ceil(seq_length / 2), MAX_CODE_DIGITS)
        self.exclusive = 10**num_digits >= 20 * num
        self._place_values = 10 ** torch.arange(num_digits)
        self._codes = torch.empty(0, dtype=torch.int64)
        held_out = draw_palindromes(num, seq_length, generator)
        if self.exclusive:
            while len(self._codes) < num:
                more = draw_palindromes(num, seq_length, generator)
                held_out = torch.cat((held_out, more))
                _, first_places = np.unique(self._code(held_out), return_index=True)  # of each different palindrome
                held_out = held_out[torch.from_numpy(np.sort(first_places))][:num]
                self._codes = self._code(held_out).sort().values
        self.seq_length = seq_length
        self.validation, self.test = held_out.split((num_validation, num_test))

    def draw_others(self, num: int, generator: torch.Generator) -> Tensor:
        """Return (num, T) int64 palindromes for training, none of which is held out."""
        palindromes = draw_palindromes(num, self.seq_length, generator)
        while self.exclusive:
            code = self._code(palindromes)
            place = torch.searchsorted(self._codes, code).clamp_(max=len(self._codes) - 1)
            held_out = self._codes[place] == code
            if not held_out.any():
                break
            palindromes[held_out] = draw_palindromes(int(held_out.sum()), self.seq_length, generator)
        return palindromes

    def _code(self, palindromes: Tensor) -> Tensor:
        """Return the left half as one number, from at most its first 18 digits: (num,) int64."""
        return palindromes[:, : len(self._place_values)] @ self._place_values


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
    whole = digits.long()
    if digits.numel() and (whole.min() < 0 or whole.max() >= input_dim or (whole != digits).any()):
        raise ValueError(f"one-hot vectors of size {input_dim} need whole digits from 0 to {input_dim - 1}")
    return F.one_hot(whole, input_dim)
