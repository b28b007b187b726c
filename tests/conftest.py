"""What many tests share."""

import pytest

from tests.browser import open_pages, start_browser
from tests.tried import server


@pytest.fixture(scope="session")
def tried():
    """Runs commands, each in a fork of one process that has imported everything."""
    return server()


browser = pytest.fixture(start_browser, scope="session")
open_page = pytest.fixture(open_pages)
