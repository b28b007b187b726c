"""The model of benchmarks/scaling.py, and that its page says what the committed results give."""

import json
import subprocess
import sys
from argparse import Namespace

import pytest

from benchmarks.scaling import NAME, PAGE, Link, Work, early_share, fitted_link, page, ring, strong_speedup, summed
from benchmarks.scaling_processes import MESSAGES, MODELS, Operations
from common.experiment import read_results
from part2.model import TextGenerationModel
from tests.harness import ENVIRONMENT, POSIX, ROOT

STEP = Work(flop=6e9, operations=400, num_bytes=20_000_000, precision="float32")


def test_the_page_is_what_the_results_give():
    assert PAGE.read_text(encoding="utf-8") == page(read_results(NAME))


def test_a_ring_by_hand():
    """Four processes: three quarters of the sum go round to add up, and three to hand out, a quarter at a time."""
    assert ring(4, 400, Link(latency=1.0, bandwidth=100.0)) == 6 * (1 + 1)
    assert ring(2, 400, Link(latency=1.0, bandwidth=100.0)) == 2 * (1 + 2)
    assert ring(1, 400, Link(latency=1.0, bandwidth=100.0)) == summed(1, 1, 400) == 0


def test_efficiency_is_one_of_one_and_falls_with_the_number():
    efficiencies = [STEP.efficiency(128, summed(nodes, 1, STEP.num_bytes)) for nodes in (1, 2, 4, 64, 1000)]
    assert efficiencies[0] == strong_speedup(STEP, 128, 1) == 1
    assert efficiencies == sorted(set(efficiencies), reverse=True)
    assert STEP.efficiency(1000, 0.01) > STEP.efficiency(500, 0.01)
    assert STEP.efficiency(128, STEP.seconds(128)) == 0.5


def test_a_step_is_no_shorter_than_its_launches():
    assert STEP.seconds(1) == STEP.seconds(2) == pytest.approx(400 * 5e-6)
    assert STEP.seconds(2000) == pytest.approx(2 * STEP.seconds(1000))


@pytest.mark.parametrize("efficiency", [0.5, 0.9])
def test_the_least_batch_of_an_efficiency(efficiency):
    windows = STEP.least_windows(efficiency, 0.005)
    assert STEP.efficiency(windows, 0.005) >= efficiency > STEP.efficiency(windows - 1, 0.005)
    assert STEP.least_windows(efficiency, 1e-6) == 1


def test_the_fit_finds_the_link():
    link = Link(latency=2e-4, bandwidth=1e9)
    assert fitted_link({size: ring(2, size, link) for size in MESSAGES}) == pytest.approx(link)


@pytest.mark.parametrize("name", MODELS)
def test_what_can_be_sent_early(name):
    """All but the embedding and the first layer."""
    _, _, d, n, layers, K = MODELS[name]
    model = TextGenerationModel(Namespace(vocabulary_size=K, embedding_size=d, lstm_hidden_dim=n, lstm_num_layers=layers))
    late = sum(parameter.numel() for module in (model.embedding, model.layers[0]) for parameter in module.parameters())
    assert early_share(name) == pytest.approx(1 - late / sum(parameter.numel() for parameter in model.parameters()))


def test_operations_are_counted():
    import torch

    with Operations() as operations:
        x = torch.ones(2, 3)
        (x.t() @ x).relu_()
    assert operations.number == 3  # the transpose only looks at x differently


@POSIX
@pytest.mark.slow
def test_two_processes_measure_a_text(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["benchmarks/scaling_processes.py", "text", tmp_path / "found", "--text", "LICENSE", "--folder", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found").read_text())
    assert found["peak, MB"] >= found["private, MB"] > 50 and found["training steps, 1/s"] > 0
