"""`jan settings`: read and change, as EXTENSION.NAME."""

from __future__ import annotations

from typing import Any

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import Column, clean, json_option, on_terminal, print_json, print_table
from .session import Session, run_session

__all__ = ["settings"]

COLUMNS = (Column("key", "SETTING"), Column("value", "VALUE"))


@click.group()
def settings() -> None:
    """Read and change settings."""


@settings.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Show all settings and their values."""
    values = run_session(app, _values)
    if as_json:
        print_json(values)
        return
    rows = [{"key": f"{id}.{name}", "value": value} for id, group in values.items() for name, value in group.items()]
    print_table(rows, COLUMNS, as_json=False, empty="no extension has settings; see: jan ext list")


@settings.command()
@click.argument("key", metavar="EXTENSION[.NAME]")
@json_option
@pass_app
def get(app: App, key: str, as_json: bool) -> None:
    """Show one value, or all of one extension."""
    extension, _, name = key.partition(".")
    values = run_session(app, _values)
    if extension not in values:
        raise Failed(f"no extension {extension!r} has settings", "see them all: jan settings list")
    if name and name not in values[extension]:
        raise Failed(f"there is no setting {key}", f"see those there are: jan settings get {extension}")
    found = values[extension][name] if name else values[extension]
    if as_json or not isinstance(found, str):
        print_json(found)
    else:
        click.echo(clean(found) if on_terminal() else found)


@settings.command("set", context_settings={"ignore_unknown_options": True})  # for VALUE below zero
@click.argument("key", metavar="EXTENSION.NAME")
@click.argument("value")
@pass_app
def set_(app: App, key: str, value: str) -> None:
    """Change a value. VALUE is JSON, or a word as it is; null goes back to the default."""
    import msgspec

    extension, _, name = key.partition(".")
    if not extension or not name:
        wrong_usage("give the setting as EXTENSION.NAME")
    try:
        decoded: Any = msgspec.json.decode(value)
    except msgspec.DecodeError:
        decoded = value
    except UnicodeEncodeError:
        wrong_usage("the value is not UTF-8")
    except RecursionError:
        wrong_usage("the value is nested too deeply")

    async def work(session: Session) -> None:
        await _values(session)
        await session.call("settings.set", {"extension": extension, "values": {name: decoded}})

    run_session(app, work)


async def _values(session: Session) -> dict[str, dict[str, Any]]:
    """All settings. Only active extensions have any, so all are activated first."""
    await session.call("rpc.discover")
    values: dict[str, dict[str, Any]] = (await session.call("settings.get"))["settings"]
    return values
