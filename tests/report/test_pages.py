"""README and docs: how numbers, tables and templates become Markdown."""

import pytest

from common.errors import CommandError
from report import build
from report.pages.format import from_tex, table
from report.pages.speed import beside, digits


@pytest.mark.parametrize(
    "tex, markdown",
    [
        (r"$82.0\pm0.7$", "82.0 ± 0.7"),
        ("10{,}310 meV", "10,310 meV"),
        (r"6\,\%", "6 %"),
        (r"$2\times10^{-16}$", "2 × 10⁻¹⁶"),
    ],
)
def test_a_number_of_the_report_in_markdown(tex, markdown):
    assert from_tex(tex) == markdown


def test_a_table():
    assert table(["", "a"], [["b", "1"]]).splitlines() == ["|  | a |", "| --- | --- |", "| b | 1 |"]


@pytest.mark.parametrize(
    "number, text",
    [(0.0243, "0.024"), (0.495, "0.49"), (12.34, "12.3"), (5678, "5,678"), (5_101_100, "5.1 million")],
)
def test_digits(number, text):
    assert digits(number) == text


def test_a_benchmark_beside_another():
    """A column has one value with its unit and multiples of it; variants that nobody measured have no row."""
    rows = [
        {"benchmark": "LSTM, n=8", "variant": "library", "value": 2000.0, "unit": "ms", "ratio": 1.0},
        {"benchmark": "LSTM, n=8", "variant": "ours", "value": 1500.0, "unit": "ms", "ratio": 0.75},
        {"benchmark": "RNN, n=8", "variant": "library", "value": 1.0, "unit": "ms", "ratio": 1.0},
    ]
    labels = {"library": "`nn.LSTM`", "ours": "**ours**", "loop": "loop"}
    assert beside(rows, "LSTM, (.*)", labels) == table(["", "n=8"], [["`nn.LSTM`", "1 (2.00 s)"], ["**ours**", "0.75"]])


def test_a_template_that_names_no_number_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "REPORT", tmp_path)
    (tmp_path / "pages").mkdir()
    monkeypatch.setattr(build, "PAGES", {"speed": "../docs/speed.md"})
    template = tmp_path / "pages" / "speed.template.md"
    template.write_text("{front-vgg} and {no number}", encoding="utf-8")
    text = build.built_pages({"front-vgg": "80.2"})["../docs/speed.md"]
    assert text.startswith("<!-- Written by") and text.endswith("\n80.2 and {no number}")
    template.write_text("{front-vgg-16}", encoding="utf-8")
    with pytest.raises(CommandError, match="front-vgg-16"):
        build.built_pages({"front-vgg": "80.2"})
