"""`jan downloads`: files being fetched. A command that waits shows progress, and leaving it loses nothing."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import click

from .app import App, Failed, checked_sha256, pass_app, wrong_usage
from .output import Column, json_option, note, print_json, print_table, size
from .session import Session, run_session

__all__ = ["downloads", "fetch_file", "file_at"]

COLUMNS = (
    Column("id", "ID"),
    Column("name", "FILE"),
    Column("state", "STATE"),
    Column("bytes_done", "DONE", size),
    Column("bytes_total", "SIZE", size),
    Column("verified", "VERIFIED"),
)


@click.group()
def downloads() -> None:
    """Files being fetched."""


@downloads.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Show all downloads, ended ones too."""
    records = app.call("downloads.list")["downloads"]
    print_table(records, COLUMNS, as_json=as_json, empty="no downloads yet; start one with: jan downloads start URL")


@downloads.command()
@click.argument("url")
@click.option(
    "--sha256",
    callback=checked_sha256,
    default="",
    metavar="HEX",
    help="What the file must hash to. Without it nothing is checked.",
)
@json_option
@pass_app
def start(app: App, url: str, sha256: str, as_json: bool) -> None:
    """Fetch a file and wait for it. Interrupted, it goes on where it was: run the same command again."""
    file = file_at(url, sha256)
    _done(run_session(app, lambda session: fetch_file(session, file), activate=True), as_json)


@downloads.command()
@click.argument("id")
@json_option
@pass_app
def resume(app: App, id: str, as_json: bool) -> None:
    """Go on with a download and wait for it."""

    async def work(session: Session) -> Any:
        record = await session.call("downloads.resume", {"id": id})
        file = {"name": record["name"], "url": record["url"], "sha256": record["sha256"]}
        return await fetch_file(session, file, record["destination"])

    _done(run_session(app, work, activate=True), as_json)


@downloads.command()
@click.argument("id")
@pass_app
def pause(app: App, id: str) -> None:
    """Stop a download and keep what it has."""
    app.call("downloads.pause", {"id": id})
    note(f"{id} is paused; go on with: jan downloads resume {id}")


@downloads.command()
@click.argument("id")
@pass_app
def cancel(app: App, id: str) -> None:
    """Give a download up and remove what it has."""
    app.call("downloads.cancel", {"id": id})
    note(f"{id} is cancelled")


@downloads.command()
@click.argument("id")
@json_option
@pass_app
def verify(app: App, id: str, as_json: bool) -> int:
    """Hash a complete file again and compare. Status 1 when it does not match."""
    outcome = app.call("downloads.verify", {"id": id})
    if as_json:
        print_json(outcome)
    elif outcome["ok"]:
        source = "the hash that was asked for" if outcome["known_before"] else "the hash it had when it was fetched"
        note(f"{id} is whole: it has {source}")
    else:
        note(f"{id} is damaged: it hashes to {outcome['actual']}, not to {outcome['expected']}")
    return 0 if outcome["ok"] else 1


def file_at(url: str, sha256: str) -> dict[str, Any]:
    """The file at a URL, as `downloads.start` wants it described. Anything that is no file's URL is wrong usage."""
    try:
        parts = urlsplit(url)
        name, usable = unquote(parts.path.rpartition("/")[2]), parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        name, usable = "", False
    if not name or not usable:
        wrong_usage(f"{url!r} is not the URL of a file (http or https)")
    return {"name": name, "url": url, "sha256": sha256}


async def fetch_file(session: Session, file: dict[str, Any], destination: str = "") -> dict[str, Any]:
    """Fetch a file, or go on with fetching it, until it is there. Returns its `downloads` record."""
    params = {"file": file, "destination": destination, "wait": True}
    try:
        record: dict[str, Any] = await session.call("downloads.start", params)
    except anyio.get_cancelled_exc_class():
        note("interrupted; what was fetched is kept: the same command goes on from there")
        raise
    if record["state"] != "completed":
        raise Failed(f"the download is {record['state']}", f"go on with: jan downloads resume {record['id']}")
    if record.get("warning"):
        note(f"warning: {record['warning']}")
    return record


def _done(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        click.echo(record["path"])
