"""A house that may ask remote engines, and a real server on loopback that is one."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import jan_llamacpp.remote.retry as retry
import pytest
from jan_llamacpp.plugin import LlamaCppExtension

from jan_core.testing import InlineSource

from ..endpoint import Endpoint
from .asking import Listener

MANIFEST = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
PREFIXES = MANIFEST["tool"]["jan"]["extension"]["methods"]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint().serving() as serving:
        yield serving


@pytest.fixture
async def client(
    open_host: OpenHost, tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A client of a house whose policy lets requests leave, without a keyring."""
    import keyring
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    sources = [InlineSource("llamacpp", LlamaCppExtension, PREFIXES), InlineSource("listener", listener)]
    try:
        async with open_host(sources=sources, data_dir=tmp_path / "data") as host:
            client = host.client()
            assert "on this machine" in (await client.call("remotes.list"))["kept_here"], "by default"
            values = {"routing": "remote-allowed"}
            await client.call("settings.set", {"extension": "llamacpp", "values": values})
            yield client
    finally:
        keyring.set_keyring(before)
