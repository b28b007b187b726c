"""What README, docs/ and the other pages say is so: files, links, commands, Python, and no number typed by hand."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from common.experiment import read_results

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/questions.md",
        "docs/running.md",
        "docs/results.md",
        "docs/speed.md",
        "benchmarks/scaling.md",
        "part2/assets/README.md",
        "grading/README.md",
    )
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
MADE_BY_A_RUN = {
    *("curves.pdf", "curves.png", "club.pdf", "graph.pdf"),
    *("metrics.csv", "config.json", "result.json", "samples.json", "predictions.csv"),
}
LONGEST_README = 130  # lines


def test_the_readme_is_read_in_a_minute():
    assert len(TEXTS["README.md"].splitlines()) < LONGEST_README


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[name])
    for link in links:
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            path = (ROOT / name).parent / file if file else ROOT / name
            assert path.exists(), link
            assert not anchor or anchor in anchors(path), link


def anchors(path):
    """The names that a page's headings have in links."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_files_named_exist(name):
    """From the root, the page's own folder, a part's or the figures', except for what is made and not committed."""
    named = {*re.findall(r"`([\w./-]+\.(?:py|md|pdf|png|yml|toml|txt|csv|json))`", TEXTS[name])} - MADE_BY_A_RUN
    folders = [
        ROOT,
        (ROOT / name).parent,
        ROOT / "report" / "figures",
        *(path for path in ROOT.glob("part*/**") if path.is_dir()),
    ]
    assert [file for file in named if not any((folder / file).exists() for folder in folders)] == []


def test_the_layout_in_the_readme_is_that_of_the_repository():
    (tree,) = re.findall(r"## Layout\n\n```\n(.*?)```", TEXTS["README.md"], re.DOTALL)
    named = re.findall(r"^(\w+)/", tree, re.MULTILINE)
    hidden = {"runs", "data", "build"}
    assert {*named} == {path.name for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier()} - hidden
    for line in tree.splitlines():
        folder, *files = re.findall(r"[\w/]+/|\w+\.py", line)
        assert all((ROOT / folder / file).exists() or (ROOT / file).exists() for file in files), line


def commands(text):
    """The words of every command `python ...` or `torchrun ... FILE` of ours; placeholders are words like any other."""
    lines = re.findall(
        r"`(python [^`\n]+)`|^ *(?:srun \S+ \\\n *)?((?:python|torchrun) .+?)(?: +#.*)?$", text, re.MULTILINE
    )
    found = []
    for line in map("".join, lines):
        words = shlex.split(re.sub(r"\$\(.*\)", "", line), comments=True)
        if "-m" in words[:2] and words[2].split(".")[0] not in ("venv", "pip", "pytest"):
            found.append((words[2], words[3:]))
        elif scripts := [number for number, word in enumerate(words) if word.endswith(".py")]:
            module = words[scripts[0]].removesuffix(".py").replace("/", ".").replace("\\", ".")
            found.append((module, words[scripts[0] + 1 :]))
    return found


COMMANDS = {
    f"{name}: {shlex.join([module, *words])}": (module, words)
    for name, text in TEXTS.items()
    for module, words in commands(text)
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, monkeypatch):
    """The script or module is there and, if it has a parser of its own, takes the arguments."""
    module, words = COMMANDS[command]
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.setattr("shutil.which", lambda program: program)  # SLURM is here
    monkeypatch.setattr("common.experiment.working_tree", lambda: (None, []))  # which is clean
    script = importlib.import_module(module)
    if hasattr(script, "parse_arguments"):
        script.parse_arguments()
    elif hasattr(script, "build_parser"):
        script.build_parser().parse_args()


@pytest.mark.parametrize("name", ["README.md", "docs/running.md"])
def test_python_runs(name, capsys):
    """And prints what the comment behind a print says."""
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", TEXTS[name], re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {})
        printed = capsys.readouterr().out.splitlines()
        assert printed == re.findall(r"^print\(.*  # (.*)$", block, re.MULTILINE)


def test_the_readme_quotes_the_commands_that_were_run():
    """The benchmark that typed them is `benchmarks/readme.py`."""
    for row in read_results("benchmark_readme"):
        assert f"`{row['command']}`" in TEXTS["README.md"] or f"\n{row['command']} " in TEXTS["README.md"]


NO_MEASUREMENT = (
    r"```.*?```",
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"\{[\w.-]+\}",
    r"(?<=\|)[^|\n]*(?:nanoGPT|\(Kipf|\(Veli|\(Hochreiter|\(Gilmer|reports on|published answers)[^|\n]*(?=\|)",  # cited
    r"Python \d\.\d+|\(\d\.\d or newer\)",  # versions
    r"(?:LMU|PRML|UvA (?:spring |November )?\d{4}|^\||and|to|as|questions|,|;|:) \d\.\d[a-d]?\b",  # questions
    r"1,0\d\d (?:digits|units)|after 400 steps|text of 2 GB",  # settings
)
MEASUREMENT = re.compile(r"\d[.,]\d|\d ?%|\d (?:ns|ms|s|seconds|min|minutes|hours|kB|MB|GB|nats|meV|steps|times)\b|±")
WRITTEN_BY_HAND = [
    *sorted((ROOT / "report" / "pages").glob("*.template.md")),
    *(path for path in PAGES if path.name not in ("README.md", "questions.md", "results.md", "speed.md", "scaling.md")),
]


def typed_measurements(text):
    for pattern in NO_MEASUREMENT:
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if MEASUREMENT.search(line)]


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=lambda path: path.name)
def test_no_measured_number_is_typed_by_hand(path):
    assert typed_measurements(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text", ["accuracy 0.985", "in 14 s", "32 ms", "about 6 minutes", "1,600 steps", "76.5 %", "82 %"]
)
def test_a_typed_number_is_found(text):
    assert typed_measurements(f"It has {text}, `0.5`.")
