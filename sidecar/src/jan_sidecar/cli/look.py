"""One question about pictures.

Threads keep text, so it is the engine that is asked, and not the thread: with the instructions, and without what was
said before. The thread keeps the question, the pictures' names and the answer; later turns know no more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from jan_core import RpcError

from .app import Failed

if TYPE_CHECKING:
    from .pictures import Picture
    from .progress import Progress
    from .turn import Conversation

__all__ = ["look"]


async def look(
    conversation: Conversation,
    question: str,
    pictures: Sequence[Picture],
    show: Callable[[str], None] | None,
    progress: Progress,
) -> dict[str, Any]:
    """Ask in a conversation that has its thread. Returns what `threads.run` would.

    Raises RpcError, and Failed with its name for a picture that the engine cannot use.
    """
    session = conversation.session
    request = {**await _request(conversation), "stream": show is not None}
    parts = [picture.part() for picture in pictures]
    request["messages"].append({"role": "user", "content": [*parts, {"type": "text", "text": question}]})
    try:
        async with session.caller.stream("chat.complete", request, progress=progress) as stream:
            async for chunk in stream:
                await anyio.lowlevel.checkpoint_if_cancelled()  # as in a turn
                text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                if text and show is not None:
                    progress.close()
                    show(text)
            completion = await stream.result()
    except RpcError as error:
        index = error.data.get("index") if error.type == "invalid_image" else None
        if not isinstance(index, int):
            raise
        raise Failed(f"{pictures[index].name}: {error.message}") from None
    choice = completion["choices"][0]
    answer = choice["message"].get("content") or ""
    names = ", ".join(Path(picture.name).name for picture in pictures)
    for role, text in (("user", f"[{names}]\n\n{question}"), ("assistant", answer)):
        await session.call("messages.create", {"thread_id": conversation.thread_id, "role": role, "content": text})
    message = {"content": answer, "model": completion["model"], "finish_reason": choice.get("finish_reason")}
    return {"message": message, "usage": completion["usage"], "notes": []}


async def _request(conversation: Conversation) -> dict[str, Any]:
    """Who is asked, and how, without the question."""
    session = conversation.session
    thread = await session.call("threads.get", {"thread_id": conversation.thread_id})
    assistant = await session.call("assistants.get", {"assistant_id": thread.get("assistant_id") or "jan"})
    said = await session.pages("messages", {"thread_id": conversation.thread_id})
    told = [assistant.get("instructions", ""), *(message["content"] for message in said if message["role"] == "system")]
    instructions = "\n\n".join(filter(None, told))
    return {
        **assistant.get("parameters", {}),
        **conversation.parameters,
        "messages": [{"role": "system", "content": instructions}] if instructions else [],
        "model": conversation.model or thread.get("model") or assistant.get("model", ""),
        "sensitivity": thread.get("sensitivity", "normal"),
    }
