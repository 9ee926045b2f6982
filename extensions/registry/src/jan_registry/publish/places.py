"""Where in a TOML file a field stands: the parser of the standard library does not tell.

For messages only. It reads lines and not TOML, so that in a file written in an unusual way it names the line of the
table around the field, or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["find", "line_of", "lines_of"]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")
_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")


def line_of(text: str, field: str) -> int:
    """The line, counted from 1, of a field such as `files[0].sources[1].url`, else of the table it is in; 0 for the
    file as a whole."""
    return find(lines_of(text), field)


def find(lines: Mapping[str, int], field: str) -> int:
    """As `line_of`, in what `lines_of` says of the text."""
    steps = _STEP.findall(field)
    for end in range(len(steps), 0, -1):
        found = lines.get("".join(steps[:end]))
        if found:
            return found
    return 0


def lines_of(text: str) -> dict[str, int]:
    """Field (its steps joined without dots) -> line."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            table = ""
            *around, last = _names(header[2])
            for name in around:
                table += name
                table += f"[{counts[table] - 1}]" if table in counts else ""
            table += last
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table += f"[{counts[table] - 1}]"
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault(table + "".join(_names(key[1])), number)
    return found


def _names(dotted: str) -> list[str]:
    return [name.strip().strip("\"'").replace(".", "") for name in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", dotted)]
