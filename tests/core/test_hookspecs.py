"""The specification file is the documentation: complete, typed, and called by the typed façade alone; what does not
fit it is refused before it is let in, with the reason."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pluggy
import pytest

from jan_core import Event, hookimpl
from jan_core import hookspecs as specs
from jan_core.hookimpls import InvalidHook, validate_plugin
from jan_core.hooks import Hooks
from jan_core.hookspecs import HookSpec

PROMISED = [
    "jan_activate",
    "jan_deactivate",
    "jan_export_state",
    "jan_restore_state",
    "jan_methods",
    "jan_settings",
    "jan_event",
    "jan_engine_builds",
    "jan_select_engine_build",
    "jan_inference_engines",
    "jan_route_inference",
    "jan_before_inference",
    "jan_after_inference",
    "jan_admit_load",
    "jan_model_sources",
    "jan_builtin_models",
    "jan_rollout_phase",
    "jan_filter_models",
    "jan_rank_models",
    "jan_download_sources",
    "jan_adopt_file",
    "jan_admit_download",
    "jan_assemble_context",
    "jan_message_added",
]

ALL = list(specs.hookspecs().values())


def test_the_promised_hooks_are_there_and_no_others() -> None:
    assert list(specs.hookspecs()) == PROMISED


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
def test_a_hook_says_when_it_is_called_and_what_each_argument_is(spec: HookSpec) -> None:
    doc = inspect.getdoc(spec.function) or ""
    assert re.search(r"\bCalled\b|\bcalled\b|^The hard-coded list", doc, re.MULTILINE), "say when it is called"
    parameters = list(inspect.signature(spec.function).parameters)
    assert re.findall(r"^:param (\w+):", doc, re.MULTILINE) == parameters
    assert set(typing.get_type_hints(spec.function)) == {*parameters, "return"}
    assert 0 < spec.deadline <= 60


@pytest.mark.parametrize("spec", [s for s in ALL if s.mode != "single"], ids=lambda s: s.name)
def test_the_facade_has_a_typed_method_for_each_hook(spec: HookSpec) -> None:
    method = getattr(Hooks, spec.name.removeprefix("jan_"))
    assert list(inspect.signature(method).parameters)[1:] == list(inspect.signature(spec.function).parameters)


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
def test_every_hook_is_used_by_a_test(spec: HookSpec) -> None:
    root = Path(__file__).parents[2]
    name = spec.name.removeprefix("jan_")
    pattern = re.compile(rf"def {spec.name}\b|hooks\.{name}\(")
    own = Path(__file__)
    tests = [p for folder in ("tests", "extensions", "sidecar") for p in (root / folder).rglob("test_*.py") if p != own]
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in tests)


# -- what is refused ---------------------------------------------------------------------------------------------------


def plugin(**functions: Any) -> object:
    """A plugin object with these implementations."""
    return type("Plugin", (), functions)()


@hookimpl(wrapper=True)
def wraps(self: Any, event: Event) -> Iterator[None]:
    yield


@hookimpl(hookwrapper=True)
def wraps_as_of_old(self: Any, event: Event) -> Iterator[None]:
    yield


@hookimpl
def yields(self: Any, event: Event) -> Iterator[None]:
    yield


@hookimpl
async def yields_async(self: Any, event: Event) -> AsyncIterator[None]:
    yield


@hookimpl
async def takes_by_name(self: Any, *, event: Event) -> None: ...


@hookimpl
async def needs_by_name(self: Any, *, mine: int) -> None: ...


@hookimpl
async def takes_another(self: Any, evnt: Event) -> None: ...


@hookimpl
async def takes_own_first(self: Any, mine: int = 1, event: Event | None = None) -> None: ...


@hookimpl
async def takes_anything(self: Any, *arguments: Any) -> None: ...


@hookimpl
async def takes_any_name(self: Any, **arguments: Any) -> None: ...


@hookimpl
async def listens(self: Any, event: Event) -> None: ...


@hookimpl(specname="jan_event")
async def listens_too(self: Any, event: Event) -> None: ...


@hookimpl
async def late(self: Any) -> list[Any]:
    return []


@hookimpl(specname="jan_methods")
def gives_methods(self: Any) -> list[Any]:
    return []


async def forgotten(self: Any, event: Event) -> None: ...


@pluggy.HookspecMarker("jan")
def jan_own(self: Any) -> None: ...


@pluggy.HookspecMarker("jan")(historic=True)
def jan_own_historic(self: Any) -> None: ...


REFUSED: dict[str, dict[str, Any]] = {
    "wrappers are refused: they end before an async implementation's body begins": {"jan_event": wraps},
    "x: jan_event: wrappers are refused": {"jan_event": wraps_as_of_old},
    "a generator is refused: a hook returns one value; return a list": {"jan_event": yields},
    "jan_event: a generator is refused": {"jan_event": yields_async},
    "keyword-only parameters are never passed: event": {"jan_event": takes_by_name},
    "keyword-only parameters are never passed: mine": {"jan_event": needs_by_name},
    r"the hook has no argument evnt, did you mean event\?; it has \(event\)": {"jan_event": takes_another},
    "event must stand before mine, which is not an argument of the hook": {"jan_event": takes_own_first},
    r"\*arguments is never filled; name the arguments": {"jan_event": takes_anything},
    r"\*\*arguments is never filled": {"jan_event": takes_any_name},
    "unknown hook jan_evnt, did you mean jan_event": {"jan_evnt": listens},
    "unknown hook jan_something_else$": {"jan_something_else": listens},
    "jan_event: implemented twice": {"jan_event": listens, "another": listens_too},
    "jan_event is not a function marked @hookimpl, so it would never be called": {"jan_event": forgotten},
    "jan_event is not a function marked": {"jan_event": hookimpl(functools.partial(print, "event"))},
    "jan_methods: must be a plain function: it is asked before anything can be awaited": {"jan_methods": late},
    "jan_methods: must be called by that name, without specname": {"mine": gives_methods},
    "jan_own is specified here; extensions implement the host's hooks": {"jan_own": jan_own},
    "jan_own_historic is specified here": {"jan_own_historic": jan_own_historic},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_would_never_be_called_as_it_is_meant_is_refused_with_the_reason(reason: str) -> None:
    with pytest.raises(InvalidHook, match=reason):
        validate_plugin(plugin(**REFUSED[reason]), "x")


def test_a_hook_cannot_be_historic() -> None:
    with pytest.raises(TypeError, match="historic"):
        hookimpl(historic=True)  # type: ignore[call-overload]
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs)
    assert not [name for name in specs.hookspecs() if getattr(manager.hook, name).is_historic()]


def test_properties_are_not_read_and_hooks_of_a_newer_host_may_be_optional() -> None:
    class Plugin:
        @property
        def awkward(self) -> str:
            raise RuntimeError("read")

        @hookimpl(optionalhook=True)
        async def jan_of_a_newer_host(self, anything: int) -> None: ...

        @hookimpl
        async def jan_event(self, event: Event, own: int = 1, *, flag: bool = False) -> None: ...

    validate_plugin(Plugin(), "x")
