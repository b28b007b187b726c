"""A character n-gram model with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999).

    p(w | h) = (c(h w) - D(c(h w))) / c(h .) + gamma(h) p(w | h')
    gamma(h) = (D_1 N_1(h .) + D_2 N_2(h .) + D_3+ N_3+(h .)) / c(h .)

Here h are the n-1 characters before w, h' all of them but the first; N_1(h .) is the number of characters w with
c(h w) = 1, N_2 and N_3+ likewise. In the highest order c(h w) is how often h w occurs, in the lower ones after how many
different characters it does. The lowest order is interpolated with the uniform distribution. Where the training text
lacks h, p(w | h) is p(w | h').

    model = KneserNey(tokens[:num_train], order=7, vocabulary_size=63)
    model.losses(tokens, num_train).mean()                                # nats a character of what follows
"""

import numpy as np

from common.errors import InputError

FALLBACK = (0.0, 0.5, 1.0, 1.5)  # D where a text is too short to estimate it


class KneserNey:
    """The distribution of the next character after the `order - 1` characters before it.

    Args:
        tokens: (N,) character numbers of the training text.
        order: n, at least 1.
        vocabulary_size: K, number of characters that there are.

    Raises:
        ValueError: the text is empty, or the order is below 1.
    """

    def __init__(self, tokens: np.ndarray, order: int, vocabulary_size: int):
        if not len(tokens):
            raise InputError("the text is empty: an n-gram model needs one character at least")
        if order < 1:
            raise InputError(f"order must be at least 1, not {order}")
        self.order, self.vocabulary_size = order, vocabulary_size
        tokens = tokens.astype(np.int64)
        # Each k-gram is numbered by (the number of its first k-1 characters, its last character): keys, in their order
        numbers = np.zeros(len(tokens) + 1, np.int64)  # of the k-gram that begins at each place; here k = 0
        keys, counts = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        for k in range(1, order + 1):
            shorter = numbers
            grams = shorter[: max(len(tokens) - k + 1, 0)] * vocabulary_size + tokens[k - 1 :]
            found, first, numbers, occurrences = np.unique(
                grams, return_index=True, return_inverse=True, return_counts=True
            )
            counts[-1] = np.bincount(shorter[first + 1], minlength=len(keys[-1]))  # after how many characters
            keys.append(found)
            counts.append(occurrences)
        self._tables = [_table(keys[k], counts[k], len(keys[k - 1]), vocabulary_size) for k in range(1, order + 1)]

    def losses(self, tokens: np.ndarray, start: int = 0) -> np.ndarray:
        """Return -log p of each character from place `start` on, given the `order - 1` before it: (N - start,).

        Near the text's beginning there are fewer.
        """
        begin = max(start - self.order + 1, 0)
        return -np.log(self._probabilities(tokens[begin:].astype(np.int64))[start - begin :])

    def _probabilities(self, tokens: np.ndarray) -> np.ndarray:
        p = np.full(len(tokens), 1 / self.vocabulary_size)
        contexts = np.zeros(len(tokens), np.int64)  # the number of the (k-1)-gram before each place, -1: unknown
        for keys, shares, gammas in self._tables:
            wanted = contexts * self.vocabulary_size + tokens
            places = np.searchsorted(keys, wanted)
            numbers = np.where(keys[places] == wanted, places, -1)
            p = shares[numbers] + gammas[contexts] * p
            contexts = np.concatenate(([-1], numbers[:-1]))
        return p


def _table(
    keys: np.ndarray, counts: np.ndarray, num_contexts: int, vocabulary_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k-grams' keys, (c - D) / c(h .) of each, and gamma of each context, for -1 as the last one."""
    D = discounts(counts)[np.minimum(counts, 3)]
    contexts = keys // vocabulary_size
    totals = np.bincount(contexts, counts, num_contexts)  # c(h .); 0 of what only the text's beginning has
    gammas = np.bincount(contexts, D, num_contexts) / np.maximum(totals, 1)
    shares = (counts - D) / np.maximum(totals, 1)[contexts]
    gammas[totals == 0] = 1
    return np.append(keys, np.iinfo(np.int64).max), np.append(shares, 0), np.append(gammas, 1)


def discounts(counts: np.ndarray) -> np.ndarray:
    """Return D(0) = 0, D_1, D_2 and D_3+ from how many k-grams there are of each count, (4,).

    Where they cannot be estimated, since too few k-grams have one of the counts from 1 to 4, it is FALLBACK.
    """
    n_1, n_2, n_3, n_4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5]
    if n_1 and n_2 and n_3:
        Y = n_1 / (n_1 + 2 * n_2)
        D = np.array([0, 1 - 2 * Y * n_2 / n_1, 2 - 3 * Y * n_3 / n_2, 3 - 4 * Y * n_4 / n_3])
        if (D[1:] > 0).all():
            return D
    return np.array(FALLBACK)
