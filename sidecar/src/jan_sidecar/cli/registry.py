"""`jan registry`: the list of models that can be had. The operator's commands are in `registry_operator.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App, pass_app, wrong_usage
from .output import Column, json_option, note, print_json, print_record, print_table, size
from .registry_experiments import experiments
from .registry_operator import OPERATOR_COMMANDS, show_status
from .registry_report import fleet, print_criteria, report

__all__ = ["registry"]

COLUMNS = (
    Column("id", "MODEL"),
    Column("name", "NAME"),
    Column("license", "LICENSE", roomy=True),
    Column("description", "DESCRIPTION", roomy=True),
)
SOURCES = (
    Column("id", "SOURCE"),
    Column("title", "TITLE"),
    Column("verified", "SIGNED", lambda signed: "yes" if signed else "no"),
)
FILES = (
    Column("variant", "VARIANT"),
    Column("name", "FILE"),
    Column("size", "SIZE", size),
    Column("sha256", "SHA-256", roomy=True),
)

source_option = click.option(
    "--source", default="", metavar="ID", help="Ask this hub, which learns what is asked. See: jan registry sources"
)


@click.group()
def registry() -> None:
    """The list of models that can be had: read it, and publish one of your own."""


@registry.command()
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="An operator's folder: say instead what is published from it, and what expires when.",
)
@json_option
@pass_app
def status(app: App, folder: Path | None, as_json: bool) -> None:
    """Say where the list comes from, who vouches for it, how old it is, and what went wrong."""
    if folder is not None:
        show_status(app, folder, as_json)
        return
    answer = app.call("registry.status")
    if as_json:
        print_json(answer)
        return
    # This process asks nobody in the background, so when it would is left out.
    passing = ("notes", "refreshing", "next_refresh_at")
    record = {name: value for name, value in answer.items() if not isinstance(value, dict) and name not in passing}
    about = answer["verification"]
    record |= {
        "collections": " ".join(f"{name}:{each['status']}" for name, each in answer["collections"].items()),
        "signed by": " ".join(key[:12] for key in about["keyids"]),
        "expires": about["expires"],
    }
    print_record(record, as_json=False)
    for line in answer["notes"]:
        note(line)
    note(_source(answer))


@registry.command()
@json_option
@pass_app
def phase(app: App, as_json: bool) -> None:
    """Say which phase of the roll-out is served (fallback, mixed or dynamic), and why."""
    answer = app.call("registry.phase")
    if as_json:
        print_json(answer)
        return
    print_record({name: value for name, value in answer.items() if name not in ("criteria", "notes")}, as_json=False)
    print_criteria(answer["criteria"])
    for line in answer["notes"]:
        note(line)


@registry.command()
@json_option
@pass_app
def refresh(app: App, as_json: bool) -> None:
    """Ask the configured hub for its list now."""
    answer = app.call("registry.refresh", activate=True)
    if as_json:
        print_json(answer)
        return
    for line in answer["notes"]:
        note(line)
    changes = f"{answer['added']} new, {answer['changed']} changed, {answer['removed']} gone"
    cost = f"{answer['requests']} requests, {answer['bytes']} bytes"
    count = answer["models"]
    note(f"{answer['outcome']}: {count} model{'' if count == 1 else 's'} ({changes}; {cost})")


@registry.command()
@json_option
@pass_app
def featured(app: App, as_json: bool) -> None:
    """Show what is recommended."""
    _show(
        app.call("registry.featured", activate=True),
        as_json,
        empty="nothing is featured; search with: jan registry search WORDS",
    )


@registry.command()
@click.argument("words", nargs=-1)
@source_option
@click.option("--cursor", default="", metavar="TEXT", help="Go on where an answer of --source ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@json_option
@pass_app
def search(app: App, words: tuple[str, ...], source: str, cursor: str, limit: int, as_json: bool) -> None:
    """Find models by words of their id, name, publisher or tags."""
    text = " ".join(words)
    if not text and not source:
        wrong_usage("name a word to look for, or a hub with --source")
    params = {"text": text, "source": source, "cursor": cursor, "limit": limit}
    answer = app.call("registry.search", params, activate=True)
    _show(answer, as_json, empty=f"nothing is found for {text!r}")
    if as_json:
        return
    if answer["cursor"]:
        note(f"there is more: --cursor {answer['cursor']}")
    elif answer["total"] > (shown := len(answer["models"])):
        note(f"{shown} of {answer['total']} are shown; more of them with --limit, fewer with more words")


@registry.command()
@click.argument("model")
@source_option
@json_option
@pass_app
def show(app: App, model: str, source: str, as_json: bool) -> None:
    """Show one model: what it is, and the files of each of its variants."""
    answer = app.call("registry.get", {"id": model, "source": source}, activate=True)
    if as_json:
        print_json(answer)
        return
    record = {"revoked": answer["revoked"], **answer["model"]}
    files, variants = record.pop("files", []), record.pop("variants", [])
    print_record(record, as_json=False)
    rows = [{"variant": each["id"], **file} for each in variants for file in each.get("files", [])]
    print_table(rows or files, FILES, as_json=False, empty="its list names no files")
    if not all(file.get("sha256") for file in rows or files):
        note("a file without a SHA-256 can be fetched, but not checked")
    if answer["revoked"]:
        note(f"it was revoked ({answer['revoked']}): it is neither fetched nor loaded any more")
    note(_source(answer))


@registry.command()
@json_option
@pass_app
def sources(app: App, as_json: bool) -> None:
    """Show the other hubs that can be asked. None is, unless you name it."""
    answer = app.call("registry.sources", activate=True)
    print_table(answer["sources"], SOURCES, as_json=as_json, empty="there are none")


for command in (experiments, report, fleet, *OPERATOR_COMMANDS):
    registry.add_command(command)


def _show(answer: dict[str, Any], as_json: bool, *, empty: str) -> None:
    if as_json:
        print_json(answer)
        return
    print_table(answer["models"], COLUMNS, as_json=False, empty=empty)
    if answer["models"]:
        note(f"{_source(answer)}; get one with: jan models pull MODEL")


def _source(answer: dict[str, Any]) -> str:
    """Where the list comes from and who vouches for it, as a sentence."""
    provenance, status = answer["provenance"], answer["verification"]["status"]
    match provenance["origin"]:
        case "builtin":
            return "the list is the one built in"
        case "bundle":
            return "the list is the signed one that came with the program"
        case "source":
            return f"from {provenance['source']}, {status}"
    return f"the list is from {provenance['source']}, confirmed {_ago(provenance['age'])}, {status}"


def _ago(seconds: float | None) -> str:
    if seconds is None or seconds < 60:
        return "just now"
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    raise AssertionError(seconds)
