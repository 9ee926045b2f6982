"""`jan registry`: the list of models that can be had."""

from __future__ import annotations

from typing import Any

import click

from .app import App, pass_app
from .output import Column, json_option, note, print_json, print_record, print_table

__all__ = ["registry"]

COLUMNS = (
    Column("id", "MODEL"),
    Column("name", "NAME"),
    Column("license", "LICENSE"),
    Column("description", "DESCRIPTION"),
)


@click.group()
def registry() -> None:
    """The list of models that can be had."""


@registry.command()
@json_option
@pass_app
def status(app: App, as_json: bool) -> None:
    """Say where the list comes from, how old it is, and what went wrong."""
    answer = app.call("registry.status")
    if as_json:
        print_json(answer)
        return
    print_record({name: value for name, value in answer.items() if name != "provenance"}, as_json=False)
    note(_source(answer["provenance"]))


@registry.command()
@json_option
@pass_app
def phase(app: App, as_json: bool) -> None:
    """Say which phase of the roll-out is served: fallback, mixed or dynamic."""
    print_record(app.call("registry.phase"), as_json=as_json)


@registry.command()
@json_option
@pass_app
def refresh(app: App, as_json: bool) -> None:
    """Ask the configured source for its list now."""
    answer = app.call("registry.refresh", activate=True)
    if as_json:
        print_json(answer)
        return
    for skipped in answer["skipped"]:
        note(f"not used: model {skipped['id'] or skipped['index']}: {skipped['reason']}")
    changes = f"{answer['added']} new, {answer['changed']} changed, {answer['removed']} gone"
    note(f"{answer['outcome']}: {answer['models']} models ({changes})")


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
@click.argument("words", nargs=-1, required=True)
@json_option
@pass_app
def search(app: App, words: tuple[str, ...], as_json: bool) -> None:
    """Find models by words of their id, name, publisher or tags."""
    text = " ".join(words)
    _show(app.call("registry.search", {"text": text}, activate=True), as_json, empty=f"nothing is found for {text!r}")


def _show(answer: dict[str, Any], as_json: bool, *, empty: str) -> None:
    if as_json:
        print_json(answer)
        return
    print_table(answer["models"], COLUMNS, as_json=False, empty=empty)
    if answer["models"]:
        note(f"{_source(answer['provenance'])}; get one with: jan models pull MODEL")


def _source(provenance: dict[str, Any]) -> str:
    if provenance["origin"] == "builtin":
        return "the list is the one built in"
    return f"the list is from {provenance['source']}, as of {provenance['fetched_at']}, {provenance['verification']}"
