"""For the tests of extension authors: a host of one's own, with nothing installed in it unless asked.

A pytest plugin (entry point `pytest11`); its fixtures are there once `jan-core` is installed. In an extension's project
nothing needs to be said: the extension under test is the project that the test lies in.

    async def test_it_greets(caller):
        assert await caller.call("hello.greet", {"name": "Ada"}) == {"text": "Hello, Ada!"}

    async def test_it_is_what_a_host_expects(extension):
        await assert_extension_conforms(extension)

Elsewhere a fixture `extension` says what is tested: it returns a class, an instance, or the folder of a project. A test
that needs more than one extension, or a host with options, opens its own with `open_host`.

Async tests need a runner: anyio's is there (`anyio_mode = "auto"` in pytest's settings, and a fixture `anyio_backend`
that returns "asyncio"). Nothing of this is imported by a running host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conformance import assert_extension_conforms
from .inline import InlineSource
from .project import as_source, project_of

if TYPE_CHECKING:
    from ..context import Caller
    from ..host import Host

__all__ = ["InlineSource", "assert_extension_conforms", "caller", "extension", "host", "open_host"]

# The host is imported inside the fixtures: pytest loads this plugin before coverage starts, in every project that has
# jan-core installed.


@pytest.fixture
def extension(request: pytest.FixtureRequest) -> Any:
    """The extension under test: the project that the test lies in. Override it to test another one."""
    from ..manifest import ManifestError

    try:
        return as_source(project_of(request.path))
    except (LookupError, ManifestError) as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
async def host(extension: Any, tmp_path: Path) -> AsyncIterator[Host]:
    """A host in a fresh data folder with the extension under test in it, active, and nothing else."""
    from ..host import Host

    async with Host(tmp_path / "data", sources=[as_source(extension)]) as opened:
        await opened.lifecycle.activate_all()
        yield opened


@pytest.fixture
def caller(host: Host) -> Caller:
    """Calls the methods of `host` in memory, as a client or another extension would."""
    return host.client("test")


@pytest.fixture
def open_host(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Open a host in a fresh data folder: `open_host(plugin, methods=["hello."])` or `open_host(sources=[…])`.

    Its extensions are active when the block begins. Keyword arguments beside these go to `Host`.
    """
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
