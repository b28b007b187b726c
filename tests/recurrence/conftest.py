"""The ways through a recurrence on a CPU, for the tests of this folder."""

import pytest

from recurrence import kernel


@pytest.fixture
def compiled_kernel():
    """Within the test the compiled recurrence is available."""
    if reason := kernel.why_not():
        pytest.skip(reason)


@pytest.fixture(params=["bptt", "compiled"])
def way(request):
    """Each of the two ways of a CPU."""
    if request.param == "compiled":
        request.getfixturevalue("compiled_kernel")
    return request.param
