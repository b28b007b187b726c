"""Figures."""

from statistics import geometric_mean

import matplotlib.pyplot as plt
import pytest

import common.figure
from common.figure import draw_curves, draw_means, new_figure, save_figure


def test_figures_are_written_twice_and_the_same_each_time(tmp_path):
    for name in ("first", "second"):
        figure, (axes,) = new_figure()
        axes.plot([0, 1], [0, 1], label="$T$")
        axes.legend()
        save_figure(figure, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"first.pdf", "first.png", "second.pdf", "second.png"}
    assert (tmp_path / "first.pdf").read_bytes() == (tmp_path / "second.pdf").read_bytes()


def test_a_text_is_drawn_in_the_reports_type_or_where_that_lacks_a_character_in_another(tmp_path, caplog, recwarn):
    figure, (axes,) = new_figure()
    plain = [axes.text(0, 0, text) for text in ("loss, 10,000 steps (SGD)", r"$2 \times 128$ units", "$x < 1$")]
    strange = [axes.text(0, 0, text) for text in ("a_b", "x < 1", "2 × 128", "Veličković", r"\$5 < \$6")]
    axes.plot([-1, 1], [1e-3, 1e3])
    save_figure(figure, tmp_path / "figure")
    assert all(text.get_fontfamily()[0] == "cmr10" for text in plain)
    assert all(text.get_fontfamily()[0] == "STIXGeneral" for text in strange)
    assert not caplog.records and not list(recwarn)


def test_a_band_has_the_runs_range_and_a_line_their_average():
    figure, (axes,) = new_figure()
    draw_means(axes, [(1, 1), (1, 3), (2, 2), (2, 8)], geometric_mean, color="C0", label="runs")
    draw_means(axes, [(1, 1), (1, 3)], color="C0")
    assert list(axes.lines[0].get_ydata()) == pytest.approx([3**0.5, 4]) and axes.lines[0].get_marker() == "None"
    assert list(axes.lines[1].get_ydata()) == [2] and axes.lines[1].get_marker() == "."
    corners = {tuple(corner) for corner in axes.collections[0].get_paths()[0].vertices}
    assert {(1, 1), (1, 3), (2, 2), (2, 8)} <= corners
    plt.close(figure)


def test_curves_without_an_evaluation_are_drawn_too(tmp_path):
    metrics = {"loss": [(1, 0.5), (2, 0.25)], "accuracy": [(1, 0.0), (2, 1.0)]}
    draw_curves({**metrics, "validation_loss": [], "validation_accuracy": []}, "validation", tmp_path / "curves")
    assert (tmp_path / "curves.pdf").exists() and (tmp_path / "curves.png").exists()


def test_the_legend_says_what_made_training_harder_and_a_single_step_is_seen(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(common.figure, "save_figure", lambda figure, path: figures.append(figure))
    for steps in (1, 2):
        pairs = [(step, 0.5) for step in range(steps)]
        metrics = dict.fromkeys(("loss", "accuracy", "validation_loss", "validation_accuracy"), pairs)
        draw_curves(metrics, "validation", tmp_path / "curves", noise="dropout")
    for figure, marker in zip(figures, (".", "None")):
        for axes in figure.axes:
            assert [text.get_text() for text in axes.get_legend().get_texts()] == [
                "training batch, with dropout",
                "validation",
            ]
            assert axes.lines[0].get_marker() == marker
        plt.close(figure)
