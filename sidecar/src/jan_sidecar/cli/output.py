"""What a person or a script sees on stdout: tables on a terminal, tab-separated lines into a pipe, JSON on request.

Everything that came from a model, a file or the network passes `clean` on its way to a terminal, which would obey the
control sequences in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

__all__ = [
    "Column",
    "clean",
    "json_option",
    "note",
    "on_terminal",
    "print_json",
    "print_record",
    "print_table",
    "size",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

_STEERING = {
    code: None
    for first, last in (
        (0x00, 0x08),  # C0 but tab and newline
        (0x0B, 0x1F),
        (0x7F, 0x9F),  # DEL and C1
        (0x061C, 0x061C),  # marks, embeddings, overrides and isolates, which turn the direction of what follows around
        (0x200E, 0x200F),
        (0x2028, 0x202E),  # from here: separators of lines and paragraphs, which some take for ends of lines
        (0x2066, 0x206F),
        (0xFFF9, 0xFFFB),  # annotations, which hide what is between them
    )
    for code in range(first, last + 1)
}


_ROOM = 72
"""Columns of a terminal on which everything is shown."""


def clean(text: str) -> str:
    """The text without control characters (C0 but newline and tab, DEL, C1), and without what reorders or hides text or
    ends lines: what is left cannot steer a terminal, and stands there as it was written."""
    return text.translate(_STEERING)


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def note(text: str) -> None:
    """A remark for the person, on stderr."""
    click.echo(clean(text), err=True)


def print_json(value: Any) -> None:
    """One JSON document: indented on a terminal, one line in a pipe."""
    import msgspec

    data = msgspec.json.encode(value)
    if on_terminal():
        data = msgspec.json.format(data, indent=2)
        click.echo(clean(data.decode()))
    else:
        click.echo(data.decode("utf-8"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the record's field, the heading, and how a person reads the value. Scripts get it as it is.

    `roomy`: a person does without it on a terminal of less than 72 columns.
    """

    field: str
    title: str
    show: Callable[[Any], str] | None = None
    roomy: bool = False


def print_table(records: Sequence[dict[str, Any]], columns: Sequence[Column], *, as_json: bool, empty: str) -> None:
    """A list of records. `empty` says what to do next when there is none."""
    if as_json:
        print_json(records)
    elif not records:
        note(empty)
    elif on_terminal():
        _print_rich(records, columns)
    else:
        for record in records:
            click.echo("\t".join(_plain(record.get(column.field)) for column in columns))


def print_record(record: dict[str, Any], *, as_json: bool) -> None:
    """One record, a field a line; fields without a value are left out."""
    if as_json:
        print_json(record)
        return
    fields = {name: value for name, value in record.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in fields), default=0) if on_terminal() else 0
    for name, value in fields.items():
        if width:
            # Indented: whoever wrote a text of several lines is not to begin one that looks like a field of ours.
            text = clean(value).rstrip().replace("\n", "\n" + " " * (width + 2)) if isinstance(value, str) else ""
            click.echo(f"{name.ljust(width)}  {text or _plain(value)}")
        else:
            click.echo(f"{name}\t{_plain(value)}")


def size(value: Any) -> str:
    """Bytes for people, in powers of 1,000 as disks are sold."""
    amount = float(value or 0)
    if amount < 1000:
        return f"{amount:.0f} B"
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 1000:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if isinstance(value, dict | list):
        import msgspec

        value = msgspec.json.encode(value).decode()
    return " ".join(clean(str(value)).split())


def _print_rich(records: Sequence[dict[str, Any]], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = [column for column in columns if not column.roomy or console.width >= _ROOM]
    for column in columns:
        table.add_column(column.title, overflow="fold", no_wrap=column.field == "id")  # ids are for copying
    for record in records:
        # Text, not str: a model's name is not markup.
        table.add_row(*(Text(_cell(record.get(column.field), column)) for column in columns))
    console.print(table)


def _cell(value: Any, column: Column) -> str:
    if column.show is not None and value not in (None, ""):
        return clean(column.show(value))
    return _plain(value)
