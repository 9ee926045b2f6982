"""What is done to downloads later on: `jan downloads configure`, `verify` and `remove`."""

from __future__ import annotations

from typing import Any

import click

from .amounts import local, speed
from .app import App, pass_app, wrong_usage
from .downloads_options import fetch_options, given
from .downloads_view import say, say_verified
from .following import fetch, listed, members
from .output import json_option, note, print_json, size
from .session import Session, run_session
from .standing import Record

__all__ = ["configure", "remove", "verify"]


@click.command()
@click.argument("id")
@fetch_options
@json_option
@pass_app
def configure(app: App, /, id: str, as_json: bool, **options: Any) -> None:
    """Change how a download is treated, also while it runs.

    \b
    jan downloads configure dl-0123456789abcdef --limit 5M --priority 10
    jan downloads configure dg-0123456789abcdef --limit none --not-before now
    """
    changes = given(options)
    if not changes:
        wrong_usage("name what to change: --limit, --priority or --not-before")
    say(listed(app.call("downloads.configure", {"id": id, **changes})), as_json, _treatment)


@click.command()
@click.argument("id")
@click.option("--repair", is_flag=True, help="Fetch again what is wrong, and wait for it.")
@json_option
@pass_app
def verify(app: App, id: str, repair: bool, as_json: bool) -> int:
    """Hash a complete file again and compare. Status 1 when it does not match, and was not repaired."""

    async def work(session: Session) -> list[dict[str, Any]]:
        outcomes = []
        for record in await members(session, id):
            outcome = await session.call("downloads.verify", {"id": record["id"], "repair": repair})
            if outcome["repairing"]:
                again = f"jan downloads resume {record['id']}"
                mended = await fetch(session, await session.call("downloads.get", {"id": record["id"]}), again)
                outcome |= {"repaired": mended[0]["state"] == "completed"}
            outcomes.append(outcome | {"name": record["name"]})
        return outcomes

    outcomes = run_session(app, work, activate=repair)
    if as_json:
        print_json(outcomes if id.startswith("dg-") else outcomes[0])
    else:
        say_verified(outcomes)
    return 0 if all(outcome["ok"] or outcome.get("repaired") for outcome in outcomes) else 1


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--keep-file", is_flag=True, help="Forget the record, and leave the file.")
@json_option
@pass_app
def remove(app: App, ids: tuple[str, ...], keep_file: bool, as_json: bool) -> None:
    """Forget downloads and free what their files take."""

    async def work(session: Session) -> list[dict[str, Any]]:
        return [await session.call("downloads.remove", {"id": id, "keep_file": keep_file}) for id in ids]

    removed = run_session(app, work)
    if as_json:
        print_json(removed)
        return
    for each in removed:
        freed = f"; {size(each['freed'])} are free" if each["freed"] else "; no space was freed"
        note(f"{each['id']} is removed{'' if keep_file else freed}")


def _treatment(record: Record) -> str:
    limit = (
        f"fetched with at most {speed(record['limit'])}" if record["limit"] else "fetched without a limit of its own"
    )
    later = f", not before {local(record['not_before'])}" if record["not_before"] else ""
    return f"{limit}, priority {record['priority']}{later}"
