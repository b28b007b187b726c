"""What the Makefile, the environment files and the layout promise."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ("common", "recurrence", "part1", "part2", "part3", "part4", "grading", "benchmarks", "report")
FILES = sorted(path for folder in PROJECT for path in (ROOT / folder).rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
COMMANDS = [name for name, path in MODULES.items() if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")]
SCRIPTS = [  # run as files, from anywhere; the other commands run with -m, from the root
    str(MODULES[name].relative_to(ROOT))
    for name in COMMANDS
    if re.match(r"part\d|report", name) and ".experiments." not in name
]
RUN_WITH_M = [name for name in COMMANDS if str(MODULES[name].relative_to(ROOT)) not in SCRIPTS]
ARROWS = {  # who may import whom
    "common": {"common"},
    "recurrence": {"common", "recurrence"},
    "part1": {"common", "recurrence", "part1"},
    "part2": {"common", "recurrence", "part2"},
    "part3": {"common", "part3"},
    "part4": {"common", "part4"},
    "grading": {"common", "grading"},
}
LONGEST_TRAIN = 80  # lines


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported_names(path):
    """Return the dotted names that a file imports, in functions too; `from a import b` gives a and a.b.

    What it imports for a type checker only, under `if TYPE_CHECKING:`, is left out.
    """
    names, nodes = set(), [tree_of(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes += node.orelse
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        else:
            nodes += ast.iter_child_nodes(node)
    return names


def test_commands_of_the_makefile_exist():
    scripts = re.findall(r"\$\(PY\) ([\w/]+\.py)", text_of("Makefile"))
    modules = re.findall(r"\$\(PY\) -m ([\w.]+)", text_of("Makefile"))
    assert scripts and set(scripts) <= set(SCRIPTS)
    assert modules and set(modules) - {"pip", "pytest", "ruff", "mypy"} <= set(RUN_WITH_M)


@pytest.mark.skipif(tomllib is None, reason="tomllib came with Python 3.11")
def test_conda_and_pip_install_the_same():
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    conda = text_of("environment.yml").replace("pytorch", "torch")
    for requirement in project["dependencies"]:
        assert f"  - {requirement}\n" in conda, requirement


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_help_from_anywhere(script, tmp_path):
    command = [sys.executable, ROOT / script, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "usage:" in done.stdout and not done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", RUN_WITH_M)
def test_every_other_command_has_help(module):
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "usage:" in done.stdout and not done.stderr


@pytest.mark.parametrize("folder", ARROWS)
def test_imports_point_one_way(folder):
    for name, path in MODULES.items():
        if name.split(".")[0] == folder:
            found = {imported.split(".")[0] for imported in imported_names(path)} & {*PROJECT, "tests"}
            assert found <= ARROWS[folder], name


def test_no_file_imports_itself_by_a_circle():
    graph = {name: imported_names(path) & MODULES.keys() for name, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_nothing_imports_a_training_script_but_its_test():
    """The report may ask for a script's arguments with importlib, which imports no name."""
    for name, path in MODULES.items():
        assert not [imported for imported in imported_names(path) if re.fullmatch(r"part\d.*\.train", imported)], name


def test_only_experiments_import_experiments():
    for name, path in MODULES.items():
        if ".experiments" not in name and not name.startswith(("grading", "benchmarks", "report")):
            assert not [imported for imported in imported_names(path) if ".experiments" in imported], name


def test_common_knows_no_part():
    """Docstrings may name one, as an example."""
    for path in (ROOT / "common").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = None
        assert not re.search(r"part\d", ast.unparse(tree)), path.name


def test_a_train_function_can_be_read_at_a_glance():
    found = 0
    for name, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef) and node.name == "train":
                found += 1
                assert node.end_lineno - node.lineno + 1 <= LONGEST_TRAIN, name
    assert found >= 5


def test_every_test_file_tests_something():
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = [node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
        assert any(name.startswith("test_") for name in names), path
