"""What benchmarks/gpu.py does where a measurement fails, hangs or has no time, without a GPU; and its arithmetic."""

import importlib
import math
import os
import subprocess
import sys
import time
from functools import partial
from itertools import groupby

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Setup, Unit
from benchmarks.part1 import Size
from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from recurrence.gpu import _precision
from tests.harness import ENVIRONMENT, ROOT

SETUP = Setup("cpu", seconds=0, quick=True)
ROW = {"benchmark": "b", "variant": "v", "value": "1", "unit": "ms", "ratio": "1.000"}
WORKS, FAILS = Unit("works", 1, partial(list, (ROW,))), Unit("fails", 1, partial(divmod, 1, 0))
DIES, HANGS = Unit("dies", 1, partial(os._exit, 3)), Unit("hangs", 1, partial(time.sleep, 60))


class InThisProcess:
    def run(self, unit, seconds):
        return gpu.attempt(unit)

    def end(self):
        pass


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Return a function that runs the command with these units, in this process, and writes below tmp_path."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setattr(gpu, "Worker", InThisProcess)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)

    def run(*units, words=("--device", "cpu")):
        monkeypatch.setattr("sys.argv", ["gpu.py", *words])
        for part in ("agreement", "recurrences", "graphs"):
            monkeypatch.setattr(gpu, part, lambda setup: [])
        monkeypatch.setattr(gpu, "images", lambda setup: list(units))
        gpu.main()

    return run


def test_a_failure_is_a_row_and_a_line_and_the_exit_code(command, tmp_path, capsys):
    with pytest.raises(CommandError, match=r"^1 of 3 rows are failures") as stop:
        command(WORKS, FAILS, WORKS)
    assert stop.value.exit_code == 1
    rows = read_results(gpu.NAME, tmp_path / "runs" / gpu.NAME)
    assert [row["benchmark"] for row in rows] == ["b", "fails", "b"]
    assert rows[1]["variant"].startswith("failed: ZeroDivisionError: ")
    assert capsys.readouterr().err == f"fails: {rows[1]['variant']}\n"


def test_the_rows_of_the_committed_results_have_these_columns(command, tmp_path):
    command(WORKS)
    rows = read_results(gpu.NAME, tmp_path / "runs" / gpu.NAME)
    assert rows[0].keys() == read_results("benchmark_part1")[0].keys()


def test_what_has_no_time_is_left_out(command, tmp_path, capsys):
    command(WORKS, WORKS._replace(name="long", seconds=1e6), WORKS)
    assert len(read_results(gpu.NAME, tmp_path / "runs" / gpu.NAME)) == 2
    assert "left out, 8 minutes being too few: long\n" in capsys.readouterr().out
    with pytest.raises(CommandError, match=r"^0\.01 minutes are too few"):
        command(WORKS, words=["--device", "cpu", "--minutes", "0.01"])


def test_without_a_gpu_it_ends_at_once(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CommandError, match=r"^there is no GPU that PyTorch can use") as stop:
        gpu.main()
    assert stop.value.exit_code == 2


def test_it_does_not_start_in_a_changed_tree(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(experiment, "working_tree", lambda: ("1234", ["part1/train.py"]))
    with pytest.raises(CommandError, match=r"^part1/train\.py is not as committed"):
        gpu.main()


def test_a_difference_beyond_the_tolerance_is_a_failure():
    assert not gpu.has_failed(gpu.checked("b", "difference", 1e-4, 1e-4))
    for difference in (2e-4, math.inf, math.nan):
        assert gpu.has_failed(gpu.checked("b", "difference", difference, 1e-4))


def test_an_error_names_the_line_of_the_repository():
    def call():
        torch.ones(2) @ torch.ones(3)

    (row,) = gpu.attempt(Unit("product", 1, call))
    line = call.__code__.co_firstlineno + 1
    assert row["variant"].startswith("failed: RuntimeError: ")
    assert row["variant"].endswith(f"(tests/benchmarks/test_gpu.py, line {line})")


def test_the_floor_by_hand():
    """An RNN, T = 2, B = 3, d = 4, n = 5, two layers; a product of (m, k) and (k, B) takes 2 m k B operations."""
    size = Size(B=3, T=2, d=4, n=5, layers=2)
    first = 2 * 2 * (2 * 5 * 4 * 3) + 3 * (2 * 5 * 5 * 3)  # z and d_W_x of two steps; a, d_h and d_W_h between them
    second = 3 * 2 * (2 * 5 * 5 * 3) + 3 * (2 * 5 * 5 * 3)  # d_x as well
    assert gpu.floor(1, size, 4, 1.0, math.inf) == 1000 * (first + second)
    numbers = 2 * 3 * 4 + 2 * 3 * 5 + 2 * (5 * 4 + 5 * 5 + 5) + 2 * (5 * 5 + 5 * 5 + 5)  # x, h, twice the weights
    assert gpu.floor(1, size, 4, math.inf, 1.0) == 1000 * 4 * numbers
    assert gpu.floor(1, size, 2, math.inf, 1.0) == 1000 * 2 * numbers
    one_layer = size._replace(layers=1)
    assert gpu.floor(4, one_layer, 4, 1.0, math.inf) == 4 * gpu.floor(1, one_layer, 4, 1.0, math.inf)


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_the_variants_of_a_recurrence_compute_the_same(name):
    exact, variants = gpu.recurrence_variants(name, Size(3, 4, 2, 5, layers=2), "float32", SETUP)
    expected = gpu.states_and_gradients(exact)
    assert len(expected) == 1 + 2 * 3 and set(variants) == {"ours, auto", "ours, bptt", "plain loop", "torch.nn"}
    for variant in variants.values():
        found = gpu.states_and_gradients(variant)
        assert max(map(gpu.relative_error, found, expected)) < gpu.STATES["float32"]
        assert gpu.relative_error(found[2], 1.01 * expected[2]) > gpu.STATES["float32"]


@pytest.mark.parametrize("command", gpu.SCRIPTS)
def test_the_scripts_have_these_arguments(command):
    script, *words = command.format(text="tales.txt", graph="cora").split()
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    module.build_parser().parse_args([*words, "--print_every", "1", "--device", "cpu", "--run_dir", "run"])


def test_our_kernels_follow_the_choice_of_tf32():
    try:
        for choice, expected in ((True, "tf32"), (False, "ieee")):
            gpu.set_tf32(matmul=choice, cudnn=not choice)
            assert _precision(torch.float32) == expected and torch.backends.cudnn.allow_tf32 is not choice
    finally:
        gpu.set_tf32(matmul=False, cudnn=True)  # PyTorch's defaults


def test_medians_take_turns():
    called = []
    variants = {name: partial(called.append, name) for name in "ab"}
    assert gpu.medians(variants, Setup("cpu", seconds=0, quick=False)).keys() == variants.keys()
    turns = [name for name, _ in groupby(called)]  # one for warming up, then the rounds
    assert turns == ["a", "b"] * (1 + gpu.LEAST_ROUNDS)


def test_the_random_graph_has_the_size_of_cora():
    graph = gpu.random_graph()
    assert graph.A.shape == (2708, 2708) and graph.features.shape == (2708, 1433)
    assert [len(graph.train), len(graph.validation), len(graph.test)] == [140, 500, 1000]
    assert 5200 < len(graph.A.values) / 2 < 5278


@pytest.mark.slow
def test_a_process_that_dies_or_hangs_is_replaced(capsys):
    rows = [dict(row) for unit in (DIES, WORKS) for row in gpu.measure([unit], 1, list)]
    assert [row["variant"] for row in rows] == ["failed: the process died", "v"]
    worker = gpu.Worker()
    try:
        assert worker.run(HANGS, 0.5)[0]["variant"].startswith("failed: not done after")
        assert worker.run(WORKS, 60) == [ROW]
        assert worker.run(FAILS, 60)[0]["variant"].startswith("failed: ZeroDivisionError")
        assert worker.pool is None
    finally:
        worker.end()
    assert "dies: failed: the process died" in capsys.readouterr().err


@pytest.mark.slow
def test_all_of_it_on_a_cpu():
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--minutes", "20"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    rows = read_results(gpu.NAME, ROOT / "runs" / gpu.NAME)
    assert not any(map(gpu.has_failed, rows))
    benchmarks = " ".join(row["benchmark"] for row in rows)
    for part in (
        "part1/train.py",
        "part2/generate.py",
        "part4/train.py",
        "densenet121",
        "LSTM forward + backward",
        "GAT, epoch on",
    ):
        assert part in benchmarks
