"""Each probe of part 2, on the solution that `--submission` names."""

import pytest


def test_part2(probe, run_probe):
    found = run_probe(*probe)
    if found != "passed":
        pytest.fail(found, pytrace=False)
