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

_CONTROL = {code: None for code in [*range(0x20), 0x7F, *range(0x80, 0xA0)] if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """The text without control characters (C0 but newline and tab, DEL, C1): what is left cannot steer a terminal."""
    return text.translate(_CONTROL)


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
    """One column: the record's field, the heading, and how a person reads the value. Scripts get it as it is."""

    field: str
    title: str
    show: Callable[[Any], str] | None = None


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
            click.echo(f"{name.ljust(width)}  {clean(value).rstrip() if isinstance(value, str) else _plain(value)}")
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
    if isinstance(value, dict | list):
        import msgspec

        value = msgspec.json.encode(value).decode()
    return " ".join(clean(str(value)).split())


def _print_rich(records: Sequence[dict[str, Any]], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, overflow="fold", no_wrap=column.field == "id")  # ids are for copying
    for record in records:
        # Text, not str: a model's name is not markup.
        table.add_row(*(Text(_cell(record.get(column.field), column)) for column in columns))
    Console().print(table)


def _cell(value: Any, column: Column) -> str:
    if column.show is not None and value not in (None, ""):
        return clean(column.show(value))
    return _plain(value)
