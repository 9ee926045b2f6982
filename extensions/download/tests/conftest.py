"""What every test of downloads has: bad servers, a house, and nobody at home."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .desk import Desk
from .faultserver import FaultServer
from .house import OpenHouse, house_opener
from .nginx import nginx

__all__ = ["nginx"]

BUFFER = 1 << 16


@pytest.fixture(scope="session")
def data() -> bytes:
    return random.Random(7).randbytes(3_000_000)


@pytest.fixture(scope="session")
def big() -> bytes:
    """Enough for several pieces of the usual length and several connections."""
    return random.Random(11).randbytes(40_000_000)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(buffer=BUFFER) as one:
        yield one


@pytest.fixture
def serve_more() -> Iterator[Callable[..., FaultServer]]:
    """Makes further servers, each with a port of its own."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(FaultServer(*args, **{"buffer": BUFFER} | options))


@pytest.fixture
def others(serve_more: Callable[..., FaultServer]) -> list[FaultServer]:
    """Three further servers, each with an address of its own."""
    return [serve_more(host=f"127.0.0.{n}") for n in (2, 3, 4)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """What one run of the engine needs."""
    with Desk(tmp_path) as one:
        yield one


@pytest.fixture
def open_house(open_host: Any, tmp_path: Path) -> OpenHouse:
    """The data folder has a name as people give them."""
    return house_opener(open_host, tmp_path / "Jan's Daten für Tests")


@pytest.fixture(autouse=True)
def nobody_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the models that this machine's user has are looked at, nor the proxies and tokens used."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "XDG_DATA_HOME", "XDG_CONFIG_HOME",
                 "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "OLLAMA_MODELS",
                 "LLAMA_CACHE", "LMSTUDIO_HOME", "JAN_DATA_FOLDER"):  # fmt: skip
        monkeypatch.setenv(name, str(home))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "hf_token"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
