"""The model of benchmarks/scaling.py, and that its page says what the committed results give."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.scaling import (
    NAME,
    PAGE,
    GPUStep,
    Link,
    early_share,
    fitted_link,
    hierarchical_all_reduce,
    page,
    ring_all_reduce,
    strong_speedup,
)
from benchmarks.scaling_processes import MESSAGES, MODELS, Operations
from common.experiment import read_results
from tests.harness import ENVIRONMENT, POSIX, ROOT

STEP = GPUStep(flop=6e9, operations=400, num_bytes=20_000_000, precision="float32")


def test_the_page_is_what_the_results_give():
    assert PAGE.read_text(encoding="utf-8") == page(read_results(NAME))


def test_a_ring_by_hand():
    """Four processes: each sends three quarters to add them up and three to hand out the sum, a quarter at a time."""
    link = Link(latency=1.0, bandwidth=100.0)
    assert ring_all_reduce(4, 400, link) == 6 * (1 + 1)
    assert ring_all_reduce(2, 400, link) == 2 * (1 + 2)
    assert ring_all_reduce(1, 400, link) == hierarchical_all_reduce(1, 1, 400) == 0


def test_efficiency_is_one_for_one_gpu_and_falls_with_their_number():
    sums = [hierarchical_all_reduce(nodes, 1, STEP.num_bytes) for nodes in (1, 2, 4, 64, 1000)]
    efficiencies = [STEP.efficiency(128, communication) for communication in sums]
    assert efficiencies[0] == strong_speedup(STEP, 128, 1) == 1
    assert efficiencies == sorted(set(efficiencies), reverse=True)
    assert STEP.efficiency(1000, 0.01) > STEP.efficiency(500, 0.01)
    assert STEP.efficiency(128, STEP.seconds(128)) == 0.5


def test_a_step_takes_at_least_the_time_of_its_launches():
    assert STEP.seconds(1) == STEP.seconds(2) == pytest.approx(400 * 5e-6)
    assert STEP.seconds(2000) == pytest.approx(2 * STEP.seconds(1000))


@pytest.mark.parametrize("efficiency", [0.5, 0.9])
def test_the_smallest_batch_that_reaches_an_efficiency(efficiency):
    windows = STEP.least_windows(efficiency, 0.005)
    assert STEP.efficiency(windows, 0.005) >= efficiency > STEP.efficiency(windows - 1, 0.005)
    assert STEP.least_windows(efficiency, 1e-6) == 1


def test_the_fit_finds_the_link():
    link = Link(latency=2e-4, bandwidth=1e9)
    assert fitted_link({size: ring_all_reduce(2, size, link) for size in MESSAGES}) == pytest.approx(link)


@pytest.mark.parametrize("name", MODELS)
def test_all_but_embedding_and_first_layer_can_be_sent_early(name):
    model = MODELS[name].model()
    late = sum(parameter.numel() for module in (model.embedding, model.layers[0]) for parameter in module.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert early_share(MODELS[name]) == pytest.approx(1 - late / total)


def test_operations_are_counted():
    with Operations() as operations:
        x = torch.ones(2, 3)
        (x.t() @ x).relu_()
    assert operations.number == 3  # the transpose is a view of x


@POSIX
@pytest.mark.slow
def test_two_processes_measure_a_text(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "benchmarks.scaling_processes", "text", tmp_path / "measured"]
    command += ["--text", "LICENSE", "--folder", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "measured").read_text())
    assert measured["peak, MB"] >= measured["private, MB"] > 50 and measured["training steps, 1/s"] > 0
