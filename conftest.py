"""What every test of the workspace shares."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The byte pump is asyncio's own, so that is the one backend."""
    return "asyncio"
