"""`jan ext dev`: an extension's project in a host, reloaded whenever a file of it is saved, with what happens in view.

It runs the product's own host with the project in it. Reloading is the host's (`extensions.reload`); this watches,
asks, and prints.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .app import App, Failed, pass_app
from .output import clean, note, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jan_core import Caller, RpcError
    from jan_core.extension import Extension, Failure
    from jan_core.host import Host

    from .session import Session

__all__ = ["dev"]

MISSING = "what the project depends on comes with: jan ext install PATH"


@click.command()
@click.argument("folder", metavar="PATH", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--call", "method", metavar="METHOD", help="Call this method after each reload and print its result.")
@click.argument("params", required=False, metavar="[JSON]")
@pass_app
def dev(app: App, folder: Path, method: str | None, params: str | None) -> None:
    """Run the extension project at PATH and reload it whenever a file of it is saved. Ctrl-C ends it.

    JSON holds the params of the method that --call names. Mistakes are shown with file and line while the code before
    them goes on serving.
    """
    from jan_core.loader import folder_source
    from jan_core.manifest import ManifestError

    from .session import run_session
    from .system import decoded

    if params is not None and method is None:
        raise click.UsageError("the params are of no method: name it with --call")
    try:
        source = folder_source(folder.resolve())
    except ManifestError as error:
        raise Failed(str(error), "begin an extension with: jan ext new NAME") from None
    bench = Bench(folder.resolve(), source.id, source.origin, method, decoded(params))
    run_session(replace(app, opener=bench.opened), bench.work)


class Bench:
    """One extension under work."""

    def __init__(self, folder: Path, id: str, package: str, method: str | None, params: Any) -> None:
        self._folder, self._id, self._package = folder, id, package
        self._method, self._params = method, params
        self._methods: set[str] = set()
        self._failed = False
        self._calling: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def opened(self, app: App, activate: bool) -> AsyncIterator[Caller]:
        """The product's host with the project in it."""
        from ..runtime import open_host
        from .session import start_log

        start_log(app)
        async with open_host(app.data_dir, safe_mode=app.safe_mode, activate=False, folders=[self._folder]) as host:
            self._host: Host = host
            self._caller = host.client("dev")
            yield self._caller

    async def work(self, session: Session) -> None:
        """Load it, then follow its files until interrupted."""
        from jan_core.extension import State
        from jan_core.watch import Watcher

        stop = self._stop
        extension = self._host.lifecycle.find(self._id)
        watcher = Watcher(lambda: [extension], self._reload)
        note(f"{self._id}: watching {self._folder}; Ctrl-C ends it")
        with _log_shown(self._id, self._package), session.interrupts.stopping(stop.set):
            if extension.state is State.DISABLED:  # by its author once, or by safe mode: here it is what is asked for
                await self._host.lifecycle.enable(extension)
            await self._reload(extension)
            watching = asyncio.create_task(watcher.run(self._host.bus))
            await asyncio.wait([watching, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
            tasks = [task for task in (watching, self._calling) if task is not None]
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome

    async def _reload(self, extension: Extension) -> None:
        from jan_core import RpcError

        try:
            answer = await self._caller.call("extensions.reload", {"id": self._id})
        except RpcError as error:
            going_on = f"; generation {extension.current.number} goes on" if extension.current else ""
            self._failed = True
            _say("failed", f"{_reason(error, self._package)}{going_on}")
            return
        methods = {m.name for m in extension.current.methods} if extension.current else set()
        if not answer["changed"] and not self._failed:
            return
        took = answer.get("seconds", {}).get("total")
        after = f" after {took * 1000:.0f} ms" if answer["changed"] and took is not None else ""
        changes = [f"+{name}" for name in sorted(methods - self._methods)]
        changes += [f"-{name}" for name in sorted(self._methods - methods)]
        _say("serves", " ".join([f"generation {answer['generation']}{after}", *changes]))
        self._methods, self._failed = methods, False
        if self._method is not None:
            if self._calling is not None:
                self._calling.cancel()
            self._calling = asyncio.create_task(self._call(self._method))
            self._calling.add_done_callback(self._called)

    def _called(self, call: asyncio.Task[None]) -> None:
        if not call.cancelled() and call.exception() is not None:  # nobody reads what is printed any more
            self._stop.set()

    async def _call(self, method: str) -> None:
        from jan_core import RpcError

        try:
            async with self._caller.stream(method, self._params) as stream:
                async for item in stream:
                    print_json(item)
                print_json(await stream.result())
        except RpcError as error:
            _say("error", _reason(error, self._package))


def _say(what: str, text: str) -> None:
    """One line of what happens, with the time."""
    click.echo(f"{time.strftime('%H:%M:%S')}  {what:<6}  {' '.join(clean(text).split())}")


def _reason(error: RpcError, package: str) -> str:
    """Why a call failed, with the place where it is known: here one person is both caller and author."""
    from jan_core.extension import Failure

    cause = error.__cause__
    if told := error.data.get("failure"):
        return f"{told['stage']}: {_described(Failure(**told))}"
    if error.type != "internal_error" or cause is None:
        return f"{error.type}: {error.message}"
    return _described(Failure.of("call", cause, package))


def _described(failure: Failure) -> str:
    """A failure, its place where there is one, and what to do where the message does not say it."""
    where = f" ({failure.file}:{failure.line})" if failure.file else ""
    hint = f"; {MISSING}" if failure.type == "ModuleNotFoundError" else ""
    return f"{failure.type}: {failure.message}{where}{hint}"


def _last_of(trace: str) -> str:
    """What a formatted traceback ends with, and the place it names last."""
    *_, last = trace.strip().splitlines()
    places = re.findall(r'File "(.+)", line (\d+)', trace)
    return f"{last} ({':'.join(places[-1])})" if places else last


@contextmanager
def _log_shown(id: str, package: str) -> Iterator[None]:
    """Show what is logged by an extension, or about it, in this block."""
    from jan_core import lifecycle, reload
    from jan_core.extension import Failure
    from jan_core.package import top

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            own = record.name == f"jan.{id}" or record.name.startswith(f"jan.{id}.") or top(record.name) == package
            if not own or record.pathname in (reload.__file__, lifecycle.__file__):  # how those end is said already
                return
            text = record.getMessage()
            if record.exc_info and record.exc_info[1]:
                text += f": {_described(Failure.of('log', record.exc_info[1], package))}"
            elif record.exc_text:  # from its own process
                text += f": {_last_of(record.exc_text)}"
            _say("warn" if record.levelno == logging.WARNING else record.levelname.lower(), text)

    handler = Shown(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
