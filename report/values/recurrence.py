"""From part1_gradient_flow.csv: how much of the gradient reaches the first step, before training, T = 60."""

from report.values import Results, rows_with
from report.values.format import fixed, scientific
from report.values.memory import geometric_mean, gradient_share

T = 60


def values(results: Results) -> dict[str, str]:
    """Return the measured shares and rates that the derivations are compared with."""
    rows = results("part1_gradient_flow")
    rnn = gradient_share(rows, "handout", "RNN", T, "initial")
    chosen = {"family": "tuned", "model": "LSTM", "T": T, "moment": "initial"}
    steps = (1, T - 2, T - 1)
    chrono = {t: geometric_mean(row["norm"] for row in rows_with(rows, **chosen, t=t)) for t in steps}
    return {
        "recurrence-rnn-share": scientific(rnn),
        "recurrence-rnn-rate": fixed(rnn ** (1 / (T - 2)), 2),
        "recurrence-lstm-share": scientific(gradient_share(rows, "handout", "LSTM", T, "initial")),
        "recurrence-chrono-share": scientific(chrono[1] / chrono[T - 1], 1),
        "recurrence-chrono-last": fixed(chrono[T - 1] / chrono[T - 2], 0),
        "recurrence-chrono-before": fixed(chrono[T - 2] / chrono[1], 0),
    }


def tables(results: Results) -> dict[str, str]:
    """Return nothing: the section has no measured tables."""
    return {}
