"""The numbers and tables of each section of the report, computed from report/results/."""

from collections.abc import Callable
from typing import Any

Rows = list[dict[str, Any]]
Results = Callable[[str], Rows]  # common.experiment.read_results: from a file's name in report/results/ to its rows


def rows_with(rows: Rows, **wanted: Any) -> Rows:
    """Return the rows that have the wanted values in their columns."""
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]
