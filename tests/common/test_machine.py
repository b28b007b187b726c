"""Devices, random number generators and provenance."""

import json
import os
import subprocess
import sys

import pytest
import torch

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
