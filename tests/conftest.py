"""What many tests share."""

import pytest

from tests.tried import Tried


@pytest.fixture(scope="session")
def tried():
    """Runs commands, each in a fork of one process that has imported everything."""
    with Tried() as tried:
        yield tried
