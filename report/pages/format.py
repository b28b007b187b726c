"""How numbers and tables are written in Markdown."""

import re
from collections.abc import Sequence

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def from_tex(text: str) -> str:
    r"""$82.0\pm0.7$ -> 82.0 ± 0.7, 10{,}310 -> 10,310, 6\,\% -> 6 %, $2\times10^{-16}$ -> 2 × 10⁻¹⁶"""
    text = text.replace("{,}", ",").replace(r"\,", " ").replace(r"\%", "%").replace("$", "")
    text = text.replace(r"\pm", " ± ").replace(r"\times", " × ")
    return re.sub(r"\^\{(-?\d+)\}", lambda power: power[1].translate(SUPERSCRIPTS), text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))
