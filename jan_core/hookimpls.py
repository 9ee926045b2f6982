"""Checks a plugin's hook implementations before it is let in: what would never be called, or not as it is meant.

pluggy holds the specifications, registration and order, and finds some mistakes by itself; the rest of what its rules
would pass over in silence is refused here, with the reason. Nothing is called here; that is `dispatch.py`'s.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pluggy
from msgspec import Struct

from . import hookspecs
from .hookspecs import PROJECT

__all__ = [
    "Implementation",
    "InvalidHook",
    "implementations",
    "is_async",
    "new_manager",
    "parameters",
    "validate_plugin",
]

PLAIN_ONLY = ("jan_methods", "jan_settings")
"""Asked by their own name while an extension is being staged in a worker thread, where nothing can be awaited."""


class InvalidHook(Exception):
    """A plugin's implementations do not fit the specifications."""


def new_manager() -> pluggy.PluginManager:
    """A plugin manager with our specifications and no plugins."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


class Implementation(Struct, frozen=True, eq=False):
    """One function of a plugin that is marked @hookimpl."""

    attribute: str
    hook: str
    function: Callable[..., Any]
    options: pluggy.HookimplOpts


def implementations(plugin: object) -> Iterator[Implementation]:
    """What a plugin marked @hookimpl. Properties are not read."""
    manager = pluggy.PluginManager(PROJECT)
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is not None:
            hook = options.get("specname") or attribute
            yield Implementation(attribute, hook, getattr(plugin, attribute), options)


def validate_plugin(plugin: object, name: str) -> None:
    """Check a plugin's implementations, the last time on a scratch manager. Raises InvalidHook with the reason."""
    specs = hookspecs.hookspecs()
    _check_marks(plugin, name, specs)
    seen: set[str] = set()
    for impl in implementations(plugin):
        where = f"{name}: {impl.hook}"
        if impl.hook not in specs:
            if impl.options.get("optionalhook"):
                continue
            raise InvalidHook(f"{name}: unknown hook {impl.hook}{_meant(impl.hook, specs)}")
        if impl.hook in seen:
            raise InvalidHook(f"{where}: implemented twice; one extension has one say")
        seen.add(impl.hook)
        if impl.options.get("wrapper") or impl.options.get("hookwrapper"):
            raise InvalidHook(f"{where}: wrappers are refused: they end before an async implementation's body begins")
        _check_kind(where, impl)
        parameters(impl.function, specs[impl.hook].function, where)
    try:
        new_manager().register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise InvalidHook(str(error)) from error


def parameters(function: Callable[..., Any], spec: Callable[..., Any], where: str) -> tuple[str, ...]:
    """The names of the hook's arguments that an implementation takes, in its order; they are passed by position.

    Raises InvalidHook for what would never get a value.
    """
    known = list(inspect.signature(spec).parameters)
    taken: list[str] = []
    own = ""
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            stars = "*" if p.kind is p.VAR_POSITIONAL else "**"
            raise InvalidHook(f"{where}: {stars}{p.name} is never filled; name the arguments (or use functools.wraps)")
        if p.kind is p.KEYWORD_ONLY:
            if p.name in known or p.default is p.empty:
                raise InvalidHook(f"{where}: keyword-only parameters are never passed: {p.name}")
        elif p.name in known:
            if own:
                raise InvalidHook(f"{where}: {p.name} must stand before {own}, which is not an argument of the hook")
            taken.append(p.name)
        elif p.default is p.empty:
            raise InvalidHook(
                f"{where}: the hook has no argument {p.name}{_meant(p.name, known)}; it has ({', '.join(known)})"
            )
        else:
            own = p.name
    return tuple(taken)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling a function gives a coroutine, be it through a decorator."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def _check_marks(plugin: object, name: str, specs: Mapping[str, Any]) -> None:
    """Marks that are missing, or that make something other than an implementation."""
    found = {impl.attribute for impl in implementations(plugin)}
    for attribute in dir(plugin):
        value = inspect.getattr_static(plugin, attribute, None)
        if hasattr(getattr(value, "__func__", value), f"{PROJECT}_spec"):
            raise InvalidHook(f"{name}: {attribute} is specified here; extensions implement the host's hooks")
        if attribute in specs and attribute not in PLAIN_ONLY and callable(value) and attribute not in found:
            raise InvalidHook(f"{name}: {attribute} is not a function marked @hookimpl, so it would never be called")


def _check_kind(where: str, impl: Implementation) -> None:
    function = inspect.unwrap(impl.function)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidHook(f"{where}: a generator is refused: a hook returns one value; return a list")
    if impl.hook in PLAIN_ONLY:
        if is_async(impl.function):
            raise InvalidHook(f"{where}: must be a plain function: it is asked before anything can be awaited")
        if impl.options.get("specname"):
            raise InvalidHook(f"{where}: must be called by that name, without specname")


def _meant(name: str, known: Iterable[str]) -> str:
    import difflib  # here: nobody has made a mistake before `initialize` is answered, and this takes a millisecond

    close = difflib.get_close_matches(name, known, 1, 0.75)
    return f", did you mean {close[0]}?" if close else ""
