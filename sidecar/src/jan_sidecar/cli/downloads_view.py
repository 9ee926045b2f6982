"""One download as a person sees it: the readable record, the piece map in characters, the page of its history."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .amounts import local, span, speed
from .app import App, Failed
from .output import Column, clean, note, on_terminal, print_json, print_record, print_table, size
from .standing import Record, looked_at

__all__ = ["drawn_map", "say", "say_verified", "show_record", "write_page"]

SOURCES = (
    Column("id", "SOURCE"),
    Column("state", "STATE"),
    Column("bytes", "BROUGHT", size),
    Column("speed", "SPEED", speed),
    Column("connections", "CONNS"),
    Column("errors", "ERRORS"),
    Column("reason", "WHY", roomy=True),
)
ROWS = 8
"""So many lines of a piece map at most; of more pieces, several share a character."""
LETTERS = {
    "v": ("█", "verified"),
    "w": ("▓", "there"),
    "a": ("▒", "under way"),
    "p": ("░", "begun"),
    "x": ("x", "was wrong, fetched again"),
    "m": ("·", "missing"),
}
PLAIN = {"v": "#", "w": "#", "a": "+", "p": "-", "x": "x", "m": "."}
_BEHIND = "xmpawv"
"""The furthest behind first: it speaks for all that share a character."""
_RUN = re.compile(r"(\d+)([vwapxm])")


def show_record(record: Record) -> None:
    """Print a download: a field a line, its sources, and on a terminal its piece map."""
    done, total = size(record["bytes_done"]), record["bytes_total"]
    share = f" ({100 * record['bytes_done'] / total:.1f} %)" if total else ""
    verified = record["state"] == "completed" and record["verified"]
    print_record(
        {
            "id": record["id"],
            "file": record["name"],
            "state": record["state"],
            "why": looked_at(record),
            "done": f"{done} of {size(total)}{share}" if total else done,
            "discarded": size(record["bytes_discarded"]) if record["bytes_discarded"] else "",
            "speed": speed(record["speed"]) if record["speed"] else "",
            "left": span(record["eta"]) if record["eta"] is not None else "",
            "checked": "its SHA-256 matches" if verified else record["warning"] or "when all of it is there",
            "sha256": record["sha256"] or record["actual_sha256"],
            "path": record["path"],
            "origin": record["origin"],
            "group": record["group"],
            "role": record["role"] if record["role"] != "weights" else "",
            "limit": speed(record["limit"]) if record["limit"] else "",
            "priority": record["priority"] or "",
            "not before": local(record["not_before"]),
            "tries again": local(record["retry_at"]),
            "created": local(record["created_at"]),
            "completed": local(record["completed_at"]),
        },
        as_json=False,
    )
    if record["sources"]:
        click.echo()
        print_table(record["sources"], SOURCES, as_json=False, empty="")
    if record["pieces"] and on_terminal():
        click.echo()
        for line in drawn_map(record["pieces"]):
            click.echo(line)


def drawn_map(pieces: str) -> list[str]:
    """The piece map in characters, and what they mean."""
    from rich.console import Console

    console = Console()
    plain = console.legacy_windows or not console.encoding.lower().startswith("utf")
    letters = "".join(letter * int(count) for count, letter in _RUN.findall(pieces))
    width = max(8, min(64, console.width - 1))
    shared = -(-len(letters) // (width * ROWS))
    cells = [min(letters[at : at + shared], key=_BEHIND.index) for at in range(0, len(letters), shared)]
    signs = "".join(PLAIN[cell] if plain else LETTERS[cell][0] for cell in cells)
    used = [letter for letter in LETTERS if letter in letters]
    key = ", ".join(f"{PLAIN[it] if plain else LETTERS[it][0]} {LETTERS[it][1]} {letters.count(it):,}" for it in used)
    each = f"; a character stands for {shared} pieces" if shared > 1 else ""
    return [*(signs[at : at + width] for at in range(0, len(signs), width)), f"{len(letters):,} pieces: {key}{each}"]


def write_page(app: App, id: str, path: Path, *, group: bool = False) -> None:
    """Write the history of a download as a page, with those of its group if `group`.

    Raises Failed when the file cannot be written, RpcError.
    """
    answer = app.call("downloads.history", {"id": id, "html": True, "group": group})
    try:
        path.write_text(answer["html"], encoding="utf-8")
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror or error}") from None
    note(f"written: {path}")


def say(records: Sequence[Record], as_json: bool, told: Callable[[Record], str]) -> None:
    """What became of downloads: `told` says it of one."""
    if as_json:
        print_json(records)
    for record in () if as_json else records:
        note(f"{record['id']} ({record['name']}) is {told(record)}")


def say_verified(outcomes: Sequence[dict[str, Any]]) -> None:
    """What came of checking files."""
    for outcome in outcomes:
        which = f"{outcome['id']} ({clean(outcome['name'])})"
        damaged = f"{size(outcome['damaged'])} of {size(outcome['size'])}" if outcome["damaged"] else "the file"
        if outcome["ok"]:
            source = "the hash that was asked for" if outcome["known_before"] else "the hash it had when it was fetched"
            note(f"{which} is whole: it has {source}")
        elif outcome.get("repaired"):
            note(f"{which} was damaged and is whole again: {damaged} was fetched anew")
        else:
            note(f"{which} is damaged: it hashes to {outcome['actual']}, not to {outcome['expected']}")
            note(f"     mend it with: jan downloads verify {outcome['id']} --repair")
