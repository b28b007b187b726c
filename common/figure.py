"""One style for all figures of the repository: vector graphics, as wide as the report's text and in its type."""

import logging
import re
import string
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator

COLUMN_WIDTH = 5.5  # inches, the report's text width
# The palette of Okabe and Ito, whose colours can be told apart with colour blindness
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# As the names on the command line are written in a text
OPTIMIZER_NAMES = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam", "adagrad": "AdaGrad", "adadelta": "Adadelta"}
# Outside formulas, cmr10 lacks all other characters, or draws something else: TeX's encoding has no < at the place of <
IN_CMR10 = {*string.ascii_letters, *string.digits, *" \n!#%&'()*+,-./:;=?@[]"}
FORMULA = re.compile(r"(?<!\\)\$.*?(?<!\\)\$")
OTHER_FONTS = ["STIXGeneral", "DejaVu Serif"]
plt.rcParams.update(
    {
        "font.family": ["cmr10", *OTHER_FONTS],
        "mathtext.fontset": "cm",
        "axes.formatter.use_mathtext": True,  # minus signs
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "grid.color": "0.9",
        "pdf.fonttype": 42,
    }
)


def new_figure(rows: int = 1, columns: int = 1, height: float = 2.2, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as the text, `height` inches high for each row, and its axes as a flat list."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(COLUMN_WIDTH, rows * height), squeeze=False, layout="constrained", **subplots
    )
    return figure, list(axes.flat)


def draw_means(
    axes: Axes,
    points: Iterable[tuple[float, float]],
    average: Callable[[Sequence[float]], float] = mean,
    **line: Any,
) -> None:
    """Draw the points of several runs: at each x the average over the runs, as a line, and their range, as a band."""
    values: dict[float, list[float]] = {}
    for at, value in points:
        values.setdefault(at, []).append(value)
    x, runs = list(values), list(values.values())
    marker = "." if len(x) == 1 else None  # a line of one point would not be seen
    axes.plot(x, [average(run) for run in runs], **{"marker": marker, **line})
    axes.fill_between(x, [*map(min, runs)], [*map(max, runs)], color=line["color"], alpha=0.15, linewidth=0)


def plain_ticks(axis: Any, *subs: float) -> None:
    """Write the ticks of a logarithmic axis of few decades as 0.1, not as a power; at these multiples of the powers."""
    axis.set_major_locator(LogLocator(subs=subs or (1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure to `path` with the suffixes .pdf and .png, and close it."""
    for text in figure.findobj(Text):
        if not {*FORMULA.sub("", text.get_text())} <= IN_CMR10:
            text.set_fontfamily(OTHER_FONTS)
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # cmr10 has no date
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(path.with_suffix(".png"), dpi=150)
    plt.close(figure)


def draw_curves(
    metrics: dict[str, list[tuple[int, float]]], held_out: str, path: Path, noise: str | None = None
) -> None:
    """Draw a run's loss and accuracy by step, on its training batches and, if it was evaluated, on `held_out` data.

    Args:
        metrics: (step, value) pairs of `loss`, `accuracy`, `<held_out>_loss` and `<held_out>_accuracy`.
        held_out: name of the data, as in the columns' names.
        path: path of the figure, without a suffix.
        noise: what makes training harder than evaluation, such as dropout, for the legend: it can put the training
            loss above the other.
    """
    figure, panels = new_figure(1, 2)
    for axes, name in zip(panels, ("loss", "accuracy")):
        steps, values = _columns(metrics[name])
        marker = "." if len(steps) == 1 else None  # a line needs two points
        label = f"training batch, with {noise}" if noise else "training batch"
        axes.plot(steps, values, color="0.6", linewidth=0.8, marker=marker, label=label)
        steps, values = _columns(metrics[f"{held_out}_{name}"])
        if steps:
            axes.plot(steps, values, marker="o", label=held_out.replace("_", " "))
        axes.set(xlabel="training step", ylabel="cross-entropy (nats)" if name == "loss" else name)
        axes.legend()
    save_figure(figure, path)


def _columns(pairs: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in pairs], [value for _, value in pairs]
