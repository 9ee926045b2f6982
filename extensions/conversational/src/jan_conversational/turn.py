"""One assistant turn: store the question, put the prompt together, ask the engine, store the answer.

Every error leaves the thread released and what had arrived stored. The engine, the assistants and the context
strategy are reached by name, through the method table and the hooks; nothing here knows who serves them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
import msgspec

from jan_core import Call, Context, ErrorObject, JanError, Progress, RpcError
from jan_core.types import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Message,
    MessageStatus,
    Sampling,
    StreamOptions,
    Thread,
)

from .library import Library
from .prompt import Prompt, Question, assemble, assistant_for, merged
from .recorder import Recorder
from .settings import ConversationalSettings
from .shapes import RunDelta, RunItem, RunReasoning, RunResult, RunStarted, RunThread
from .store import Run, Store

__all__ = ["Turns"]

Send = Callable[[RunItem], Awaitable[None]]

LAST_WRITE_SECONDS = 10.0
"""How long a cancelled run may hold its caller up for storing what had arrived: longer than another process
may hold the database, shorter than anybody's patience."""


class Turns:
    """Runs turns for one generation of the extension. `changed` and `added` tell the house what happened."""

    def __init__(self, ctx: Context, library: Library) -> None:
        self._ctx = ctx
        self._library = library

    async def run(self, params: RunThread, call: Call) -> RunResult:
        """See `threads.run`."""

        def progress(message: str, done: float | None, total: float | None) -> None:
            call.progress(message, done=done, total=total)

        store = self._library.store_of(params.thread_id)
        run = await store.begin_run(params.thread_id, params.content)
        if run.question is not None:
            self.added(run.thread, run.question)
        try:
            request, prompt = await self._prepare(store, run, params, progress)
        except BaseException:
            with suppress(JanError), anyio.move_on_after(LAST_WRITE_SECONDS, shield=True):
                await store.end_run(run, None)
            raise
        settings: ConversationalSettings = self._ctx.settings
        recorder = Recorder(store, run, every=settings.flush_seconds)
        try:
            send = call.send if params.stream else _drop
            completion = await self._stream(request, prompt, run, recorder, send, progress)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(LAST_WRITE_SECONDS, shield=True):
                await self._keep(recorder, run, "cancelled", JanError("cancelled"))
            raise
        except Exception as error:
            known = error if isinstance(error, JanError) else JanError(type(error).__name__)
            status: MessageStatus = "cancelled" if known.type == "cancelled" else "failed"
            with anyio.move_on_after(LAST_WRITE_SECONDS, shield=True):
                await self._keep(recorder, run, status, known)
            if known is not error:
                raise
            raise _with_ids(known, run) from error
        message = await self._complete(recorder, run, completion)
        return RunResult(message, message.usage, prompt.omitted, prompt.notes)

    def changed(self, thread_id: str) -> None:
        """Tell everybody that a thread changed."""
        self._ctx.emit("threads.changed", {"thread_id": thread_id}, key=f"threads.changed:{thread_id}")

    def erased(self, thread_id: str) -> None:
        """Tell everybody that a thread, or a text in it, is not there any more."""
        self.changed(thread_id)
        self._ctx.emit("threads.erased", {"thread_id": thread_id}, key=f"threads.erased:{thread_id}")

    def added(self, thread: Thread, message: Message) -> None:
        """Tell everybody of a stored message; of an incognito one only that its thread changed."""
        self.changed(thread.id)
        if not thread.incognito:
            # In the background: whoever listens must not hold up the conversation.
            self._ctx.tasks.start_soon(self._ctx.hooks.message_added, thread, message, name="message_added")

    async def _prepare(
        self, store: Store, run: Run, params: RunThread, progress: Progress
    ) -> tuple[ChatRequest, Prompt]:
        thread = run.thread
        assistant, notes = await assistant_for(self._ctx, thread)
        model = params.model or thread.model or (assistant.model if assistant else "")
        sampling = merged(assistant, params.parameters)
        question = Question(thread, assistant, model, sampling)
        settings: ConversationalSettings = self._ctx.settings
        prompt = await assemble(self._ctx, question, partial(store.history, thread.id), settings, progress)
        prompt.notes[:0] = notes
        request = ChatRequest(
            messages=prompt.messages,
            model=model,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
            thread_id=None if thread.incognito else thread.id,  # an incognito thread is named to nobody
            sensitivity=thread.sensitivity,
            **{name: getattr(sampling, name) for name in Sampling.__struct_fields__},
        )
        return request, prompt

    async def _stream(
        self, request: ChatRequest, prompt: Prompt, run: Run, recorder: Recorder, send: Send, progress: Progress
    ) -> ChatCompletion:
        asked = run.question.id if run.question else ""
        await send(RunStarted(asked, run.answer_id, prompt.omitted, prompt.notes))
        async with self._ctx.stream(
            "chat.complete", request, item=ChatChunk, result=ChatCompletion, progress=progress
        ) as stream:
            async for chunk in stream:
                text = chunk.text()
                reasoning = "".join(choice.delta.reasoning_content or "" for choice in chunk.choices)
                recorder.add(text, reasoning=reasoning, model=chunk.model)
                if reasoning:
                    await send(RunReasoning(reasoning))
                if text:
                    await send(RunDelta(text))
            completion: ChatCompletion = await stream.result()
        if recorder.empty and completion.choices and (text := completion.choices[0].message.text()):
            recorder.add(text)  # an engine that does not stream
            await send(RunDelta(text))
        return completion

    async def _complete(self, recorder: Recorder, run: Run, completion: ChatCompletion) -> Message:
        choice = completion.choices[0] if completion.choices else None
        message = await recorder.finish(
            "complete",
            model=completion.model,
            finish_reason=choice.finish_reason if choice else None,
            usage=completion.usage,
            tool_calls=choice.message.tool_calls if choice else None,
        )
        self.added(run.thread, message)
        return message

    async def _keep(self, recorder: Recorder, run: Run, status: MessageStatus, error: JanError) -> None:
        """Store what had arrived of an answer that did not end well; the error on its way is more than this
        one.
        """
        fields = {} if status == "cancelled" else {"error": error.type}
        metadata = {} if status == "cancelled" else {"error_message": error.message}
        try:
            message = await recorder.finish(status, metadata=metadata, **fields)
        except JanError as failure:
            self._ctx.log.error("a partial answer could not be kept: %s", failure.message)
        else:
            self.added(run.thread, message)


async def _drop(item: RunItem) -> None:
    """Where items go that nobody asked for."""


def _with_ids(error: JanError, run: Run) -> RpcError:
    """The engine's own error, saying in which thread and message it struck."""
    wire = error.to_object()
    data = {**(wire.data or {}), "thread_id": run.thread.id, "message_id": run.answer_id}
    return RpcError(msgspec.structs.replace(ErrorObject(wire.code, wire.message), data=data))
