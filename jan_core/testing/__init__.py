"""For the tests of extension authors: a host of one's own, with nothing installed in it unless asked.

A pytest plugin (entry point `pytest11`); its fixtures are there once `jan-core` is installed:

    async def test_greets(open_host):
        async with open_host(Greeter(), methods=["hello."]) as host:
            assert await host.client().call("hello.greet") == "hello"

Async tests need a runner of their own (anyio's is there: `pytestmark = pytest.mark.anyio`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from .inline import InlineSource

__all__ = ["InlineSource", "open_host"]


@pytest.fixture
def open_host(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Open a host in a fresh data folder: `open_host(plugin, methods=["hello."])` or `open_host(sources=[…])`.

    Its extensions are active when the block begins. Keyword arguments beside these go to `Host`.
    """
    # Imported here: pytest loads this plugin before coverage starts, in every project that has jan-core installed.
    from ..host import Host
    from ..loader import Source

    @asynccontextmanager
    async def opener(
        plugin: Any = None,
        *,
        id: str = "test",
        methods: Iterable[str] = ("test.",),
        sources: Iterable[Source] = (),
        data_dir: Path | None = None,
        **options: Any,
    ) -> AsyncIterator[Host]:
        own: list[Source] = [InlineSource(id, plugin, methods)] if plugin is not None else []
        async with Host(data_dir or tmp_path / "data", sources=[*own, *sources], **options) as host:
            await host.activate_startup()
            yield host

    return opener
