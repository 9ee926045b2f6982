"""`jan engines`: builds of the inference engine, and why one of them is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App, pass_app
from .output import Column, clean, json_option, note, on_terminal, print_json, print_table

__all__ = ["engines"]

COLUMNS = (
    Column("id", "BUILD"),
    Column("variant", "VARIANT"),
    Column("version", "VERSION"),
    Column("installed", "INSTALLED"),
    Column("refused", "NOT USABLE BECAUSE"),
)


@click.group()
def engines() -> None:
    """Builds of the inference engine."""


@engines.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Show the builds that could run here, and which are installed."""
    answer = app.call("engines.list")
    if as_json:
        print_json(answer)
        return
    here = {record["id"] for record in answer["installed"]}
    records = [{**build, "installed": build["id"] in here} for build in answer["builds"]]
    print_table(records, COLUMNS, as_json=False, empty="no engine build is known for this machine; see: jan doctor")


@engines.command()
@json_option
@pass_app
def explain(app: App, as_json: bool) -> None:
    """Say which build is used on this machine, and for each candidate why it was taken or not."""
    answer = app.call("engines.explain")
    if as_json:
        print_json(answer)
        return
    _say(f"{answer['build']}: {answer['reason']} (chosen by {answer['by']})")
    for candidate in answer["candidates"]:
        state = "installed" if candidate["installed"] else "not installed"
        _say(f"  {candidate['id']} is {candidate['verdict']}, {state}: {candidate['reason']}")
    for library in answer.get("damaged", []):
        _say(f"damaged: {library}; install it anew: jan engines remove {answer['build']}, then jan engines install")


@engines.command()
@click.argument("build", required=False, default="")
@click.option(
    "--wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take it from this file, offline."
)
@json_option
@pass_app
def install(app: App, build: str, wheel: Path | None, as_json: bool) -> None:
    """Install a build now, rather than when the first model is used. Default: the one chosen for this machine."""
    params: dict[str, Any] = {"id": build, "wheel": str(wheel.absolute()) if wheel else ""}
    record = app.call("engines.install", params)
    if as_json:
        print_json(record)
    else:
        note(f"{record['id']} is installed and works (from: {record['origin']})")


@engines.command()
@click.argument("build", nargs=-1, required=True)
@pass_app
def remove(app: App, build: tuple[str, ...]) -> None:
    """Remove installed builds."""
    from .session import Session, run_session

    async def work(session: Session) -> None:
        for id in build:
            await session.call("engines.remove", {"id": id})
            note(f"{id} is removed")

    run_session(app, work)


def _say(text: str) -> None:
    click.echo(clean(text) if on_terminal() else text)
