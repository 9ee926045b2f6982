"""JSON in llama.cpp's grammar notation: the rules that any schema's grammar is made with, and texts: as they are, or
up to one.

No schemas here (`schema.py`).
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["COMMON", "FORMATS", "json_literal", "literal", "until"]

COMMON = {
    "ws": r'| " " | "\n" [ \t]{0,20}',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integer": r'"-"? whole',
    "whole": r'"0" | [1-9] [0-9]{0,15}',
    "number": r'"-"? whole ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": r'"true" | "false"',
    "null": r'"null"',
    "value": "object | array | string | number | boolean | null",
    "object": r'"{" ws (pair ("," ws pair)*)? "}"',
    "pair": 'string ws ":" ws value ws',
    "array": r'"[" ws (value ws ("," ws value ws)*)? "]"',
}
"""Rules by their names."""

FORMATS = {
    "date": r'[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])',
    "time": r'([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})?'
    r' ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
    "uuid": r'[0-9a-fA-F]{8} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{12}',
}
FORMATS["date-time"] = f'{FORMATS["date"]} "T" {FORMATS["time"]}'
"""What may stand between the quotes of a string, by its `format`."""


def literal(text: str) -> str:
    """A grammar for exactly this text."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\x00") + '"'


def json_literal(value: Any) -> str:
    """A grammar for exactly this value, written as Python writes JSON."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    return literal(text)


def until(end: str, name: str) -> str:
    """Rules `name`0…: any text up to and with the first `end`. A rule for each part of `end` that is there already."""

    def state(text: str) -> int:
        """How much of the beginning of `end` the text ends with."""
        return next(size for size in range(len(end), -1, -1) if text.endswith(end[:size]))

    rules = []
    letters = sorted(set(end))
    others = "[^" + "".join(f"\\U{ord(letter):08X}" for letter in letters) + "]"
    for size in range(len(end)):
        ways = [f"{others} {name}0"]
        for letter in letters:
            reached = state(end[:size] + letter)
            ways.append(literal(letter) + (f" {name}{reached}" if reached < len(end) else ""))
        rules.append(f"{name}{size} ::= {' | '.join(ways)}\n")
    return "".join(rules)
