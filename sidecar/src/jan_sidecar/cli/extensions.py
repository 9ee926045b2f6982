"""`jan ext`: what is installed, what is wrong with it, and writing one of your own (`develop.py` has `jan ext dev`).

The commands run in a host of their own on the same data folder: what they enable or disable is stored, and a running
application follows when it starts again; what they reload shows that the code on the disk can be loaded.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import Column, clean, json_option, note, print_json, print_table

__all__ = ["ext"]

COLUMNS = (
    Column("id", "EXTENSION"),
    Column("version", "VERSION"),
    Column("state", "STATE"),
    Column("problem", "PROBLEM"),
)

LAZY: dict[str, str] = {
    "dev": "develop:dev",
    "install": "install:install",
    "overlays": "install:overlays",
    "repair": "install:repair",
    "undo": "install:undo",
    "uninstall": "install:uninstall",
}
"""Commands in modules of their own, imported when they run: name -> module:attribute."""

NONE = "no extensions are installed; begin one with: jan ext new NAME"

OFF = ("failed", "quarantined")
"""States in which an extension should serve and does not."""


class ExtGroup(click.Group):
    """The group, with the commands of `LAZY` beside those of this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LAZY:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = LAZY[cmd_name].partition(":")
        command = getattr(importlib.import_module(f".{module}", __package__), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=ExtGroup)
def ext() -> None:
    """Extensions: list, write, install, reload and mend them."""


@ext.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Show the installed extensions, their state, and what went wrong with them."""
    from .session import run_session

    records = run_session(app, lambda session: session.call("extensions.list"), activate=True)["extensions"]
    if not as_json:
        for record in records:
            record["problem"] = _problem(record)
    print_table(
        records, COLUMNS, as_json=as_json, empty="no extensions are installed; begin one with: jan ext new NAME"
    )


@ext.command()
@click.argument("name")
@click.option(
    "--into",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to write the project into, new or empty. Default: NAME, here.",
)
@pass_app
def new(app: App, name: str, folder: Path | None) -> None:
    """Write a new extension: a package with a method, settings, a hook and tests that pass."""
    from ..scaffold import NameRefused, check_name, new_project, prefix

    try:
        check_name(name, _taken())
    except NameRefused as error:
        wrong_usage(str(error))
    folder = folder if folder is not None else Path(name)
    try:
        written = new_project(name, folder)
    except OSError as error:
        reason = f"cannot write {folder}: {error.strerror}" if error.strerror else str(error)
        raise Failed(reason, "choose another folder with: --into DIR") from None
    for path in written:
        click.echo(clean(str(folder / path)))
    note(f'edit, save, see: jan ext dev "{folder}" --call {prefix(name)}greet')


@ext.command()
@click.argument("id")
@pass_app
def enable(app: App, id: str) -> None:
    """Switch an extension on again, also one that failed or was quarantined."""
    from .session import run_session

    record = run_session(app, lambda session: session.call("extensions.enable", {"id": id}), activate=True)
    if record["state"] in OFF:
        raise Failed(f"{id} is {record['state']}: {_problem(record)}", f"see what to do: jan ext doctor {id}")
    note(f"{id} is {'enabled' if record['state'] == 'discovered' else record['state']}")


@ext.command()
@click.argument("id")
@pass_app
def disable(app: App, id: str) -> None:
    """Switch an extension off; it stays off until it is enabled."""
    note(f"{id} is {app.call('extensions.disable', {'id': id})['state']}; back with: jan ext enable {id}")


@ext.command()
@click.argument("id")
@pass_app
def reload(app: App, id: str) -> None:
    """Load an extension's code from the disk twice, with its state handed over, and say how long that took."""
    from .session import Session, run_session

    async def work(session: Session) -> Any:
        await session.call("extensions.reload", {"id": id})
        return await session.call("extensions.reload", {"id": id, "force": True})

    note(reloaded(run_session(app, work)))


@ext.command()
@click.argument("id")
@pass_app
def rollback(app: App, id: str) -> None:
    """Go back to the code an extension had before it was reloaded, which only a host that reloaded it can."""
    from jan_core import RpcError

    try:
        note(reloaded(app.call("extensions.rollback", {"id": id})))
    except RpcError as error:
        if error.type != "reload_failed":
            raise
        raise Failed(error.message, "go back to what was installed before with: jan ext undo") from None


@ext.command()
@click.argument("id")
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on. Ctrl-C ends it.")
@json_option
@pass_app
def logs(app: App, id: str, lines: int, follow: bool, as_json: bool) -> None:
    """Show what an extension has logged, the latest last."""
    from .session import Session, run_session

    params = {"id": id, "lines": lines, "follow": follow}

    async def work(session: Session) -> Any:
        if not follow:
            return (await session.call("extensions.logs", params))["lines"]
        async with session.caller.stream("extensions.logs", params) as stream:
            async for line in stream:
                print_json(line) if as_json else click.echo(clean(line))
            return (await stream.result())["lines"]

    found = run_session(app, work)
    if follow:
        return
    if as_json:
        print_json(found)
    elif not found:
        note(f"{id} has logged nothing yet; follow it with: jan ext logs {id} -f")
    else:
        for line in found:
            click.echo(clean(line))


@ext.command()
@click.argument("id", required=False)
@json_option
@pass_app
def doctor(app: App, id: str | None, as_json: bool) -> int:
    """Start every extension, or one, and say what is wrong and what to do. Status 1 when something is wrong."""
    from .session import run_session

    records = run_session(app, lambda session: _started(session, id))
    findings = [_finding(record) for record in records]
    if as_json:
        print_json(findings)
    elif not findings:
        note(NONE)
    else:
        for finding in findings:
            mark = click.style("ok  ", fg="green") if finding["ok"] else click.style("fail", fg="red")
            click.echo(f"{mark}  {clean(finding['id'])}: {clean(finding['message'])}")
            for advice in finding["advice"]:
                click.echo(f"      {clean(advice)}")
    return 0 if all(finding["ok"] for finding in findings) else 1


async def _started(session: Any, id: str | None) -> list[dict[str, Any]]:
    """The rows of `extensions.list` once everything that can start has."""
    from jan_core import RpcError

    records: list[dict[str, Any]] = (await session.call("extensions.list"))["extensions"]
    if id is not None and id not in (record["id"] for record in records):
        known = ", ".join(record["id"] for record in records) or "none"
        raise Failed(f"no extension {id!r}; there are: {known}", "see them all: jan ext list")
    try:
        await session.call("rpc.discover")
    except RpcError as error:
        note(f"the methods cannot be described: {error.message}")
    records = (await session.call("extensions.list"))["extensions"]
    return [record for record in records if id in (None, record["id"])]


def _finding(record: dict[str, Any]) -> dict[str, Any]:
    """What a person needs to know of one extension: how it is, and what to do."""
    from ..runtime import FIRST_PARTY

    id, state, failure = record["id"], record["state"], record.get("failure")
    message = f"{record.get('version', '')} is {state}".strip()
    if state == "disabled":
        return {"id": id, "ok": True, "message": message, "advice": [f"switch it on with: jan ext enable {id}"]}
    leaks = record.get("leaks", [])
    if failure is None and not leaks:
        return {"id": id, "ok": True, "message": message, "advice": []}
    advice = [f"it left something behind: {leak}" for leak in leaks]
    if failure is not None:
        message = f"{message}: {_problem(record)}"
        where = f"{failure['file']}:{failure.get('line', 0)}" if failure.get("file") else "the project"
        if state == "active":
            advice.append(f"it goes on serving; see what it logged: jan ext logs {id}")
        elif state == "quarantined":
            advice.append(f"see what it logged: jan ext logs {id}; then give it another try: jan ext enable {id}")
        elif id not in FIRST_PARTY:
            advice.append(f"if it is yours, mend {where}, then: jan ext reload {id}")
        if state in OFF:
            advice.append(f"do without it: jan ext disable {id}, or once: jan --safe-mode …")
            if id not in FIRST_PARTY:
                advice.append(f"remove it: jan ext uninstall {id}")
    return {"id": id, "ok": False, "message": message, "advice": advice}


def _problem(record: dict[str, Any]) -> str:
    """A row's failure in one line; empty when there is none."""
    failure = record.get("failure")
    if not failure:
        return ""
    where = f" ({failure['file']}:{failure.get('line', 0)})" if failure.get("file") else ""
    return f"{failure['stage']}: {failure['message']}{where}"


def reloaded(answer: dict[str, Any]) -> str:
    """What a reload did, in one line."""
    if not answer["changed"]:
        return f"{answer['id']} is as it was: generation {answer['generation']}"
    milliseconds = answer.get("seconds", {}).get("total", 0) * 1000
    return f"{answer['id']} serves from generation {answer['generation']} after {milliseconds:.0f} ms"


def _taken() -> dict[str, str]:
    """Ids and method prefixes that are somebody's on this machine, and whose."""
    from jan_core import API_VERSION
    from jan_core.loader import installed
    from jan_core.manifest import ManifestError

    taken = {}
    for source in installed():
        taken[source.id] = source.id
        try:
            manifest, _ = source.manifest(API_VERSION)
        except ManifestError:
            continue
        taken |= dict.fromkeys(manifest.methods, source.id)
    return taken
