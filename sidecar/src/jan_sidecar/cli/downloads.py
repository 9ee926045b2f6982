"""`jan downloads`: files being fetched. A command that waits shows bars, and leaving it loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .app import App, checked_sha256, pass_app, wrong_usage
from .downloads_options import fetch_options, file_at, given
from .downloads_upkeep import configure, remove, verify
from .downloads_view import say
from .following import begin, fetch, follow, listed, look_at, members
from .output import Column, clean, json_option, note, on_terminal, print_json, print_table, size
from .session import Session, run_session
from .standing import LIVE, Record, looked_at, under_way

__all__ = ["downloads"]

COLUMNS = (
    Column("id", "ID"),
    Column("name", "FILE"),
    Column("state", "STATE"),
    Column("bytes_done", "DONE", size),
    Column("bytes_total", "SIZE", size),
    Column("verified", "VERIFIED"),
    Column("words", "WHY", roomy=True),
)
STATES = (*LIVE, "paused", "completed", "failed", "cancelled")


@click.group()
def downloads() -> None:
    """Files being fetched.

    IDs begin with dl-, and those of groups, such as the parts of one model, with dg-: commands take either.
    """


for command in (configure, remove, verify):
    downloads.add_command(command)


@downloads.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only those in this state.")
@json_option
@pass_app
def list_(app: App, states: tuple[str, ...], as_json: bool) -> None:
    """Show all downloads, ended ones too."""
    records = app.call("downloads.list", {"states": list(states)})["downloads"]
    shown = records if as_json else [_row(record) for record in records]
    print_table(shown, COLUMNS, as_json=as_json, empty="no downloads yet; start one with: jan downloads start URL")


@downloads.command()
@click.argument("id")
@click.option("--html", type=click.Path(path_type=Path), help="Write its history as a page to this file.")
@json_option
@pass_app
def show(app: App, id: str, html: Path | None, as_json: bool) -> None:
    """Show a download, or those of a group: its state, its sources, and which pieces of the file are there.

    \b
    jan downloads show dl-0123456789abcdef
    jan downloads show dl-0123456789abcdef --html history.html
    """
    from .downloads_view import show_record, write_page

    records = run_session(app, lambda session: members(session, id))
    if html is not None:
        write_page(app, records[0]["id"], html, group=id.startswith("dg-"))
    if as_json:
        print_json(records if id.startswith("dg-") else records[0])
    elif html is None:
        for place, record in enumerate(records):
            if place:
                click.echo()
            show_record(record)


@downloads.command()
@click.argument("url")
@click.option(
    "--sha256",
    callback=checked_sha256,
    default="",
    metavar="HEX",
    help="What the file must hash to. Without it nothing is checked.",
)
@fetch_options
@json_option
@pass_app
def start(app: App, /, url: str, sha256: str, as_json: bool, **options: Any) -> None:
    """Fetch a file and wait for it. Interrupted, it goes on where it was: run the same command again.

    \b
    jan downloads start https://example.org/model.gguf --sha256 9f86d0...
    jan downloads start https://example.org/model.gguf --limit 5M --not-before 22:30
    """
    params = {"file": file_at(url, sha256)}

    async def work(session: Session) -> list[Record]:
        return await fetch(session, await begin(session, "downloads.start", params, given(options)))

    _done(run_session(app, work, activate=True), as_json)


@downloads.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that are paused or failed.")
@json_option
@pass_app
def resume(app: App, ids: tuple[str, ...], all_: bool, as_json: bool) -> None:
    """Go on with downloads and wait for them."""
    _check_named(ids, all_)

    async def work(session: Session) -> list[Record]:
        records = await _each(session, "resume", ids, all_, ("paused", "failed"))
        if not records:
            note("nothing is paused, and nothing failed")
            return records
        return await fetch(session, records, f"jan downloads resume {'--all' if all_ else ' '.join(ids)}")

    _done(run_session(app, work, activate=True), as_json)


@downloads.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that are under way.")
@json_option
@pass_app
def pause(app: App, ids: tuple[str, ...], all_: bool, as_json: bool) -> None:
    """Stop downloads and keep what they have."""
    _check_named(ids, all_)
    records = run_session(app, lambda session: _each(session, "pause", ids, all_, LIVE))
    if not records:
        note("nothing is under way")
    say(records, as_json, lambda record: f"paused; go on with: jan downloads resume {record['id']}")


@downloads.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
@pass_app
def cancel(app: App, ids: tuple[str, ...], as_json: bool) -> None:
    """Give downloads up. What they have is kept for some days, in case they are started again."""
    records = run_session(app, lambda session: _each(session, "cancel", ids, False, ()))
    say(records, as_json, lambda record: "cancelled")


@downloads.command()
@click.argument("ids", metavar="[ID...]", nargs=-1)
@pass_app
def watch(app: App, ids: tuple[str, ...]) -> None:
    """Show what is under way until all of it is there. Ctrl-C ends the showing; nothing is paused."""

    async def work(session: Session) -> None:
        async def all_() -> list[Record]:
            return listed(await session.caller.call("downloads.list"))

        named = [record for id in ids for record in await members(session, id)]
        records = named if ids else [record for record in await all_() if under_way(record)]
        if not any(map(under_way, records)):
            note("nothing is under way")
            return
        _, interrupted = await follow(session, records, look_at(session, named) if ids else all_, every=not ids)
        if interrupted:
            note("nothing is paused: what is under way goes on where another jan runs, else when one runs next")
            raise click.Abort

    run_session(app, work, activate=True)


def _row(record: Record) -> Record:
    """A download as the table shows it: what is not known is left out, and why it stands still is said."""
    return {**record, "bytes_total": record["bytes_total"] or None, "words": looked_at(record)}


def _check_named(ids: Sequence[str], all_: bool) -> None:
    if bool(ids) == all_:
        wrong_usage("name downloads by their ID, or all of them with --all")


async def _each(session: Session, verb: str, ids: Sequence[str], all_: bool, states: Sequence[str]) -> list[Record]:
    """Do it to each that was named, or to all in one of `states`; returns them."""
    if all_:
        ids = [record["id"] for record in listed(await session.call("downloads.list", {"states": list(states)}))]
    records: list[Record] = []
    for id in ids:
        records += listed(await session.call(f"downloads.{verb}", {"id": id}))
    return records


def _done(records: Sequence[Record], as_json: bool) -> None:
    if as_json:
        print_json(records[0] if len(records) == 1 else records)
    for record in () if as_json else records:
        if record["path"]:
            click.echo(clean(record["path"]) if on_terminal() else record["path"])
        else:
            note(f"{record['name']} is complete, and may be used when all of its group is")
