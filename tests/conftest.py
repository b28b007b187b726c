"""What many tests share."""

import pytest
import torch

from tests.browser import open_pages, start_browser
from tests.tried import server


@pytest.fixture(scope="session")
def tried():
    """Runs commands, each in a fork of one process that has imported everything."""
    return server()


browser = pytest.fixture(start_browser, scope="session")
open_page = pytest.fixture(open_pages)


@pytest.fixture(autouse=True)
def seeded():
    """What a test draws without a generator of its own is the same in every order of the tests."""
    torch.manual_seed(0)
