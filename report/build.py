"""Write report/numbers.tex, report/tables/, README.md and pages of docs/ from report/results/.

    python report/build.py            then `latexmk -pdf main` in report/; `make report` does both
    python report/build.py --check    write nothing, and exit with 1 if a file would change

Every module in report/values/ gives the numbers and the tables of one section. report/sources.tex has a checksum of
everything that main.pdf is made of, and the day on which it changed. The PDF contains it, so a test can tell whether
the PDF is current. The templates in report/pages/ become README.md and pages of docs/: a {name} in them is a number of
the report, or a value of a module beside them.
"""

import hashlib
import importlib
import re
import sys
from datetime import date
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.command import ArgumentParser, run_command
from common.errors import CommandError
from common.experiment import read_results
from report.pages.format import from_tex

REPORT = Path(__file__).resolve().parent
HEADER = "% Written by report/build.py from {}: change it there.\n"
PLACEHOLDER = re.compile(r"\{([a-z][\w.]*-[\w.-]+)\}")
PAGES = {
    "readme": "../README.md",
    "questions": "../docs/questions.md",
    "results": "../docs/results.md",
    "speed": "../docs/speed.md",
}


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a file would change")
    check = parser.parse_args().check
    files = {REPORT / name: text for name, text in built_files().items()}
    changed = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    left_over = sorted({*(REPORT / "tables").glob("*.tex")} - {*files})
    names = ", ".join(str(path.resolve().relative_to(REPORT.parent)) for path in changed + left_over)
    if check and names:
        raise CommandError(f"out of date: {names}; run python report/build.py", exit_code=1)
    for path in changed:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
    for path in left_over:
        path.unlink()
    print(f"changed: {names}" if names else f"{len(files)} files are up to date")


def built_files() -> dict[str, str]:
    """Return the name (in report/) and the text of every file that is built.

    Raises:
        CommandError: results or figures are missing, a number's key does not begin with its module's name, or two
            tables have the same name.
    """
    numbers: dict[str, str] = {}
    files: dict[str, str] = {}
    for path in sorted((REPORT / "values").glob("*.py")):
        if path.stem in ("__init__", "format"):
            continue
        module = importlib.import_module(f"report.values.{path.stem}")
        for key, text in module.values(read_results).items():
            if not key.startswith(f"{path.stem}-"):
                raise CommandError(f"report/values/{path.name}: the key {key} does not begin with {path.stem}-")
            numbers[key] = text
        for name, text in module.tables(read_results).items():
            if f"tables/{name}.tex" in files:
                raise CommandError(f"report/values/{path.name}: another module also has a table {name}")
            files[f"tables/{name}.tex"] = HEADER.format(f"report/values/{path.name}") + text.rstrip() + "\n"
    lines = [f"\\setval{{{key}}}{{{numbers[key]}}}\n" for key in sorted(numbers)]
    files["numbers.tex"] = HEADER.format("report/values/*.py") + "".join(lines)
    files["sources.tex"] = sources(checksum(files))
    return files | built_pages({key: from_tex(text) for key, text in numbers.items()})


def built_pages(numbers: dict[str, str]) -> dict[str, str]:
    """Return the name (in report/) and the text of every page that is built."""
    for path in sorted((REPORT / "pages").glob("*.py")):
        if path.stem not in ("__init__", "format"):
            numbers |= importlib.import_module(f"report.pages.{path.stem}").values(read_results)
    files = {}
    for name, target in PAGES.items():
        template = f"pages/{name}.template.md"
        text = (REPORT / template).read_text(encoding="utf-8")
        unknown = sorted({*re.findall(PLACEHOLDER, text)} - {*numbers})
        if unknown:
            raise CommandError(f"report/{template}: there is no number {unknown[0]}")
        filled = re.sub(PLACEHOLDER, lambda match: numbers[match[1]], text)
        files[target] = f"<!-- Written by report/build.py from report/{template}: change it there. -->\n{filled}"
    return files


def sources(digits: str) -> str:
    """Return what main.tex says of its sources: their checksum, and the day on which it last changed."""
    path = REPORT / "sources.tex"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    entry = f"\\pdfinfo{{/Sources ({digits})}}\n"
    if before.startswith(entry):
        return before
    today = date.today()
    return f"{entry}\\newcommand{{\\sourcesdate}}{{{today.day} {today:%B %Y}}}\n"


def checksum(built: dict[str, str]) -> str:
    """Return 16 digits that change whenever the text, a table, a figure or a listing of main.tex changes."""
    texts = [REPORT / name for name in ("main.tex", "macros.tex", "references.bib")]
    texts += sorted((REPORT / "sections").glob("*.tex"))
    written = "".join(path.read_text(encoding="utf-8") for path in texts)
    figures = [REPORT / "figures" / name for name in re.findall(r"\\includegraphics\{([^}]*)\}", written)]
    listings = [REPORT.parent / name for name in re.findall(r"\\source\{([\w/.]*)\}", written)]
    content = hashlib.sha256((written + "".join(built.values())).encode())
    for path in (*figures, *listings):
        if not path.exists():
            raise CommandError(f"the report shows {path.relative_to(REPORT.parent)}, which does not exist")
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


if __name__ == "__main__":
    run_command(main)
