"""Figures."""

import matplotlib.pyplot as plt

import common.figure
from common.figure import draw_curves, new_figure, save_figure


def test_figures_are_written_twice_and_the_same_each_time(tmp_path):
    for name in ("first", "second"):
        figure, (axes,) = new_figure()
        axes.plot([0, 1], [0, 1], label="$T$")
        axes.legend()
        save_figure(figure, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"first.pdf", "first.png", "second.pdf", "second.png"}
    assert (tmp_path / "first.pdf").read_bytes() == (tmp_path / "second.pdf").read_bytes()


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
