"""Tools for models whose chat template knows none: what they are, calls and results are written into the messages.

The wording is ours, the notation that of Hermes' models (`toolcalls/forms.py`), which answers of such a model are read
as. How well a model keeps to it is another matter; a tool choice that wants a call makes it by a grammar.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["calls_in_text", "tools_in_text"]

_TOLD = """You may call these functions; each line describes one, its parameters as a JSON schema.
<tools>
{tools}
</tools>
To call one, answer with its name and arguments in these tags, and with nothing after them:
<tool_call>
{{"name": "the function's name", "arguments": {{"a parameter": "its value"}}}}
</tool_call>"""


def calls_in_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages without calls and results of their own kind. Roles go on alternating where they did."""
    return _joined([_written(message) for message in messages])


def tools_in_text(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, by: str = "system"
) -> list[dict[str, Any]]:
    """The messages with the tools told at their begin: `by` the system's message, or the first one of the user."""
    told = _TOLD.format(tools="\n".join(_line(tool) for tool in tools))
    first = messages[0] if messages else {}
    if first.get("role") == by and isinstance(first.get("content"), str):
        texts = [first["content"], told] if by == "system" else [told, first["content"]]
        return [{**first, "content": "\n\n".join(filter(None, texts))}, *messages[1:]]
    return [{"role": by, "content": told}, *messages]


def _line(tool: dict[str, Any]) -> str:
    return json.dumps(tool.get("function", tool), ensure_ascii=False)


def _written(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("role") == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [str(message["content"])] if message.get("content") else []
    for call in calls:
        function = call.get("function") or {}
        said = {"name": function.get("name"), "arguments": function.get("arguments")}
        texts.append(f"<tool_call>\n{json.dumps(said, ensure_ascii=False)}\n</tool_call>")
    return {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": "\n".join(texts)}


def _joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results that follow each other, and a question after them, are one message of the user."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        before = joined[-1] if joined else {}
        texts = isinstance(message.get("content"), str) and isinstance(before.get("content"), str)
        answered = str(before.get("content")).endswith("</tool_response>")
        if texts and answered and message.get("role") == before.get("role") == "user":
            joined[-1] = {**before, "content": f"{before['content']}\n{message['content']}"}
        else:
            joined.append(message)
    return joined
