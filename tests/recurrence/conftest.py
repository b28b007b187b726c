"""The compiled kernel, for the tests of this folder."""

import pytest

from common.errors import CommandError
from recurrence import kernel


@pytest.fixture(scope="session")
def built_kernel(tmp_path_factory):
    """The kernel, compiled into a folder of the tests' own, so that nothing else finds it."""
    if not kernel.is_available():
        try:
            kernel.build(tmp_path_factory.mktemp("kernel") / "lstm_kernel.so")
        except CommandError as error:
            pytest.skip(str(error))


@pytest.fixture
def compiled_kernel(built_kernel, monkeypatch):
    """Within the test the compiled recurrence is available."""
    monkeypatch.setattr(kernel, "is_available", lambda: True)
