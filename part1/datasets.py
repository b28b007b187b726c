"""The data sets of UvA 2020, under the names that its graders import: symbols in, the class of the whole out.

* `RandomCombinationsDataset`: all numbers from 0 to T - 1 but one, in random order; which one is missing?
* `BaumSweetSequenceDataset`: a number in binary; has it no block of consecutive zeros of odd length?
* `BinaryPalindromeDataset`: a palindrome of bits without its last one; which one is it?

A length T = `seq_length` stands for T - 1, 4 T and 4 T + 1 symbols. In the last two the symbols 0, 1 and 2 are padding,
which stands on the left, and the bits 0 and 1.
"""

import math
import secrets
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

if not __package__:  # imported from inside part1/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from part1.dataset import PalindromeDataset

__all__ = ["BaumSweetSequenceDataset", "BinaryPalindromeDataset", "PalindromeDataset", "RandomCombinationsDataset"]


class SymbolDataset(torch.utils.data.Dataset):
    """Endless data set of random sequences of symbols, each with its class.

    Item i depends on (seed, i) alone, so that loader workers, however many, never repeat or reorder anything.

    Args:
        seq_length: T >= 1.
        seed: of all items; None draws one from the operating system.

    Attributes:
        vocabulary_size: number of symbols.
        num_classes: number of targets.
        num_different: about how many sequences there are, or many.

    Raises:
        ValueError: a length that the data set does not have.
    """

    vocabulary_size, num_classes, num_different = 3, 2, 0
    longest = sys.maxsize
    item_shape: tuple[int, ...] = (-1,)

    def __init__(self, seq_length: int, seed: int | None = None):
        if not 1 <= seq_length <= self.longest:
            bounds = "at least 1" if self.longest == sys.maxsize else f"from 1 to {self.longest}"
            raise ValueError(f"the length T of a {type(self).__name__} must be {bounds}, not {seq_length}")
        self.seq_length = seq_length
        self.seed = secrets.randbits(128) if seed is None else seed

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return the int64 symbols, in the data set's item shape, and the target."""
        seed = np.random.SeedSequence((self.seed, index)).generate_state(1, np.uint64)
        sequence = self.draw(1, torch.Generator().manual_seed(int(seed[0])))[0].numpy()
        return sequence[:-1].reshape(self.item_shape), int(sequence[-1])

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Return (num, L + 1) int64, L symbols and the target of each, drawn at once from a CPU generator."""
        raise NotImplementedError


class RandomCombinationsDataset(SymbolDataset):
    """T - 1 of the numbers 0 ... T - 1 in random order; the target is the one that is missing. Items are (T - 1,)."""

    def __init__(self, seq_length: int, seed: int | None = None):
        super().__init__(seq_length, seed)
        self.vocabulary_size = self.num_classes = seq_length
        self.num_different = math.factorial(min(seq_length, 20))  # many, beyond

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.rand(num, self.seq_length, generator=generator, dtype=torch.float64).argsort(dim=1)


class BaumSweetSequenceDataset(SymbolDataset):
    """A number from 10 to 10^T in binary; the target is 1 if it has no block of zeros of odd length. Items are (1, 4T).

    Nearly all numbers are 0. They are kept with the probability KEPT only, the handout's, which balances the classes at
    T = 6; at T = 4 the class 1 has a share of 82 %, at T = 8 of 19 %.
    """

    KEPT = 0.016724
    longest = 18  # 10^18 fits an int64
    item_shape = (1, -1)

    def __init__(self, seq_length: int, seed: int | None = None):
        super().__init__(seq_length, seed)
        self.num_different = int(self.KEPT * 10**seq_length)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        found = torch.empty(0, 4 * self.seq_length + 1, dtype=torch.int64)
        while len(found) < num:
            numbers = torch.randint(10, 10**self.seq_length + 1, (8 * num + 64,), generator=generator)
            symbols = as_symbols_of_bits(numbers, 4 * self.seq_length)
            target = is_baum_sweet(symbols)
            kept = target | (torch.rand(len(numbers), generator=generator) < self.KEPT)
            found = torch.cat((found, torch.cat((symbols, target[:, None]), dim=1)[kept]))
        return found[:num]


class BinaryPalindromeDataset(SymbolDataset):
    """Bits that read the same from both ends, without the last one, which is the target. Items are (4T + 1, 1).

    One half is ceil(T/2) digits from 0 to 8 (the handout's bound is exclusive), each in binary without leading zeros,
    side by side, in reverse order with probability 1/2; the other half mirrors it, so that the middle bit is doubled.
    At an odd T the longest, of eights alone, is two symbols too long for the handout's 4T + 2: it is left out.
    """

    item_shape = (-1, 1)

    def __init__(self, seq_length: int, seed: int | None = None):
        super().__init__(seq_length, seed)
        self.num_digits = math.ceil(seq_length / 2)
        self.num_different = 4 ** min(self.num_digits, 30)  # fewer than 9^num_digits: 1, 2 and 3, 0 are both 110

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        places, width = torch.arange(3, -1, -1), 4 * self.seq_length + 2
        found = torch.empty(0, width, dtype=torch.int64)
        while len(found) < num:
            digits = torch.randint(9, (num, self.num_digits), generator=generator)
            bits = digits[..., None] >> places & 1  # (num, ceil(T/2), 4)
            written = (digits[..., None] >> places > 0) | (places == 0)
            half = torch.where(written, bits + 1, 0).flatten(1)  # symbols, with padding in between
            is_reversed = torch.rand(num, generator=generator) < 0.5
            half = torch.where(is_reversed[:, None], half.flip(1), half)
            whole = torch.cat((half, half.flip(1)), dim=1)  # (num, 8 ceil(T/2))
            whole = whole.gather(1, (whole > 0).long().argsort(dim=1, stable=True))  # all padding to the left
            too_long = max(whole.shape[1] - width, 0)
            whole = whole[(whole[:, :too_long] == 0).all(dim=1), too_long:]
            found = torch.cat((found, torch.nn.functional.pad(whole, (width - whole.shape[1], 0))))
        found[:, -1] -= 1  # the target is a bit, not a symbol
        return found[:num]


def as_symbols_of_bits(numbers: Tensor, width: int) -> Tensor:
    """Return (num, width) symbols of (num,) numbers in binary: 1 and 2 for the bits 0 and 1, 0 for padding."""
    shifted = numbers[:, None] >> torch.arange(width - 1, -1, -1)
    return torch.where(shifted > 0, (shifted & 1) + 1, 0)


def is_baum_sweet(symbols: Tensor) -> Tensor:
    """Return (num,) booleans: whether no block of consecutive bits 0 in (num, L) symbols has odd length."""
    odd = torch.zeros(len(symbols), dtype=torch.bool)  # whether the present block has an odd length
    found = odd
    for column in symbols.t():
        found = found | (odd & (column == 2))
        odd = (column == 1) & ~odd
    return ~(found | odd)
