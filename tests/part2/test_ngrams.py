"""part2/ngrams.py: held against the equations of the paper, written out with strings and dictionaries."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from part2.ngrams import FALLBACK, KneserNey, discounts

LETTERS = "abcde"
TEXT = "".join(np.random.default_rng(0).choice(list(LETTERS), 400, p=(0.5, 0.2, 0.15, 0.1, 0.05)))
SHORT = "abacadabeacad"


def numbers(text):
    return np.array([LETTERS.index(letter) for letter in text], np.uint8)


def written_out(text, order):
    """Return the function (h, w) -> p(w | h) of the equations, for a context h of up to `order - 1` characters."""
    occurrences = {
        k: Counter(text[place : place + k] for place in range(len(text) - k + 1)) for k in range(1, order + 1)
    }
    count = {k: Counter() for k in range(1, order)}
    for k in range(1, order):  # N_1+(. h w)
        for gram in occurrences[k]:
            count[k][gram] = len({longer[0] for longer in occurrences[k + 1] if longer[1:] == gram})
    count[order] = occurrences[order]

    def discount(k, c):
        n = [sum(value == number for value in count[k].values()) for number in range(5)]
        if not all(n[1:4]):
            return FALLBACK[min(c, 3)]
        Y = n[1] / (n[1] + 2 * n[2])
        values = [0] + [number - (number + 1) * Y * n[number + 1] / n[number] for number in (1, 2, 3)]
        return values[min(c, 3)] if min(values[1:]) > 0 else FALLBACK[min(c, 3)]

    def p(h, w):
        h = h[max(len(h) - order + 1, 0) :]
        k = len(h) + 1
        lower = p(h[1:], w) if h else 1 / len(LETTERS)
        following = [count[k][h + letter] for letter in LETTERS]
        if not sum(following):
            return lower
        gamma = sum(discount(k, c) for c in following) / sum(following)
        c = count[k][h + w]
        return (c - discount(k, c)) / sum(following) + gamma * lower

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("text", [TEXT, SHORT, "aab", "a"])
def test_every_probability_is_that_of_the_equations(text, order):
    model, p = KneserNey(numbers(text), order, len(LETTERS)), written_out(text, order)
    contexts = {text[place : place + length] for length in range(order) for place in range(0, len(text), 7)}
    for h in {*contexts, "e" * (order - 1), "ed"}:
        found = [np.exp(-model.losses(numbers(h + w), len(h))[0]) for w in LETTERS]
        assert found == pytest.approx([p(h, w) for w in LETTERS], abs=1e-12), h


def test_probabilities_sum_to_one_after_every_context():
    model = KneserNey(numbers(TEXT), 4, len(LETTERS))
    for h in map("".join, product(LETTERS, repeat=4)):  # nearly all of them unseen
        assert sum(np.exp(-model.losses(numbers(h + w), 4)[0]) for w in LETTERS) == pytest.approx(1, abs=1e-12)


def test_losses_are_those_of_the_characters_one_by_one():
    """Each with the characters before it, also those before `start`."""
    model, text = KneserNey(numbers(TEXT), 3, len(LETTERS)), numbers("eabacabbade")
    alone = [model.losses(text[max(place - 2, 0) : place + 1], min(place, 2))[0] for place in range(len(text))]
    assert model.losses(text) == pytest.approx(alone, abs=1e-12)
    for start in (1, 2, 5, 11):
        assert model.losses(text, start) == pytest.approx(alone[start:], abs=1e-12)


def test_a_text_is_best_predicted_by_a_model_of_its_own():
    own, other = (KneserNey(numbers(text), 5, len(LETTERS)) for text in ("abcde" * 40, TEXT))
    assert own.losses(numbers("abcde" * 4)).mean() < 0.5 < 1 < other.losses(numbers("abcde" * 4)).mean()


def test_discounts_by_hand():
    """Ten k-grams that occur once, four twice, two three times, one four times, three more often: Y = 10 / 18."""
    counts = np.array([1] * 10 + [2] * 4 + [3] * 2 + [4] + [9] * 3)
    Y = 10 / 18
    assert discounts(counts) == pytest.approx([0, 1 - 2 * Y * 4 / 10, 2 - 3 * Y * 2 / 4, 3 - 4 * Y / 2])
    assert tuple(discounts(np.array([1, 1, 1, 5]))) == FALLBACK


@pytest.mark.parametrize(
    ("text", "order", "message"),
    [("", 3, "the text is empty: an n-gram model needs"), ("ab", 0, "order must be at least 1, not 0")],
)
def test_bad_input(text, order, message):
    with pytest.raises(ValueError, match=message):
        KneserNey(numbers(text), order, 5)
