"""report/check.py finds what LaTeX only warns of."""

import pytest

from report.check import log_problems, unnumbered_tables

END = "Output written on main.pdf (45 pages, 1000 bytes).\n"


@pytest.mark.parametrize(
    "line",
    [
        r"Overfull \hbox (2.01pt too wide) in paragraph at lines 3--9",
        r"Overfull \vbox (35.0pt too high) has occurred while \output is active []",
        "LaTeX Warning: Reference `q:lmu-1.9' on page 3 undefined on input line 12.",
        "LaTeX Warning: Label `q:lmu-1.1' multiply defined.",
        "Package natbib Warning: Citation `nobody1900' on page 1 undefined on input line 7.",
        "Missing character: There is no ć in font ec-lmr10!",
        "LaTeX Warning: Reference `correction:of-a-very-long-name' on page 3 undefined on\n input line 12.",
    ],
)
def test_a_fault_is_found(line):
    assert len(log_problems(f"before\n{line}\n{END}")) == 1


@pytest.mark.parametrize(
    "line",
    [
        r"Overfull \hbox (1.99pt too wide) in paragraph at lines 3--9",
        r"Underfull \hbox (badness 10000) in paragraph at lines 3--9",
        "LaTeX Font Info:    Font shape undefined, using another",
    ],
)
def test_other_lines_are_none(line):
    assert log_problems(f"before\n{line}\n{END}") == []


def test_a_table_needs_a_caption():
    numbered = "\\begin{table}[htb]\n\\begin{tabular}{l}a\\end{tabular}\n\\caption{A.}\n\\end{table}\n"
    assert unnumbered_tables(numbered) == []
    assert unnumbered_tables(numbered.replace("\\caption{A.}\n", "")) == ["\\begin{table}[htb]"]
    assert unnumbered_tables("\\begin{center}\\begin{tabular}{l}a\\end{tabular}\\end{center}") == ["\\begin{tabular}"]


@pytest.mark.parametrize(
    "log", ["", "! Undefined control sequence.\n!  ==> Fatal error occurred, no output PDF file produced!\n"]
)
def test_a_log_without_an_end_is_a_fault(log):
    assert len(log_problems(log)) == 1
