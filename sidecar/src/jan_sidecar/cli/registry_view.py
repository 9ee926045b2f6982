"""What an operator is shown: how a folder stands, and what clients will see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App
from .output import Column, note, print_json, print_table, size
from .registry_folder import call, place

__all__ = ["show_preview", "show_status"]

SHOWN = 5
"""So many ids of a long list."""
WARNINGS = 10
ROLES = (
    Column("role", "ROLE"),
    Column("version", "VERSION"),
    Column("expires", "EXPIRES"),
    Column("signs", "SIGNS"),
    Column("here", "KEYS HERE"),
    Column("due", "DUE"),
)


def show_status(app: App, folder: Path, as_json: bool) -> None:
    """`jan registry status --folder`: how an operator's folder stands."""
    held = call(app, "status", {"folder": str(folder.absolute())})
    if as_json:
        print_json(held)
        return
    for problem in held["problems"]:
        note(f"problem: {place(problem)}")
    _warn([place(warning) for warning in held["warnings"]])
    records = ", ".join(f"{name} {count}" for name, count in held["records"].items())
    click.echo(f"{held['name']}: {records}")
    click.echo(f"published: version {held['version']}" if held["version"] else "published: nothing yet")
    for change in held["changes"]:
        click.echo(f"  to be published: {change['name']}: {_changes(change)}")
    for file in held["waiting"]:
        click.echo(f"  waits for signatures: {file['role']} {file['version']}")
    rows = []
    for role in held["roles"]:
        here = sum(bool(key["file"]) for key in role["keys"])
        rows.append(
            {
                **role,
                "signs": f"{role['threshold']} of {len(role['keys'])}",
                "here": here,
                "due": "now" if role["due"] else "",
            }
        )
    print_table(rows, ROLES, as_json=False, empty="there is no hub in it yet")


def show_preview(preview: dict[str, Any], dry_run: bool) -> None:
    click.echo(f"Clients {'would' if dry_run else 'will'} see, as version {preview['version']} of the hub:")
    for change in preview["collections"]:
        click.echo(f"  {change['name']}: {_changes(change)}")
        delta = f", {size(change['delta_bytes'])} from the version before" if change["delta_bytes"] else ""
        click.echo(f"    {size(change['full_bytes'])} to download{delta}")
    if not preview["collections"]:
        click.echo("  nothing new")
    for title, lines in (
        ("Featured", [f"{it['id']}, {it['who']}: {_few(it['models'])}" for it in preview["featured"]]),
        ("Flags", [f"{it['id']}: {'; '.join(it['values'])}" for it in preview["flags"]]),
        (
            "Experiments",
            [f"{it['id']}, {it['state']}, {it['who']}: {'; '.join(it['branches'])}" for it in preview["experiments"]],
        ),
        ("Revoked", preview["revocations"]),
    ):
        if lines:
            click.echo(f"{title}:")
        for line in lines:
            click.echo(f"  {line}")
    _warn(preview["warnings"])
    for lack in preview["missing"]:
        note(f"missing: {lack['needs']} signature(s) for {lack['role']}, whose keys are not here")


def _changes(change: dict[str, Any]) -> str:
    kinds = (("new", change["created"]), ("changed", change["updated"]), ("gone", change["deleted"]))
    said = "; ".join(f"{len(ids)} {kind}: {_few(ids)}" for kind, ids in kinds if ids)
    return said or ("as before" if change["count"] else "empty")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def _warn(warnings: list[str]) -> None:
    for warning in warnings[:WARNINGS]:
        note(f"warning: {warning}")
    if len(warnings) > WARNINGS:
        note(f"and {len(warnings) - WARNINGS} warnings more; all of them: --json")
