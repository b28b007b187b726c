"""The report says what the results say: built files, numbers, labels, tests, figures and references agree."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import CommandError
from common.experiment import read_results
from report import build
from report.questions import ANSWERS, EDITIONS
from report.values import front
from report.values.format import (
    fixed,
    in_per_cent,
    listed,
    mean_std,
    percent,
    scientific,
    span,
    tabular,
    thousands,
)

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "report"
QUESTIONS = {
    "uva18": "1.1 1.2 1.3 1.4 1.5a 1.5b 1.6 2.1 2.2a 2.2b 2.3 3.1a 3.1b 3.1c",
    "uva19": "1.1 1.2 1.3 1.4 1.5a 1.5b 1.6 2.1a 2.1b 2.1c 2.2 3.1a 3.1b 3.2 3.3a 3.3b",
    "uva19n": "1.1 1.2 1.3 1.4 1.5a 1.5b 1.6 1.7 2.1a 2.1b 2.1c 2.2 2.3 3.1a 3.1b 3.2 3.3 3.4a 3.4b",
    "uva20": "1.1a 1.1b 1.1c 1.2a 1.2b 1.3 1.4 2.1a 2.1b 2.1c 2.2 3.1a 3.1b 3.2 3.3 3.4 3.5",
    "uva21": "1.1 1.2a 1.2b 2.1a 2.1b 2.2a 2.2b 2.3 2.4a 2.4b 2.4c 3.1 3.2 3.3a 3.3b 3.4a 3.4b 3.5 3.6a 3.6b 3.6c 3.6d",
    "uva25": "3.1a 3.1b 3.1c 3.2a 3.2b 3.3a 3.3b 3.4a 3.4b 3.4c 3.4d 3.4e",
    "lmu": "1.1 1.2 1.3 1.4 1.5a 1.5b 1.6",
    "prml": "1.1 1.2 2.1 2.2 2.3",
}
STEMS = [f"{course}-{number}" for course, numbers in QUESTIONS.items() for number in numbers.split()]
# Times, paths without randomness, and a closer look at the run whose seed part3_qm9.csv names
WITHOUT_SEEDS = ("benchmark_", "part1_optimizer_paths", "part3_qm9_limits")


def without_comments(text):
    return re.sub(r"(?<!\\)%.*", "", text)


TEXTS = {
    path.name: without_comments(path.read_text(encoding="utf-8"))
    for path in [REPORT / "main.tex", *sorted((REPORT / "sections").glob("*.tex"))]
}
ALL = "\n".join(TEXTS.values())


def arguments(macro, text=ALL):
    """The first argument of every use of a macro, split at its commas."""
    found = re.findall(rf"\\{macro}\*?(?:\[[^\]]*\])*\{{([^}}#]*)\}}", text)
    return [part.strip() for argument in found for part in argument.split(",")]


# What is built


def test_built_files_are_current():
    done = subprocess.run([sys.executable, REPORT / "build.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_pdf_is_made_of_what_is_here():
    """If this fails, run `make report`."""
    entry = re.search(r"/Sources \(\w+\)", (REPORT / "sources.tex").read_text(encoding="utf-8"))[0]
    assert entry.encode() in (REPORT / "main.pdf").read_bytes()


@pytest.fixture
def sections(tmp_path, monkeypatch):
    """Returns a function that makes a report of sections given as name=(values, tables)."""

    def make(**modules):
        (tmp_path / "values").mkdir()
        for name in modules:
            (tmp_path / "values" / f"{name}.py").touch()
        monkeypatch.setattr(build, "REPORT", tmp_path)
        monkeypatch.setattr(build, "PAGES", {})
        for name in ("main.tex", "macros.tex", "references.bib"):
            (tmp_path / name).touch()
        loaded = {
            f"report.values.{name}": SimpleNamespace(values=lambda _, v=values: v, tables=lambda _, t=tables: t)
            for name, (values, tables) in modules.items()
        }
        monkeypatch.setattr(build.importlib, "import_module", loaded.__getitem__)

    return make


def test_numbers_and_tables_are_written_sorted(sections):
    sections(memory=({"memory-b": "2", "memory-a": "1"}, {"lengths": "A"}), text=({}, {}))
    files = build.built_files()
    assert files["numbers.tex"].splitlines()[1:] == [r"\setval{memory-a}{1}", r"\setval{memory-b}{2}"]
    assert files["tables/lengths.tex"].splitlines()[1:] == ["A"]


def test_a_number_begins_with_its_section_name(sections):
    sections(memory=({"text-a": "1"}, {}))
    with pytest.raises(CommandError, match="text-a"):
        build.built_files()


def test_two_tables_of_one_name_are_an_error(sections):
    sections(memory=({}, {"a": "1"}), text=({}, {"a": "2"}))
    with pytest.raises(CommandError, match="table a"):
        build.built_files()


@pytest.mark.parametrize(
    "found, text",
    [
        (thousands(13026), "13{,}026"),
        (fixed(1.37349, 3), "1.373"),
        (scientific(2e-16), r"$2\times10^{-16}$"),
        (mean_std([81.3, 82.0, 82.7], 1), r"$82.0\pm0.7$"),
        (percent(0.0614, 0), r"6\,\%"),
        (in_per_cent(0.99999), "99.9"),
        (in_per_cent(1), "100.0"),
        (span([1200, 300], 0), "300 to 1{,}200"),
        (span([0.1, 0.101], 2), "0.10"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (tabular(["a", "b"], [["1", "2"]], "lr").split("\n")[4], r"1 & 2 \\"),
    ],
)
def test_format(found, text):
    assert found == text


# Results


@pytest.mark.parametrize("path", sorted((REPORT / "results").glob("*.csv")), ids=lambda path: path.stem)
def test_a_result_names_its_command_and_seeds(path):
    provenance = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert re.match(r"python -m (part\d\.experiments|benchmarks)\.\w+( |$)", provenance["command"])
    with open(path, newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert path.stem.startswith(WITHOUT_SEEDS) or "seed" in columns or provenance["seeds"]


# Numbers


def test_numbers_used_and_numbers_defined_are_the_same():
    defined = re.findall(r"\\setval\{([^}]*)\}", (REPORT / "numbers.tex").read_text(encoding="utf-8"))
    used = arguments("val")
    assert sorted(set(used) - set(defined)) == []
    assert sorted(set(defined) - set(used)) == []


def test_tables_used_and_tables_built_are_the_same():
    used = {name.removesuffix(".tex") for name in arguments("input") if name.startswith("tables/")}
    assert used == {f"tables/{path.stem}" for path in (REPORT / "tables").glob("*.tex")}


DISPLAYS = "equation|align|gather|multline|tabular|longtable|lstlisting|verbatim"
BRACES = r"\{(?:[^{}]|\\[{}]|\{[^{}]*\})*\}"
COURSE = r"(?:LMU|UvA(?: spring| November)?[~ ]\d{4}|PRML|[Qq]uestions?|[Ss]ections?|handout),?"
NO_PROSE = [
    rf"\\begin\{{({DISPLAYS})(\*?)\}}.*?\\end\{{\1\2\}}",
    r"\\\[.*?\\\]|(?<!\\)\$.*?(?<!\\)\$",
    rf"\\(?:set|published|val|code|command|zh|\w*ref|label|alsoanswers|corrected|input|includegraphics|cite\w*)(?:\[[^\]]*\])*{BRACES}",
    rf"\\(?:question|tested|correction){BRACES}{BRACES}",
    rf"{COURSE}[~ ]\d\.\d[a-d]?(?:(?:,? and |, | to |--)\d\.\d[a-d]?)*",  # names of questions
    r"\b(?:2018|2019|2020|2021|2024|2025)\b",  # the years of the courses
    r"[\d.]+(?:pt|em|ex|in|cm|mm)\b|[\d.]+\\(?:text|line|column)width",
]
SUSPECT = re.compile(r"(?<![\w.])(?<![A-Za-z]-)\d+(?:(?:[.,]|\{,\})\d+|\d{2,}|(?:\\,|~| )*(?:\\%|per cent))")


def prose(text):
    """The text without maths, tables, names, and numbers in macros that say where they come from, line by line."""
    text = text[text.find(r"\begin{abstract}") :] if r"\begin{document}" in text else text
    for pattern in NO_PROSE:
        text = re.sub(pattern, lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    return text


def typed_numbers(text):
    return [line.strip() for line in prose(text).splitlines() if SUSPECT.search(line)]


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "appendix.tex"])
def test_no_measured_number_is_typed_by_hand(name):
    assert typed_numbers(TEXTS[name]) == []


@pytest.mark.parametrize(
    "text", ["after 0.5 nats", "a batch of 128", "10{,}000 steps", "10,000 steps", r"5\,\%", "5 per cent"]
)
def test_a_typed_number_is_found(text):
    assert typed_numbers(f"It is {text}.") and typed_numbers(f"$x = 1.5$ and \\val{{a-b}}, {text}")


@pytest.mark.parametrize(
    "text",
    [
        r"$0.5$ of \set{0.001} and \published{81.5}~\citep[table 2]{kipf2017}",
        r"\begin{align*} x &= 0.25 \end{align*} on CIFAR-10, ResNet-18 and DenseNet-121, 12 times",
        r"UvA 2021 3.3a, 3.3b and question 2.1, of 2019",
        r"UvA spring 2018 2.2a and UvA November~2019 3.4a, of 2020 and 2025",
        r"\begin{minipage}{0.48\textwidth} \command{python part1/train.py --lr 0.001}",
    ],
)
def test_other_numbers_are_allowed(text):
    assert typed_numbers(text) == []


# Questions


HEADINGS = [
    arguments("alsoanswers", part) + re.findall(r"^\{[^}]*\}\{([^}]*)\}", part) for part in ALL.split(r"\question")[1:]
]
LABELS = [label for heading in HEADINGS for label in heading]
ROWS = [answer for answers in ANSWERS.values() for answer in answers]


def questions_of(row):
    return [f"{edition}-{number}" for edition, numbers in row.numbers.items() for number in numbers.split(", ")]


def test_every_question_of_every_edition_has_one_row():
    assert sorted(question for row in ROWS for question in questions_of(row)) == sorted(STEMS)
    assert {*QUESTIONS} == {*EDITIONS}


def test_labels_are_names_of_questions():
    """Of a whole question, too, where it has parts: lmu-1.5."""
    assert [label for label in LABELS if LABELS.count(label) > 1] == []
    assert [label for label in LABELS if not {label, f"{label}a"} & {*STEMS}] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_a_row_leads_to_its_answer(row):
    """If a question has a label, it stands where the row leads."""
    (heading,) = [heading for heading in HEADINGS if row.label in heading]
    assert row.label in questions_of(row) or f"{row.label}a" in questions_of(row)
    assert [question for question in questions_of(row) if question in LABELS and question not in heading] == []


def test_no_answer_has_two_rows():
    assert len({row.label for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_a_row_names_files_that_exist(row):
    files = [*row.code, *row.tests]
    assert len({*files}) == len(files) and all((ROOT / file).is_file() for file in files)
    assert all(file.startswith("tests/") for file in row.tests)
    scripts = [word for word in row.command.split() if word.endswith(".py")]
    scripts += [f"{module.replace('.', '/')}.py" for module in re.findall(r"-m (part[\w.]+)", row.command)]
    assert all((ROOT / script).is_file() for script in scripts)
    assert len(scripts) == bool(row.code) == bool(row.tests)  # words only have none of them
    for words in re.findall(r"-k \"?([\w ]+)", row.command):
        names = re.findall(r"^def (test_\w+)", (ROOT / scripts[0]).read_text(encoding="utf-8"), re.MULTILINE)
        assert all(any(word in name for name in names) for word in words.split(" or "))


def test_the_front_table_has_the_page_and_the_code_of_every_row():
    table = front.tables(read_results)["questions"]
    assert arguments("code", table) == [file for row in ROWS for file in row.code]
    assert arguments("pageref", table) == [f"q:{row.label}" for row in ROWS]


# Tests, figures, references, sources


def test_every_test_named_exists():
    named = re.findall(r"\\tested\{([^}#]*)\}\{([^}#]*)\}", ALL)
    assert named
    for section, function in named:
        path = ROOT / "tests" / "derivations" / f"test_{section}.py"
        assert re.search(rf"^def {re.escape(function)}\(", path.read_text(encoding="utf-8"), re.MULTILINE), function


def test_every_file_named_exists():
    named = re.findall(r"\\(?:code|command|source)\{(?:python )?((?:\w+/)+\w+\.\w+)", ALL)
    modules = re.findall(r"\\command\{python\s+-m\s+([\w.]+)", ALL)
    files = named + [module.replace(".", "/") + ".py" for module in modules]
    assert named and modules
    assert [name for name in files if not ((ROOT / name).is_file() or (ROOT / "tests" / name).is_file())] == []


def test_every_figure_exists():
    names = arguments("includegraphics")
    assert names and [name for name in names if not (REPORT / "figures" / name).is_file()] == []


def test_citations_and_references_are_the_same():
    keys = re.findall(r"^@\w+\{([^,\s]+)", (REPORT / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(arguments(r"cite\w*")) == set(keys) and len(keys) == len(set(keys))


def test_every_character_of_the_listings_can_be_printed():
    literate = "".join(re.findall(r"\{(\W|\w)\}\{\{", TEXTS["appendix.tex"]))
    for name in arguments("source"):
        strange = {character for character in (ROOT / name).read_text(encoding="utf-8") if not character.isascii()}
        assert strange <= set(literate), name
