"""What every test here shares."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that async tests run on; a host has no other."""
    return "asyncio"
