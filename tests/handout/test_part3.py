"""Each probe of part 3, on the solution that `--submission` names."""

import importlib.util

import pytest

if not importlib.util.find_spec("torch_geometric"):
    pytest.skip('the probes of part 3 need torch_geometric: pip install -e ".[molecules]"', allow_module_level=True)


def test_part3(probe, run_probe):
    found = run_probe(*probe)
    if found != "passed":
        pytest.fail(found, pytrace=False)
