"""Whether an extension does what every host relies on: one clear sentence for each thing it does not.

The extension runs in a host of its own, in this process: what it breaks, it breaks in its author's tests. This does not
know what the extension is for; its methods are called with anything, so a method that reaches out into the world can be
left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from .project import as_source
from .watching import Residue, errors_logged, standard_output

if TYPE_CHECKING:
    from ..extension import Extension, Failure, Generation
    from ..host import Host
    from ..loader import Source
    from ..manifest import Manifest
    from ..methods import Method

__all__ = ["assert_extension_conforms"]

ANSWER_LIMIT = 5.0
"""Seconds one probing call may take; a call that takes longer is cancelled, which is no fault."""

CANCEL_LIMIT = 2.0
"""Seconds a cancelled call may take to end."""

SETTLE_LIMIT = 5.0
"""Seconds that replaced generations may take to be gone; what is still inside them is on the list by then."""

HOSTILE: tuple[Any, ...] = (None, True, -1, 2**53 - 1, "", "\0", "../../etc/passwd", "\U0001f4a5" * 1000, [], {"a": []})
"""What each param is given in turn: most is refused by its type, and the code must cope with the rest."""

CODES = range(-32099, -32019)
"""Error codes that extensions may take, -32050 apart."""


async def assert_extension_conforms(extension: Any, *, uncalled: Iterable[str] = ()) -> None:
    """Run an extension through its life and raise AssertionError with everything it does wrong, a sentence each.

    `extension` is the fixture of that name, a class, or the folder of a project. Checked are: the manifest and the
    range of hosts; hooks, methods and settings as types; a start without a failure; each method's answers to `{}` and
    to params of every wrong kind; two reloads, state handed over; an end in time that leaves no thread, task, log
    handler or module; and through all of it that nothing is written to standard output or blocks the event loop.

    `uncalled`: methods that are not called here, because they would reach the network or change the machine.
    """
    __tracebackhide__ = True  # pytest shows the sentences, not these lines
    from ..manifest import ManifestError

    try:
        source = cast("Source", _InProcess(as_source(extension)))
    except ManifestError as error:
        raise AssertionError(f"the manifest is refused: {error}") from None
    with standard_output() as written:
        problems = [" ".join(problem.split()) async for problem in _problems(source, frozenset(uncalled))]
        text = written()
    if text:
        problems.append(f"it wrote {text[:60]!r} to standard output, which is the client's: use ctx.log")
    if problems:
        raise AssertionError("\n  - ".join([f"the extension {source.id!r} is not what a host expects:", *problems]))


class _InProcess:
    """A source that is loaded into this process whatever its manifest says: its code is what is looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def manifest(self, api_version: str) -> tuple[Manifest, str]:
        manifest, version = self._source.manifest(api_version)
        return msgspec.structs.replace(manifest, isolation="none"), version


async def _problems(source: Source, uncalled: Collection[str]) -> AsyncIterator[str]:
    from .. import API_VERSION
    from ..extension import Failure

    try:
        source.manifest(API_VERSION)
    except Exception as error:
        yield f"the manifest is refused: {Failure.of('manifest', error).message}"
        return
    before = Residue()
    with tempfile.TemporaryDirectory(prefix="jan-conforms-") as folder:
        async with _alone(source, Path(folder)) as (host, extension, found):
            async for problem in _life(host, extension, uncalled):
                yield problem
        for problem in found:
            yield problem
    leaks = list(dict.fromkeys(extension.leaks))
    for leak in leaks or before.left():
        yield f"after its end {leak}: undo it with ctx.on_dispose, or let ctx.tasks run it"


@asynccontextmanager
async def _alone(source: Source, folder: Path) -> AsyncIterator[tuple[Host, Extension, list[str]]]:
    """A host with nothing else in it; what went wrong around the calls and at its end is in the list afterwards."""
    from ..generations import RETIRE_LIMIT
    from ..host import Host

    problems: list[str] = []
    async with Host(folder, sources=[source]) as host:
        extension = host.lifecycle.extensions[source.id]
        yield host, extension, problems
        failure, began = extension.failure, time.monotonic()
        with errors_logged(f"jan.{source.id}") as logged:
            await host.lifecycle.end()
        seconds = time.monotonic() - began
        if seconds > RETIRE_LIMIT:
            problems.append(f"it took {seconds:.1f} s to end; {RETIRE_LIMIT:g} s is allowed")
        if extension.failure is not None and extension.failure is not failure:
            problems.append(_sentence("its end", extension.failure))
        problems += [f"an error was logged while it ended: {text}" for text in logged]
        problems += [
            f"{stall.function} blocked the event loop for {stall.longest:.2f} s ({stall.file}:{stall.line}): "
            "make it async, or let a worker thread do it"
            for stall in host.stalls.figures().places
            if stall.extension == source.id
        ]


async def _life(host: Host, extension: Extension, uncalled: Collection[str]) -> AsyncIterator[str]:
    from ..extension import Failure

    await host.lifecycle.activate_all()
    if extension.current is None:
        yield _sentence("it does not start", extension.failure or Failure("activate", "State", extension.state.value))
        return
    # Gone through before the reloads: what holds on to a method here would hold its generation too.
    for problem in [problem async for problem in _serving(host, extension.current, uncalled)]:
        yield problem
    if extension.failure is not None:
        yield _sentence("it failed while it was serving", extension.failure)
    for _ in range(2):
        if problem := await _reloaded(host, extension):
            yield problem
            return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_LIMIT):
            await host.lifecycle.generations.settled()


async def _serving(host: Host, generation: Generation, uncalled: Collection[str]) -> AsyncIterator[str]:
    for problem in (*_settings(generation), *_hand_over(generation)):
        yield problem
    for name in set(uncalled) - {method.name for method in generation.methods}:
        yield f"it has no method {name} that could be left uncalled"
    for method in generation.methods:
        described = list(_described(method))
        for problem in described:
            yield problem
        if not described and method.name not in uncalled:
            for params in _params(method):
                if problem := await _answered(host, method, params):
                    yield problem
                    break


def _sentence(what: str, failure: Failure) -> str:
    where = f" ({failure.file}:{failure.line})" if failure.file else ""
    return f"{what}: {failure.stage}: {failure.type}: {failure.message}{where}"


def _described(method: Method) -> Iterator[str]:
    if not (isinstance(method.params, type) and issubclass(method.params, msgspec.Struct)):
        yield f"{method.name} takes {method.params!r}; params are a msgspec.Struct, jan_core.Empty if there are none"
        return
    for what, kind in (("result", method.result), ("stream item", method.item)):
        if kind in (Any, object):
            yield f"{method.name} has no type for its {what}: a client cannot know what it gets"
    for kind in (method.params, method.result, method.item):
        if kind is not None:
            try:
                msgspec.json.schema_components([kind])
            except TypeError as error:
                yield f"{method.name} has a type that no schema can describe: {error}"
    from ..errors import core_errors

    core = core_errors()
    for declared in method.errors:
        if declared not in core and (declared.code not in CODES or declared.code == -32050):
            yield (
                f"{method.name} declares {declared.__name__} with code {declared.code}; "
                f"codes from {CODES[-1]} to {CODES[0]} are for extensions, -32050 apart"
            )


def _settings(generation: Generation) -> Iterator[str]:
    kind = generation.settings_type
    if kind is None:
        return
    try:
        msgspec.json.schema(kind)
        msgspec.convert(msgspec.to_builtins(kind()), kind)
    except TypeError as error:
        yield f"its settings {kind.__name__} have a type that no schema can describe: {error}"
    except msgspec.ValidationError as error:
        yield f"a default of its settings {kind.__name__} does not fit its own type: {error}"


def _hand_over(generation: Generation) -> Iterator[str]:
    gives, takes = (hasattr(generation.plugin, f"jan_{what}_state") for what in ("export", "restore"))
    if gives != takes:
        has, lacks = ("jan_export_state", "jan_restore_state") if gives else ("jan_restore_state", "jan_export_state")
        yield f"it has {has} and no {lacks}: what a reload should keep is lost"


def _params(method: Method) -> Iterator[dict[str, Any]]:
    """Nothing, something unknown, and each param in turn with each hostile value, the others being innocent."""
    fields = msgspec.structs.fields(method.params)
    innocent = {f.encode_name: _innocent(f.type) for f in fields if f.required}
    yield {}
    yield {"no such param": 1}
    for field in fields:
        for value in HOSTILE:
            yield {**innocent, field.encode_name: value}


def _innocent(kind: Any) -> Any:
    """The first simple value that fits a type; None when none does."""
    candidates: tuple[Any, ...] = ("x", 0, 0.5, False, [], {})
    for value in candidates:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            continue
        return value
    return None


async def _answered(host: Host, method: Method, params: dict[str, Any]) -> str:
    """What is wrong with how a method answers these params; empty when nothing is."""
    from ..errors import RpcError, core_errors

    call = asyncio.ensure_future(host.client("conformance").call(method.name, params))
    done, _ = await asyncio.wait([call], timeout=ANSWER_LIMIT)
    if not done:
        call.cancel()
        done, _ = await asyncio.wait([call], timeout=CANCEL_LIMIT)
        if done and not call.cancelled():
            call.exception()  # looked at, so that it is not logged as lost
        return "" if done else f"{method.name} does not end when its caller cancels it"
    error = call.exception()
    if error is None:
        try:
            msgspec.convert(call.result(), method.result, str_keys=True)
        except msgspec.ValidationError as wrong:
            return f"{method.name} returns something else than its annotation says: {wrong}"
        return ""
    shown = msgspec.json.encode(params).decode()
    shown = shown if len(shown) < 80 else f"{shown[:80]}…"
    if not isinstance(error, RpcError) or error.type == "internal_error":
        from ..extension import Failure

        package = host.lifecycle.extensions[method.owner].source.origin
        cause = Failure.of("call", error.__cause__ or error, package)
        where = f" ({cause.file}:{cause.line})" if cause.file else ""
        return (
            f"{method.name} breaks on {shown}: {cause.type}: {cause.message}{where}; "
            "narrow the type of its params, or raise a JanError"
        )
    if error.type not in {kind.type for kind in (*core_errors(), *method.errors)}:
        return f"{method.name} ends with {error.type!r} on {shown}, which it does not declare: see @method(errors=[…])"
    return ""


async def _reloaded(host: Host, extension: Extension) -> str:
    """What is wrong with a reload; empty when nothing is."""
    from ..errors import RpcError

    before = {m.name for m in extension.current.methods} if extension.current else set()
    try:
        await host.client("conformance").call("extensions.reload", {"id": extension.id, "force": True})
    except RpcError as error:
        return f"it cannot be reloaded: {error.message}"
    after = {m.name for m in extension.current.methods} if extension.current else set()
    if before != after:
        return f"reloading changed its methods from {sorted(before)} to {sorted(after)} though its code is the same"
    if extension.failure is not None:
        return _sentence("it failed while it was reloaded", extension.failure)
    return ""
