"""The compiled recurrence, for the tests of this folder."""

import pytest

from recurrence import kernel


@pytest.fixture
def compiled_kernel():
    """Within the test the compiled recurrence is available."""
    if reason := kernel.why_not():
        pytest.skip(reason)
