"""Putting a prompt together: the assistant's instructions, the history, and the hook that makes it fit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from jan_core import Context, InvalidParams, Progress, RpcError
from jan_core.types import Assembly, Assistant, Budget, ChatMessage, Message, Sampling, Thread

from .errors import ContextOverflow
from .messages import History
from .settings import ConversationalSettings
from .shapes import Parameters
from .tokens import TokenCount, count_tokens, estimate

__all__ = ["Prompt", "Question", "assemble", "assistant_for", "merged"]

ReadHistory = Callable[[int], Awaitable[History]]

FIRST_LOOK, NEXT_LOOK = 64, 8
"""How many messages are loaded and counted at first, and how many times more when all of them fit: a turn in a thread
of ten thousand must not cost ten thousand counts."""
SHORTEST_ANSWER = 32
"""Tokens: with less room than this for the answer, asking the model is of no use."""
ATTEMPTS = 4
"""How often the prompt is cut and counted again: once nearly always; more where a template hides tokens."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who is asked in which thread: `model` and `sampling` are what the run, the thread and the assistant come to."""

    thread: Thread
    assistant: Assistant | None
    model: str
    sampling: Sampling


class Prompt(Struct):
    """What goes to the model, what did not, and what there is to say about it."""

    messages: list[ChatMessage]
    omitted: list[str]
    notes: list[str]


async def assistant_for(ctx: Context, thread: Thread) -> tuple[Assistant | None, list[str]]:
    """Who answers in this thread, with notes on what had to be done otherwise. None: nobody in particular."""
    wanted = thread.assistant_id or "jan"
    try:
        return await ctx.call("assistants.get", {"assistant_id": wanted}, result=Assistant), []
    except RpcError as error:
        if error.type == "assistant_not_found":
            default = await ctx.call("assistants.get", {"assistant_id": "jan"}, result=Assistant)
            return default, [f"assistant {wanted} is no longer there: the default one answers"]
        if error.type in ("method_not_found", "extension_unavailable"):
            return None, ["assistants are not available: the model answers without instructions"]
        raise


def merged(assistant: Assistant | None, parameters: Parameters) -> Parameters:
    """The assistant's parameters, and over them those of the run.

    Raises InvalidParams for ones that do not fit.
    """
    values: dict[str, Any] = dict(assistant.parameters) if assistant else {}
    values.update(msgspec.to_builtins(parameters))
    try:
        return msgspec.convert(values, Parameters)
    except msgspec.ValidationError as error:
        raise InvalidParams(f"the assistant's parameters: {error}", path="$.parameters") from None


async def assemble(
    ctx: Context, question: Question, read: ReadHistory, settings: ConversationalSettings, progress: Progress
) -> Prompt:
    """Put the prompt together, within the model's context window. `progress` is called while the model is loaded.

    `read` gives the newest messages of the thread, as many as asked for. Raises InvalidParams when there is nothing to
    answer, ContextOverflow when what must stay does not fit, and RpcError for what the engine refuses to count.
    """

    async def counted(messages: list[ChatMessage]) -> TokenCount:
        count = await count_tokens(ctx, question.model, messages, progress)
        return count or estimate(messages, settings.unknown_context)

    most = FIRST_LOOK
    while True:
        history = await read(most)
        assembly = _everything(question, history)
        count = await counted(assembly.messages)
        context = count.context or settings.unknown_context
        reserved = _reserved(question.sampling.max_tokens, context, settings)
        if not history.more or count.tokens > context - reserved:
            break
        most *= NEXT_LOOK  # all of it fits, and there is more
    if count.estimated:
        assembly.notes.append("tokens were estimated: no engine counts them")
    if history.older_count:
        assembly.omitted += history.older
        assembly.notes.append(f"{history.older_count} older messages were not considered")
    for _ in range(ATTEMPTS):
        assembly.tokens = count.per_message
        # What a template adds belongs to no message, so it is taken off the room there is for messages.
        overhead = max(0, count.tokens - sum(count.per_message))
        before = list(assembly.messages)
        budget = Budget(question.model, context, reserved + overhead)
        assembly = await ctx.hooks.assemble_context(assembly, budget)
        changed = assembly.messages != before
        if changed:
            count = await counted(assembly.messages)
        if count.tokens <= context - reserved or not changed:
            break
    free = context - count.tokens
    if free < min(reserved, SHORTEST_ANSWER):
        raise ContextOverflow(
            f"the messages that must stay take {count.tokens} tokens; the context window holds {context}",
            tokens=count.tokens,
            context=context,
            reserved=reserved,
        )
    if free < reserved:
        assembly.notes.append(f"only {free} tokens of the context window are left for the answer")
    return Prompt(assembly.messages, assembly.omitted, assembly.notes)


def _everything(question: Question, history: History) -> Assembly:
    """The conversation as far as it was looked at, before anything is left out."""
    assembly = Assembly(question.thread, messages=[], tokens=[], ids=[])
    assistant = question.assistant
    if assistant is not None and assistant.instructions:
        _put(assembly, ChatMessage(role="system", content=assistant.instructions), "", stays=True)
    retried = _unanswered(history.messages)
    for message in history.messages[: len(history.messages) - len(retried)]:
        if message.content or message.tool_calls:  # an answer that failed before its first word says nothing
            chat = ChatMessage(
                role=message.role,
                content=message.content,
                tool_calls=message.tool_calls,
                tool_call_id=message.tool_call_id,
            )
            _put(assembly, chat, message.id, stays=message.pinned or message.role == "system")
    if not assembly.messages or assembly.messages[-1].role not in ("user", "tool"):
        raise InvalidParams("there is nothing to answer: give `content`", path="$.content")
    _pin_newest(assembly)
    if retried:
        assembly.omitted += [m.id for m in retried]
        assembly.notes.append("the question is answered again, without what was answered before it broke off")
    return assembly


def _put(assembly: Assembly, message: ChatMessage, id: str, *, stays: bool) -> None:
    before = assembly.messages[-1] if assembly.messages else None
    if before is not None and before.role == message.role == "system":
        # Chat templates take one system message at a time; many refuse or ignore a second.
        before.content = f"{before.text()}\n\n{message.text()}"
        assembly.ids[-1] = id
        return
    if stays:
        assembly.pinned.append(len(assembly.messages))
    assembly.messages.append(message)
    assembly.ids.append(id)


def _pin_newest(assembly: Assembly) -> None:
    """The newest user message stays, with what came after it (a tool's result, for one)."""
    users = [i for i, m in enumerate(assembly.messages) if m.role == "user"]
    newest = range(users[-1] if users else len(assembly.messages) - 1, len(assembly.messages))
    assembly.pinned = sorted({*assembly.pinned, *newest})


def _unanswered(messages: list[Message]) -> list[Message]:
    """The broken-off answers at the end: a new run replaces them in the prompt (not in the thread)."""
    count = 0
    for message in reversed(messages):
        if message.role != "assistant" or message.status == "complete":
            break
        count += 1
    return messages[len(messages) - count :]


def _reserved(max_tokens: int | None, context: int, settings: ConversationalSettings) -> int:
    """Tokens to keep free for the answer: what was asked for, within half of the window."""
    if max_tokens is None:
        return min(settings.reserved_for_answer, context // 4)
    return min(max_tokens, context // 2)
