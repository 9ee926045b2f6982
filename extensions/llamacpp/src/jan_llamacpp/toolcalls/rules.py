"""The forms as grammars: calls of these tools, exactly as a model writes them, with the arguments their schemas want.

What these rules let through is what `stream.py` reads. White space between the parts of JSON is free, elsewhere it is
that of the table. Where a form writes arguments as texts, those that are strings may be any text that does not end them
(lengths and patterns do not hold), and the others are JSON of their schema; they come in the schema's order. Tools
without properties take any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..worker.json_rules import json_literal, literal, until
from .forms import CHANNEL, END, MESSAGE, START, Form
from .patterns import Pattern
from .values import kinds_of, property_of, takes_text

__all__ = ["CallRules", "call_rules", "text_rules", "triggers_of"]

_ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}
_ID = "[a-zA-Z0-9]{1,9}"
_KEY = "[a-zA-Z0-9_.-]{1,64}"


class CallRules(Struct, frozen=True):
    """`gbnf`: rules, of which `calls` is one call or several. `schemas`: rules it needs, as JSON schemas; `fallback`:
    others in their place, where these make no grammar.
    """

    gbnf: str
    schemas: dict[str, Any]
    fallback: dict[str, Any]


def call_rules(form: Form, tools: Mapping[str, Any], *, parallel: bool) -> CallRules:
    """Rules for calls of these tools (their names, with the schemas of their arguments)."""
    made = CallRules("", {}, {})
    before, slot, after = form.halves()
    lines = []
    for number, (name, schema) in enumerate(tools.items()):
        if slot == "{parameters}":
            body = _parameters(form, f"p{number}x", schema, made)
        else:
            body = f"args{number}"
            made.schemas[body], made.fallback[body] = schema or _ANY_ARGUMENTS, _ANY_ARGUMENTS
        if slot == "{object}":
            name_key, key = (json_literal(each) for each in form.keys)
            body = f'"{{" ws {name_key} ws ":" ws {json_literal(name)} ws "," ws {key} ws ":" ws {body} ws "}}"'
        lines.append(f"tool{number} ::= {_written(before, name=name)} {body} {_written(after)}")
    if form.parameter:
        head, _, tail = form.parameter.partition("{value}")
        lines.append(f"any ::= {_written(head, key=None)} text0 {_written(_after(tail))}")
        lines.append(until(tail.strip(), "text"))
    lines.append("call ::= " + " | ".join(f"tool{number}" for number in range(len(tools))))
    return CallRules("\n".join([*lines, *_blocks(form, parallel)]) + "\n", made.schemas, made.fallback)


def text_rules(form: Form) -> tuple[str, str, str]:
    """What may stand before an answer, what stands before one that is no call, and rules for both."""
    if not form.channels:
        return "", "", ""
    thoughts = f"({literal(f'{CHANNEL}analysis{MESSAGE}')} thought0 {literal(f'{START}assistant')})?"
    return thoughts, literal(f"{CHANNEL}final{MESSAGE}"), until(END, "thought")


def triggers_of(form: Form, names: list[str]) -> list[str]:
    """The texts with which an answer's first call begins; [] where they cannot be looked for."""
    if form.channels:
        return []  # it may name the tool before the channel, too
    if form.bare:
        found = [f'{{"{form.keys[0]}":{space}"{name}"' for name in names for space in (" ", "")]
    else:
        found = [Pattern(*form.begin, form.halves()[0]).first]
    return [each for each in found if each.isascii() and each.isprintable()]


def _blocks(form: Form, parallel: bool) -> list[str]:
    begin, end = _written("" if form.bare else "".join(form.begin)), _written(form.end)
    if form.comma is None:
        more = ' ("\\n" block)*' if parallel and not form.channels else ""
        return [f"block ::= {begin} call {end}", f"calls ::= block{more}"]
    comma = form.comma.strip()
    between = f"ws {literal(comma)} ws" if comma else _written(form.comma)
    more = f" ({between} call)*" if parallel else ""
    space = "ws" if comma and not form.bare else ""
    return [f"calls ::= {begin} {space} call{more} {space} {end}"]


def _parameters(form: Form, prefix: str, schema: Any, made: CallRules) -> str:
    """The arguments of a tool, one after the other."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not properties or not isinstance(properties, dict):
        return "any*"
    required = schema.get("required")
    head, _, tail = form.parameter.partition("{value}")
    parts = []
    for number, key in enumerate(properties):
        own, rule = property_of(schema, key), f"{prefix}{number}"
        begin, optional = _written(head, key=key), not isinstance(required, list) or key not in required
        if takes_text(own) and isinstance(own.get("enum"), list):
            part = f"{begin} ({' | '.join(map(literal, own['enum']))}) {_written(tail)}"
        elif "string" in kinds_of(own):
            part = f"{begin} text0 {_written(_after(tail))}"
        else:
            made.schemas[rule], made.fallback[rule] = own, {}
            part = f"{begin} {rule} {_written(tail)}"
        parts.append(f"({part})?" if optional else part)
    return " ".join(parts)


def _after(tail: str) -> str:
    """What stands after the text that ends a value."""
    return tail.partition(tail.strip())[2]


def _written(text: str, **slots: str | None) -> str:
    """A part of the table, with its slots filled; None: by any name."""
    parts = []
    for part in re.split(r"(\{\w+\})", text):
        if part == "{id}":
            parts.append(_ID)
        elif part[1:-1] in slots and part.startswith("{"):
            value = slots[part[1:-1]]
            parts.append(_KEY if value is None else literal(value))
        elif part:
            parts.append(literal(part))
    return " ".join(parts)
