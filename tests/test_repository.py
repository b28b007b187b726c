"""What the README, the environment files and the layout promise holds."""

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
MODULES = [*ROOT.glob("part*/**/*.py"), *ROOT.glob("benchmarks/*.py")]
COMMANDS = sorted(
    str(path.relative_to(ROOT)) for path in MODULES if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
)
SCRIPTS = [name for name in COMMANDS if "/experiments/" not in name]  # run as files, from anywhere
EXPERIMENTS = [name.removesuffix(".py").replace("/", ".") for name in COMMANDS if name not in SCRIPTS]  # run with -m
ARROWS = {  # who may import whom
    "common": {"common"},
    "part1": {"common", "part1"},
    "part2": {"common", "part1", "part2"},
    "part3": {"common", "part3"},
    "part4": {"common", "part4"},
}


def test_files_named_in_the_readme_exist():
    """Runs, the environment and data are made, not committed."""
    named = re.findall(r"`([\w./-]+\.(?:py|pdf|png|yml|toml|csv))`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(named) > 10
    folders = [ROOT, ROOT / "report" / "figures", *(path for path in ROOT.glob("part*/**") if path.is_dir())]
    made_by_a_run = {"curves.pdf", "club.pdf", "metrics.csv"}
    missing = [name for name in named if name not in made_by_a_run and not any((folder / name).exists() for folder in folders)]
    assert not missing


def test_commands_of_the_readme_are_scripts():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    scripts = re.findall(r"python (part\d/[\w/]+\.py|benchmarks/\w+\.py)", readme)
    modules = re.findall(r"python -m ([\w.]+)", readme)
    assert scripts and set(scripts) <= set(SCRIPTS)
    assert modules and set(modules) - {"venv"} <= set(EXPERIMENTS)


@pytest.mark.skipif(tomllib is None, reason="tomllib came with Python 3.11")
def test_conda_and_pip_install_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    conda = (ROOT / "environment.yml").read_text(encoding="utf-8").replace("pytorch", "torch")
    for requirement in project["dependencies"]:
        assert f"  - {requirement}\n" in conda, requirement


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_help_from_anywhere(script, tmp_path):
    done = subprocess.run([sys.executable, ROOT / script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "usage:" in done.stdout and not done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", EXPERIMENTS)
def test_every_experiment_has_help(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "usage:" in done.stdout and not done.stderr


@pytest.mark.parametrize("part", ARROWS)
def test_imports_point_one_way(part):
    for path in (ROOT / part).rglob("*.py"):
        found = set(re.findall(r"^\s*(?:from|import) (common|part\d)\b", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert found <= ARROWS[part], path.name


def test_nothing_imports_a_training_script_but_its_test():
    for path in ROOT.glob("[!.]*/**/*.py"):
        if "tests" not in path.relative_to(ROOT).parts:
            assert not re.search(
                r"^\s*(from|import) part\d\.(qm9\.)?train\b", path.read_text(encoding="utf-8"), re.MULTILINE
            ), path
