"""One conversation as the command line holds it: a thread, made when the first question comes, and turns in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from .output import clean, note, on_terminal
from .session import Session

if TYPE_CHECKING:
    from .pictures import Picture

__all__ = ["Conversation", "Printer", "remark"]


class Printer:
    """Writes an answer to stdout as it comes, each piece at once; nothing more after an interrupt."""

    def __init__(self, session: Session) -> None:
        self._interrupts = session.interrupts
        self._terminal = on_terminal()
        self._last = ""

    def __call__(self, text: str) -> None:
        if not self._interrupts.count:
            self._write(clean(text) if self._terminal else text)

    def end(self) -> None:
        """End the line, if there is one; after an interrupt only on a terminal: a pipe may have no reader any more."""
        if self._last and self._last != "\n" and (self._terminal or not self._interrupts.count):
            self._write("\n")

    def _write(self, text: str) -> None:
        if not text or sys.stdout is None:
            return
        self._last = text[-1]
        try:
            # The write blocks when the reader is behind, and the event loop with it; an interrupt must come through.
            with self._interrupts.while_writing():
                sys.stdout.write(text)
                sys.stdout.flush()
        except KeyboardInterrupt:
            pass  # whom this stops was told and ends at its next step


@dataclass
class Conversation:
    """What is said to whom. `thread_id` None: a thread is made for the first question."""

    session: Session
    thread_id: str | None = None
    incognito: bool = False
    assistant: str = ""
    model: str = ""
    system: str = ""
    sensitivity: str | None = None
    """Of a new thread; None: as it is for its kind."""
    parameters: dict[str, Any] = field(default_factory=dict)

    def restart(self) -> None:
        """Leave the thread; the next question begins a new one."""
        self.thread_id = None

    async def ask(
        self, question: str, show: Callable[[str], None] | None, pictures: Sequence[Picture] = ()
    ) -> dict[str, Any]:
        """One turn. `show` gets the answer's text as it comes; None: only the result matters.

        Returns the result of `threads.run`. Raises RpcError, and Failed for a picture that cannot be used.
        """
        with self.session.progress() as progress, progress.otherwise("waiting for the model"):
            await self._begin()
            if pictures:
                from .look import look

                return await look(self, question, pictures, show, progress)
            params = {
                "thread_id": self.thread_id,
                "content": question,
                "model": self.model,
                "parameters": self.parameters,
                "stream": show is not None,
            }
            async with self.session.caller.stream("threads.run", params, progress=progress) as stream:
                async for item in stream:
                    # A source that always has the next item never lets this task sleep, and only sleepers hear of
                    # a cancellation.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    if item["type"] == "delta" and show is not None:
                        progress.close()
                        show(item["text"])
                    elif item["type"] == "reasoning":
                        progress("thinking", None, None)
                result: dict[str, Any] = await stream.result()
        return result

    async def _begin(self) -> None:
        call = self.session.caller.call
        if self.thread_id is None:
            if self.assistant:  # a thread may name an assistant that is gone, but nobody asks for one
                await call("assistants.get", {"assistant_id": self.assistant})
            params = {
                "incognito": self.incognito,
                "assistant_id": self.assistant,
                "model": self.model,
                "sensitivity": self.sensitivity,
            }
            self.thread_id = (await call("threads.create", params))["id"]
        if self.system:
            params = {"thread_id": self.thread_id, "role": "system", "content": self.system}
            await call("messages.create", params)
            self.system = ""


def remark(result: dict[str, Any]) -> None:
    """What the person should know about an answer, once it is printed: what was left out, and whether it was cut."""
    for text in result["notes"]:
        note(f"note: {text}")
    if result["message"].get("finish_reason") == "length":
        note("note: the answer stops at the token limit")
