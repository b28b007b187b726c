"""The table of docs/questions.md, one for each part of the assignment."""

from report.pages.format import table
from report.questions import ANSWERS, EDITIONS, Answer
from report.values import Results

HEADER = ("what it asks", *EDITIONS.values(), "code", "tests", "command", "what it shows")


def values(results: Results) -> dict[str, str]:
    """Return all answers, with a heading and a table for each part."""
    tables = {part: table(HEADER, [row_of(answer) for answer in answers]) for part, answers in ANSWERS.items()}
    return {"questions-tables": "\n\n".join(f"## {part}\n\n{text}" for part, text in tables.items())}


def row_of(answer: Answer) -> list[str]:
    """Return the cells of an answer."""
    numbers = [answer.numbers.get(edition, "") for edition in EDITIONS]
    code, tests = (", ".join(f"`{name}`" for name in names) for names in (answer.code, answer.tests))
    return [answer.asks, *numbers, code, tests, f"`{answer.command}`" if answer.command else "", answer.shows]
