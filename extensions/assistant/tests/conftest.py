"""A house with nothing in it but the assistant extension, as it is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from jan_core.host import Host
from jan_core.loader import installed
from jan_core.rpc.direct import DirectClient

OpenHouse = Callable[[], AbstractAsyncContextManager[Host]]


@pytest.fixture
def open_house(open_host: Any) -> OpenHouse:
    """Open a host; the same data folder each time."""
    return lambda: open_host(sources=[s for s in installed() if s.id == "assistant"])


@pytest.fixture
async def client(open_house: OpenHouse) -> AsyncIterator[DirectClient]:
    async with open_house() as host:
        yield host.client("test")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
