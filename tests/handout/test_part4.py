"""Each probe of part 4, on the solution that `--submission` names."""

import pytest


def test_part4(probe, run_probe):
    found = run_probe(*probe)
    if found != "passed":
        pytest.fail(found, pytrace=False)
