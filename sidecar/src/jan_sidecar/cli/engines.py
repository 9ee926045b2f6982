"""`jan engines`: builds of the inference engine, and why one of them is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App, checked_sha256, pass_app, wrong_usage
from .output import Column, clean, json_option, note, on_terminal, print_json, print_table, size

__all__ = ["engines"]

COLUMNS = (
    Column("id", "BUILD"),
    Column("variant", "VARIANT"),
    Column("version", "VERSION"),
    Column("state", "STATE"),
    Column("refused", "NOT USABLE BECAUSE"),
)
VERDICTS = (
    Column("id", "BUILD"),
    Column("verdict", "VERDICT"),
    Column("installed", "INSTALLED"),
    Column("reason", "WHY"),
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
    here = {record["id"]: record for record in answer["installed"]}
    records = [{**build, "state": _state(here.get(build["id"]), answer)} for build in answer["builds"]]
    print_table(records, COLUMNS, as_json=False, empty="no engine build is known for this machine; see: jan doctor")
    _say_set_aside(answer["set_aside"])


@engines.command()
@json_option
@pass_app
def explain(app: App, as_json: bool) -> None:
    """Say which build is used on this machine, and for each candidate why it was taken or not."""
    answer = app.call("engines.explain")
    if as_json:
        print_json(answer)
        return
    for line in _machine(answer["hardware"]) if on_terminal() else ():
        _say(line)
    by = "you" if answer["by"] == "person" else answer["by"]
    _say(f"{answer['build']} is used, chosen by {by}: {answer['reason']}")
    for warning in answer.get("warnings", []):
        note(f"warning: {warning}")
    print_table(answer["candidates"], VERDICTS, as_json=False, empty="no engine build is known for this machine")
    _say_set_aside(answer["set_aside"])
    for library in answer.get("damaged", []):
        _say(f"damaged: {library}; install it anew: jan engines remove {answer['build']}, then jan engines install")


@engines.command()
@click.argument("build", required=False, default="")
@click.option(
    "--wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take it from this file, offline."
)
@click.option(
    "--sha256", callback=checked_sha256, default="", metavar="HEX", help="What the file of --wheel must hash to."
)
@json_option
@pass_app
def install(app: App, build: str, wheel: Path | None, sha256: str, as_json: bool) -> None:
    """Install a build now, rather than when the first model is used. Default: the one chosen for this machine.

    Interrupted, it goes on where it was: run the same command again.
    """
    if sha256 and wheel is None:
        wrong_usage("--sha256 is for the file of --wheel; what an index offers has its own")
    params: dict[str, Any] = {"id": build, "wheel": str(wheel.absolute()) if wheel else "", "sha256": sha256}
    try:
        record = app.call("engines.install", params)
    except click.Abort:
        note("interrupted; what was fetched and compiled is kept: the same command goes on from there")
        raise
    if as_json:
        print_json(record)
    else:
        note(f"{record['id']} is installed and works ({_origin(record)})")


@engines.command()
@click.argument("build")
@json_option
@pass_app
def use(app: App, build: str, as_json: bool) -> None:
    """Use an installed build from the next load of a model on; "auto": let jan choose again."""
    answer = app.call("engines.use", {"id": "" if build == "auto" else build})
    if as_json:
        print_json(answer)
    else:
        note(f"{answer['build']} is used from the next load of a model on: {answer['reason']}")


@engines.command()
@click.argument("build", required=False, default="")
@json_option
@pass_app
def rollback(app: App, build: str, as_json: bool) -> None:
    """Go back to what was used before BUILD. Default: before the one in use."""
    record = app.call("engines.rollback", {"id": build})
    if as_json:
        print_json(record)
    else:
        generation = f", installed {record['installed_at']}" if record["installed_at"] else ""
        note(f"{record['id']} is used from the next load of a model on ({_origin(record)}{generation})")


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


def _say_set_aside(entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        what = f"generation {entry['generation']} of {entry['id']}" if entry["generation"] > 1 else entry["id"]
        again = f"jan engines {'use' if entry['generation'] else 'install'} {entry['id']}"
        _say(f"{what} is set aside since {entry['at']}: {entry['reason']}; try it again: {again}")


def _state(record: dict[str, Any] | None, answer: dict[str, Any]) -> str:
    """What is to be said of a build in one column."""
    if record is None:
        return "not installed"
    words = ["installed"]
    if record["generation"] > 1:
        words.append(f"generation {record['generation']}")
    if answer["use"] == record["id"]:
        words.append("chosen by hand")
    words += [f"generation {old['generation']} kept" for old in answer["earlier"] if old["id"] == record["id"]]
    return ", ".join(words)


def _origin(record: dict[str, Any]) -> str:
    """Where a build came from, and what its file was checked against."""
    if record["origin"] == "source":
        return "compiled here from pinned sources"
    checked = {"index": "hash as the index tells", "person": "hash as given"}.get(record["verified"], "hash not known")
    return f"{record['wheel']}, {checked}"


def _machine(hardware: dict[str, Any]) -> list[str]:
    """What was found: the processor, the memory, and each GPU by the driver it was found through."""
    memory = f"{size(hardware['memory_free'])} of {size(hardware['memory_total'])} memory free"
    where = f", in {hardware['container']}" if hardware.get("container") else ""
    lines = [f"{hardware['cpu']} ({hardware['cores']} cores, {hardware['os']} {hardware['arch']}{where}), {memory}"]
    for device in hardware.get("devices", []):
        told = [device["kind"], device.get("compute_capability", "")]
        if device.get("memory_total"):
            told.append(f"{size(device['memory_total'])}{' shared' if device.get('integrated') else ''}")
        told.append(f"driver {device['driver']}" if device.get("driver") else "")
        lines.append(f"{device['name']} ({', '.join(part for part in told if part)})")
    return lines


def _say(text: str) -> None:
    click.echo(clean(text) if on_terminal() else text)
