"""What every client may rely on holds of an extension in a process of its own: the same tests, the same clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jan_core.events import Event
from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.rpc.direct import DirectClient

from .isolation import PROJECT
from .test_contract import *  # noqa: F403 (the tests themselves)


class Watched:
    """An event of the sample in the child. It says that it is set before it answers what set it."""

    def __init__(self, client: DirectClient, name: str) -> None:
        self._client, self._name, self._set = client, name, False

    def heard(self, data: Any) -> None:
        self._set = self._set or data["name"] == self._name

    def is_set(self) -> bool:
        return self._set

    async def wait(self) -> None:
        await self._client.call("test.until", {"text": self._name})


class Released(Watched):
    """The event that a test sets."""

    def __init__(self, host: Host, client: DirectClient) -> None:
        super().__init__(client, "release")
        self._host = host

    def set(self) -> None:
        self._host.lifecycle.start_soon(self._client.call("test.let"), "let")


class Observer:
    """Stands for the `Sample` of the contract's tests."""

    def __init__(self, host: Host) -> None:
        client = host.client("observer")
        self.running, self.cancelled = Watched(client, "running"), Watched(client, "cancelled")
        self.release = Released(host, client)
        self.sent = 0

    def hear(self, event: Event) -> None:
        if event.name == "test.observed":
            self.sent = event.data["sent"]
            self.running.heard(event.data)
            self.cancelled.heard(event.data)


@pytest.fixture
async def host(open_host: Any) -> AsyncIterator[Host]:
    async with open_host(sources=[folder_source(PROJECT)]) as opened:
        yield opened


@pytest.fixture(params=["direct", "wire"])
async def client(request: pytest.FixtureRequest, host: Host, wire: Any) -> AsyncIterator[Any]:
    if request.param == "direct":
        yield host.client("direct")
        return
    async with wire() as connected:
        yield connected


@pytest.fixture
def sample(host: Host) -> Any:
    observer = Observer(host)
    with host.bus.subscribe(observer.hear):
        yield observer
