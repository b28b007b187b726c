"""What `pip install .` gives: every module and its data, trainings in any folder; and the versions it promises."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import POSIX, ROOT

PACKAGES = ("common", "recurrence", "part1", "part2", "part3", "part4", "grading")
TRAIN = ["-m", "part1.train", *"--model_type RNN --input_length 4 --batch_size 8 --num_hidden 8 --train_steps".split()]

IMPORT_ALL = """
import json, pkgutil, sys
from importlib import import_module
packages = {name: import_module(name).__path__ for name in sys.argv[1:]}
names = [module.name for name in packages for module in pkgutil.walk_packages(packages[name], f"{name}.")]
names.remove("common.figure")  # for those who draw
print(json.dumps([[import_module(name).__file__ for name in names], list(sys.modules)]))
"""
FORWARD_AND_BACKWARD = """
import torch
from part1.lstm import LSTM
from part1.vanilla_rnn import VanillaRNN
from common.data import cache_folder
for Model in (VanillaRNN, LSTM):
    model = Model(seq_length=5, input_dim=1, num_hidden=8, num_classes=10, batch_size=3)
    model(torch.rand(3, 5).mul(10).floor()).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
print(cache_folder())
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A folder into which the project is installed, from a copy, since building leaves files in the source."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target), str(source)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True, timeout=300)
    return target


@pytest.fixture(scope="module")
def imported(target, tmp_path_factory):
    """The files of all installed modules, and the names of all modules that are loaded once those are imported."""
    return json.loads(run(target, tmp_path_factory.mktemp("empty"), "-c", IMPORT_ALL, *PACKAGES))


def start(target, folder, *words):
    """Start Python in a folder, with the installed project; its cache of kernels is empty."""
    environment = {**os.environ, "PYTHONPATH": str(target), "XDG_CACHE_HOME": str(target.with_name("cache"))}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, env=environment, **options)


def run(target, folder, *words):
    """Return what Python prints."""
    process = start(target, folder, *words)
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return output


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def lower_bounds(name):
    """Return {package: oldest version} of a file that requires them with >=."""
    return dict(re.findall(r"([\w-]+)>=([\d.]+)", (ROOT / name).read_text(encoding="utf-8")))


def pins():
    return dict(re.findall("^(.+)==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))


def test_everything_but_the_experiments_is_installed(target):
    ours = {f"{name}/{path}" for name in PACKAGES for path in files_in(ROOT / name)}
    expected = {path for path in ours if not {"experiments", "__pycache__"}.intersection(path.split("/"))}
    assert {"recurrence/kernel.c", "part2/assets/grimm.txt", "part1/py.typed"} <= expected
    assert {path for path in files_in(target) if ".dist-info/" not in path} == expected


def test_all_modules_import_without_the_repository(target, imported):
    files, _ = imported
    assert len(files) > 40 and all(Path(file).is_relative_to(target) for file in files)


def test_matplotlib_and_tensorboard_are_imported_only_where_they_are_needed(imported):
    _, loaded = imported
    assert {"torch", "part1.train", "part2.train", "part3.train", "part4.train"} <= set(loaded)
    assert not {"matplotlib", "tensorboard", "torch.utils.tensorboard"}.intersection(loaded)


def test_models_go_forward_and_backward_without_the_repository(target, tmp_path):
    kernels = run(target, tmp_path, "-c", FORWARD_AND_BACKWARD).strip()
    assert Path(kernels).parent == target.with_name("cache")  # not in the working directory, which changes


def test_a_training_writes_under_the_working_directory_and_nothing_beside_the_code(target, tmp_path):
    before = files_in(target)
    folder = "runs/part1/RNN_length4_seed0"
    assert f"run folder {os.path.normpath(folder)}\n" in run(target, tmp_path, *TRAIN, 20)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"} and f"{folder}/result.json" in files_in(tmp_path)
    assert files_in(target) == before


@pytest.mark.slow
@POSIX
def test_the_command_that_a_stopped_training_prints_goes_on_with_it(target, tmp_path):
    training = start(target, tmp_path, *TRAIN, 1_000_000)
    while not list(tmp_path.rglob("checkpoint.pt")):
        time.sleep(0.05)
    training.send_signal(signal.SIGTERM)
    step, command = re.search("at step (.+); go on with: python (.+)", training.communicate(timeout=60)[1]).groups()
    more = str(int(step.replace(",", "")) + 5)
    assert f"after {int(more):,} steps" in run(target, tmp_path, *shlex.split(command.replace("1000000", more)))


@pytest.mark.slow
def test_the_command_that_a_text_training_prints_writes(target, tmp_path):
    words = "--train_steps 5 --batch_size 2 --seq_length 8 --lstm_hidden_dim 8".split()
    (command,) = re.findall("^write with it: python (.+)$", run(target, tmp_path, "-m", "part2.train", *words), re.M)
    assert run(target, tmp_path, *shlex.split(command)).startswith("Sleeping beauty is")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "part3.train --epochs 3",
        "part3.qm9.train --model gnn --epochs 1",
        "part4.train_numpy --num_train 200 --num_epochs 1",
    ],
)
def test_the_other_trainings_run_with_their_defaults_data(target, tmp_path, words):
    if "qm9" in words:
        pytest.importorskip("rdkit", reason='pip install -e ".[molecules]"')
        pytest.importorskip("torch_geometric", reason='pip install -e ".[molecules]"')
    assert "run folder runs" in run(target, tmp_path, "-m", *words.split())


def test_environment_yml_asks_for_the_same_lower_bounds():
    asked = lower_bounds("environment.yml")
    asked["torch"] = asked.pop("pytorch")
    assert asked.items() <= lower_bounds("pyproject.toml").items()


def test_constraints_pin_every_package():
    assert pins().keys() == lower_bounds("pyproject.toml").keys()


def test_constraints_are_the_versions_behind_the_results():
    """They are recorded for two packages. Benchmarks may have been run elsewhere."""
    results = list((ROOT / "report" / "results").glob("part*.json"))
    assert len(results) > 10
    for path in results:
        versions = json.loads(path.read_text(encoding="utf-8"))["versions"]
        for name in ("torch", "numpy"):
            assert versions[name].split("+")[0] == pins()[name], path.name
