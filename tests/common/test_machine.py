"""Devices, random number generators and provenance."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from common import machine
from common.errors import CommandError
from common.machine import GlobalGenerators, get_device, provenance, seeded_generator
from common.paths import ROOT


def test_devices():
    assert get_device("cpu").type == "cpu"
    assert get_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("abacus", "cuda:99", "cpu:x", ""):
        with pytest.raises(CommandError, match="cannot be used here") as error:
            get_device(name)
        assert "\n" not in str(error.value)


def test_streams_are_repeatable_and_independent():
    def first(seed, stream):
        return tuple(torch.rand(3, generator=seeded_generator(seed, stream)).tolist())

    assert first(1, "weights") == first(1, "weights")
    seeds, streams = (0, 1, 2**40), ("weights", "training", "held out")
    assert len({first(seed, stream) for seed in seeds for stream in streams}) == 9


def test_streams_do_not_depend_on_the_hash_seed():
    code = "from common.machine import seeded_generator as s; print(s(3, 'weights').initial_seed())"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout == f"{seeded_generator(3, 'weights').initial_seed()}\n"


def test_global_generators_continue_where_they_were_saved():
    generators = GlobalGenerators(torch.device("cpu"))
    saved = generators.state_dict()
    drawn = torch.rand(3)
    generators.load_state_dict(saved)
    assert torch.equal(torch.rand(3), drawn)


def test_provenance_names_no_path_of_the_machine():
    assert set(provenance()) == {"command", "commit", "versions", "hardware"}
    assert str(ROOT) not in json.dumps(provenance())


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a script, a result, and a file that git ignores."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("part1/train.py", "report/results/a.csv", ".gitignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("runs/\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def tree():
    """Return what `working_tree` finds now, and the commit in the provenance."""
    machine.working_tree.cache_clear()
    try:
        return *machine.working_tree(), provenance()["commit"]
    finally:
        machine.working_tree.cache_clear()


def test_a_changed_file_makes_a_tree_dirty(repository):
    commit, changed, recorded = tree()
    assert len(commit) == 12 and recorded == commit and changed == []
    (repository / "part1/train.py").write_text("other")
    assert tree() == (commit, ["part1/train.py"], f"{commit}-dirty")
    (repository / "part1/train.py").unlink()
    assert tree()[1] == ["part1/train.py"]


@pytest.mark.parametrize(
    "name",
    ["report/results/a.csv", "report/figures/new.pdf", "report/numbers.tex", "docs/speed.md", "runs/a.py", "a.log"],
)
def test_results_and_what_is_ignored_leave_a_tree_clean(repository, name):
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("other")
    commit, changed, recorded = tree()
    assert changed == [] and recorded == commit


def test_new_code_makes_a_tree_dirty(repository):
    (repository / "part1/two words.py").write_text("new")
    assert tree()[1] == ["part1/two words.py"]


def test_without_git_or_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert tree() == (None, [], None)
    monkeypatch.setenv("PATH", "")
    assert tree() == (None, [], None)


COMMANDS = """
from common.command import command_line
from common.run_folder import RunFolder
print(command_line())
run = RunFolder.__new__(RunFolder)
run.path = "runs/x"
print(run.resume_command())
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with our common/, and a script part/train.py that prints how it was started and how to resume it."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "common", folder / "common", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("part", "report"):
        (folder / name).mkdir()
    (folder / "report" / "main.tex").touch()  # by which common/paths.py knows the repository
    (folder / "part" / "train.py").write_text(f"import sys\nsys.path.insert(0, {str(folder)!r})\n{COMMANDS}")
    return folder


def torchrun(program):
    words = f"--standalone --nproc_per_node 1 {program}"
    command = ["-m", "torch.distributed.run", *words.split()]
    return pytest.param(".", command, f"torchrun {words}", f"torchrun {words}", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("folder", "words", "recorded", "resumed"),
    [
        (".", ["part/train.py"], "python part/train.py", "python part/train.py"),
        ("part", ["train.py"], "cd part && python train.py", "python train.py"),
        (".", ["-m", "part.train"], "python -m part.train", "python -m part.train"),
        torchrun("part/train.py"),
        torchrun("-m part.train"),
    ],
)
def test_commands_are_recorded_and_resumed_as_they_were_typed(checkout, folder, words, recorded, resumed):
    command = [sys.executable, *words, "--name", "two words", "--run_dir", "x"]
    done = subprocess.run(command, cwd=checkout / folder, capture_output=True, text=True, timeout=60)
    arguments = "--name 'two words' --run_dir x"
    assert done.stdout.splitlines() == [f"{recorded} {arguments}", f"{resumed} {arguments} --resume"], done.stderr
