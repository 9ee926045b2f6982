"""Made-up tool lists, questions that need one of them, and the calls and answers that are right.

Names, argument keys and values vary at random: only a model that reads what it was given can be right.
With `held_out=True` words come from lists that training never uses. Not here: tokens, plain chat.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from corpus import decorate, read

_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"


@dataclass(frozen=True)
class Exchange:
    """A question, the call it needs, what the tool returns, and the final answer."""

    question: str
    call: str
    result: str
    answer: str


@dataclass(frozen=True)
class Tool:
    """One tool as a client would declare it, with this conversation's names for its arguments."""

    entry: dict[str, Any]
    name: str
    keys: dict[str, str]
    schema: dict[str, Any]


def _letters(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 4)))


def _word(rng: random.Random, kind: str, held_out: bool) -> str:
    data = read("tools.toml")
    lists = data["held_out"] if held_out else data["words"]
    return str(rng.choice(lists[kind]))


def _value(rng: random.Random, kind: str, held_out: bool) -> str | int:
    if kind == "number":
        return rng.randrange(rng.choice([10, 100, 1000, 10000]))
    if kind == "small":
        return rng.randint(1, 120)
    if kind == "words":
        count = rng.randint(1, 4)
        known = (rng.random() < 0.75 for _ in range(count))
        return " ".join(_word(rng, "common", held_out) if usual else _letters(rng) for usual in known)
    if kind == "path":
        stem = _word(rng, "stem", held_out) if rng.random() < 0.5 else _letters(rng)
        folder = f"{_letters(rng)}/" if rng.random() < 0.3 else ""
        return f"{rng.choice(['', '', '/', './'])}{folder}{stem}.{_word(rng, 'ending', False)}"
    if kind in ("place", "name") and rng.random() < 0.5:
        return _letters(rng).capitalize()
    return _word(rng, kind, held_out)


def repeat(rng: random.Random, held_out: bool = False) -> tuple[str, str]:
    """A request to repeat something, and that something."""
    kinds = ("words", "words", "place", "name", "path", "number")
    drawn = [str(_value(rng, rng.choice(kinds), held_out)) for _ in range(rng.choice([1, 1, 2, 3]))]
    text = " ".join(drawn) + rng.choice(["", "", ".", "!"])
    return rng.choice(read("tools.toml")["repeat"]["ask"]).replace("{text}", text), text


def declare(rng: random.Random, entry: dict[str, Any]) -> Tool:
    """Declares a tool of the corpus under one of its names, in one of the shapes that clients use."""
    name = rng.choice(entry["names"])
    keys = {argument: rng.choice(entry["keys"][argument]) for argument in entry["keys"]}
    described = rng.random() < 0.4
    properties: dict[str, Any] = {}
    for argument, key in keys.items():
        kind = "integer" if entry["values"][argument] in ("number", "small") else "string"
        kind = rng.choice(["number", "integer"]) if kind == "integer" else kind
        properties[key] = {"type": kind, "description": f"The {key}"} if described else {"type": kind}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        parameters["required"] = list(properties)
    function: dict[str, Any] = {"name": name}
    if rng.random() < 0.9:
        function["description"] = rng.choice(entry["descriptions"])
    function["parameters"] = parameters
    return Tool(entry, name, keys, {"type": "function", "function": function})


def declare_several(rng: random.Random, count: int) -> list[Tool]:
    """Different tools, in random order."""
    return [declare(rng, entry) for entry in rng.sample(read("tools.toml")["tool"], count)]


def system_message(rng: random.Random, tools: list[Tool], instructions: str) -> str:
    """The system message as the chat template renders it, with keys sorted or not (renderers differ)."""
    sort = rng.random() < 0.4
    lines = "".join("\n" + json.dumps(tool.schema, ensure_ascii=False, sort_keys=sort) for tool in tools)
    return (
        f"{instructions}\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>{lines}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def exchange(rng: random.Random, tool: Tool, held_out: bool = False) -> Exchange:
    """A question for this tool, with everything that follows from it."""
    kinds: dict[str, str] = tool.entry["values"]
    values: dict[str, Any] = {argument: _value(rng, kind, held_out) for argument, kind in kinds.items()}
    shape = rng.choice(tool.entry["ask"])
    question = shape if rng.random() < 0.5 else decorate(rng, shape.rstrip("?.!"), spoil=False)
    facts = dict(
        values,
        n=rng.randint(-20, 40),
        condition=_word(rng, "condition", False),
        clock=f"{rng.randrange(24):02d}:{rng.randrange(60):02d}",
        sum=values.get("a", 0) + values.get("b", 0),
        found=_value(rng, "words", held_out),
    )

    def fill(text: str) -> str:
        for name, value in facts.items():
            text = text.replace(f"{{{name}}}", str(value)).replace(f"{{{name.capitalize()}}}", str(value))
        return text

    arguments = {tool.keys[argument]: value for argument, value in values.items()}
    call = json.dumps({"name": tool.name, "arguments": arguments}, ensure_ascii=False)
    result = fill(rng.choice(tool.entry["results"]))
    return Exchange(fill(question), f"<tool_call>\n{call}\n</tool_call>", result, fill(tool.entry["answer"]))
