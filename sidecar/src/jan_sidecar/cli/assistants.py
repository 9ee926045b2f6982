"""`jan assistants`: who answers."""

from __future__ import annotations

from typing import Any

import click

from .app import App, pass_app, wrong_usage
from .output import Column, json_option, note, print_json, print_record, print_table

__all__ = ["assistants"]

COLUMNS = (
    Column("id", "ASSISTANT"),
    Column("name", "NAME"),
    Column("model", "MODEL"),
    Column("instructions", "INSTRUCTIONS", lambda text: str(text).strip().partition("\n")[0][:60]),
)


@click.group()
def assistants() -> None:
    """Who answers: instructions, model and parameters."""


@assistants.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Show the assistants."""
    records = app.call("assistants.list")["assistants"]
    print_table(records, COLUMNS, as_json=as_json, empty="no assistants; make one with: jan assistants create NAME")


@assistants.command()
@click.argument("assistant")
@json_option
@pass_app
def show(app: App, assistant: str, as_json: bool) -> None:
    """Show one assistant."""
    print_record(app.call("assistants.get", {"assistant_id": assistant}), as_json=as_json)


@assistants.command()
@click.argument("name")
@click.option("--id", "id_", metavar="ID", help="Default: one is made.")
@click.option("--instructions", default="", metavar="TEXT", help="What it is told before every conversation.")
@click.option("--description", default="", metavar="TEXT", help="What it is for; people read it, the model does not.")
@click.option("-m", "--model", default="", metavar="ID", help="Default: the installation's.")
@click.option("--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="As temperature=0.2. Can be repeated.")
@json_option
@pass_app
def create(
    app: App,
    name: str,
    id_: str | None,
    instructions: str,
    description: str,
    model: str,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make an assistant; use it with: jan chat --assistant ID."""
    params: dict[str, Any] = {
        "name": name,
        "instructions": instructions,
        "description": description,
        "model": model,
        "parameters": dict(_parameter(pair) for pair in pairs),
    }
    record = app.call("assistants.create", {**params, "id": id_} if id_ else params)
    if as_json:
        print_json(record)
    else:
        note(f"{record['name']} is ready; talk with it: jan chat --assistant {record['id']}")


@assistants.command("rm")
@click.argument("assistant", nargs=-1, required=True)
@pass_app
def remove(app: App, assistant: tuple[str, ...]) -> None:
    """Delete assistants; their conversations stay."""
    from .session import Session, run_session

    async def work(session: Session) -> None:
        for id in assistant:
            await session.call("assistants.delete", {"assistant_id": id})
            note(f"{id} is deleted")

    run_session(app, work)


def _parameter(pair: str) -> tuple[str, Any]:
    import msgspec

    name, separator, text = pair.partition("=")
    if not separator or not name:
        wrong_usage(f"{pair!r} is not NAME=VALUE")
    try:
        return name, msgspec.json.decode(text)
    except msgspec.DecodeError:
        return name, text  # a plain word is a string
