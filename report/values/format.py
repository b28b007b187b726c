"""How numbers are written in the report."""

from collections.abc import Iterable, Sequence
from statistics import mean, stdev


def thousands(x: float) -> str:
    """13026 -> 13{,}026 (the braces keep TeX from setting a space after the comma)."""
    return f"{x:,.0f}".replace(",", "{,}")


def fixed(x: float, digits: int) -> str:
    """1.37349, 3 -> 1.373"""
    return f"{x:,.{digits}f}".replace(",", "{,}")


def scientific(x: float, digits: int = 0) -> str:
    r"""2e-16 -> $2\times10^{-16}$"""
    mantissa, exponent = f"{x:.{digits}e}".split("e")
    return rf"${mantissa}\times10^{{{int(exponent)}}}$"


def mean_std(values: Sequence[float], digits: int) -> str:
    r"""Mean and standard deviation of the sample: $82.0\pm0.7$"""
    return rf"${fixed(mean(values), digits)}\pm{fixed(stdev(values), digits)}$"


def percent(x: float, digits: int = 0) -> str:
    r"""0.0614, 0 -> 6\,\%"""
    return rf"{fixed(100 * x, digits)}\,\%"


def tabular(header: Sequence[str], rows: Sequence[Sequence[str]], columns: str) -> str:
    """Return a booktabs tabular with TeX's `columns`, such as lrr."""
    lines = [r"\toprule", _row(header), r"\midrule", *map(_row, rows), r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *lines, r"\end{tabular}"])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def in_per_cent(share: float, digits: int = 1) -> str:
    """Return a share in per cent, without the sign; what is less than all of it is not rounded to 100."""
    return fixed(100 if share == 1 else min(100 * share, 100 - 10**-digits), digits)


def span(numbers: Iterable[float], digits: int) -> str:
    """Return the smallest and the largest number, or the one that both are written as."""
    chosen = list(numbers)
    low, high = fixed(min(chosen), digits), fixed(max(chosen), digits)
    return low if low == high else f"{low} to {high}"


def listed(texts: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return f"{', '.join(texts[:-1])} and {texts[-1]}"
