"""`jan threads`: stored conversations."""

from __future__ import annotations

from typing import Any

import click

from .app import App, pass_app
from .output import Column, clean, json_option, note, on_terminal, print_json, print_table
from .session import Session, run_session

__all__ = ["threads"]

COLUMNS = (
    Column("id", "THREAD"),
    Column("title", "TITLE"),
    Column("model", "MODEL"),
    Column("updated_at", "LAST USED"),
)


@click.group()
def threads() -> None:
    """Stored conversations."""


@threads.command("list")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@json_option
@pass_app
def list_(app: App, limit: int, as_json: bool) -> None:
    """Show the threads, the last used first."""

    async def work(session: Session) -> list[dict[str, Any]]:
        return await session.pages("threads", {}, limit)

    records = run_session(app, work)
    print_table(records, COLUMNS, as_json=as_json, empty="no threads yet; start one with: jan chat")


@threads.command()
@click.argument("thread")
@json_option
@pass_app
def show(app: App, thread: str, as_json: bool) -> None:
    """Show a thread and its messages."""

    async def work(session: Session) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        record = await session.call("threads.get", {"thread_id": thread})
        return record, await session.pages("messages", {"thread_id": thread})

    record, messages = run_session(app, work)
    if as_json:
        print_json({"thread": record, "messages": messages})
        return
    click.echo(_shown(f"{record['title'] or record['id']}  ({record['created_at']})"))
    for message in messages:
        status = message.get("status", "complete")
        mark = "" if status == "complete" else f" [{status}]"
        click.echo(_shown(f"\n{message['role']}{mark}:\n{message['content']}"))


@threads.command("rm")
@click.argument("thread", nargs=-1, required=True)
@pass_app
def remove(app: App, thread: tuple[str, ...]) -> None:
    """Delete threads with all their messages."""

    async def work(session: Session) -> None:
        for id in thread:
            await session.call("threads.delete", {"thread_id": id})
            note(f"{id} is deleted")

    run_session(app, work)


def _shown(text: str) -> str:
    return clean(text) if on_terminal() else text
