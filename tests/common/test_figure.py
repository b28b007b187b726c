"""Figures."""

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
