"""What of a chat request goes to an endpoint: the members of OpenAI's own request, and nothing else.

An allow-list, so that a member the house adds for itself (the thread's id, its sensitivity) stays here by default.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jan_core.types import ChatMessage, ChatRequest

__all__ = ["request_body"]

_MEMBERS = (
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "min_p",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "repeat_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
)
"""`min_p`, `repeat_penalty` and `top_k` are llama.cpp's; they go along when they are given."""
_OF_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id")


def request_body(chat: ChatRequest, model: str) -> bytes:
    """The JSON of a request for `model`, which is the endpoint's own name of it.

    It always asks for a stream: so the first byte tells that the endpoint works, and each pause can be bounded.
    """
    given: dict[str, Any] = msgspec.to_builtins(chat)
    body: dict[str, Any] = {name: given[name] for name in _MEMBERS if given.get(name) is not None}
    body["model"] = model
    body["messages"] = [_message(message) for message in chat.messages]
    body["stream"] = True
    if not chat.stream or (chat.stream_options is not None and chat.stream_options.include_usage):
        body["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(body)


def _message(message: ChatMessage) -> dict[str, Any]:
    given = msgspec.to_builtins(message)
    plain = {name: given[name] for name in _OF_MESSAGE if given.get(name) is not None}
    for call in plain.get("tool_calls", ()):
        call.pop("index", None)  # of streams only
    return plain
