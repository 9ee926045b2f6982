"""The methods `chat.complete`, `completions.create` and `tokens.count`.

One path for streamed and whole answers: the chunks are made either way, and sent only when the request asks
for a stream. What a request means to the worker is `openai.py`; which process answers is the pool's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from jan_core import Call, InvalidParams, JanError, Overloaded, RpcError, method
from jan_core.types import (
    ChatChunk,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    InferenceEngine,
    InferenceOutcome,
    InferenceRequest,
    TextCompletion,
)

from .errors import RequestRefused
from .failures import ContextOverflow, GenerationFailed, InvalidGeneration, InvalidImage, TemplateFailed
from .model_methods import LOAD_ERRORS
from .routing import ENGINE_ID
from .services import Services, report_to
from .token_shapes import Counted, CountTokens

if TYPE_CHECKING:
    from .client import GenerateParams, Piece, WorkerProcess

__all__ = ["InferenceMethods"]

_ERRORS = [
    *LOAD_ERRORS,
    ContextOverflow,
    TemplateFailed,
    GenerationFailed,
    InvalidGeneration,
    InvalidImage,
    InvalidParams,
    Overloaded,
]


class InferenceMethods:
    """Handlers. `services` is set when the extension is activated, before any call can come."""

    services: Services

    @method("chat.complete", item=ChatChunk, errors=[*_ERRORS, RequestRefused])
    async def complete(self, params: ChatRequest, call: Call) -> ChatCompletion:
        """Answer a chat: OpenAI's chat-completion request and response.

        The model is loaded if it is not, and an engine installed if there is none; both are reported as
        progress. With `stream` the chunks are stream items, and the result is the whole answer all the same.
        Cancelling ends the generation at its next step.
        """
        hooks, router = self.services.ctx.hooks, self.services.router
        sensitivity = params.sensitivity  # before any hook can change it
        request = await hooks.before_inference(InferenceRequest(params))
        if request.refused:
            raise RequestRefused(request.refused)
        routed = await router.route(request, sensitivity)
        outcome = InferenceOutcome(routed.engine.id, routed.model, 0.0, where=routed.engine.kind)
        started = time.monotonic()
        try:
            try:
                answer = await self._answer(routed.chat(request), routed.engine, call, outcome, started)
            except JanError as failure:
                if outcome.time_to_first_token is not None:
                    raise  # a part of this answer was given: another one must not follow it
                other = await router.instead(request, routed, failure)
                if other is None:
                    raise
                outcome.engine, outcome.model, outcome.where = other.engine.id, other.model, other.engine.kind
                answer = await self._answer(other.chat(request), other.engine, call, outcome, started)
            outcome.usage = answer.usage
            outcome.finish_reason = answer.choices[0].finish_reason if answer.choices else None
            return answer
        except BaseException as failure:
            outcome.error = _kind(failure)
            raise
        finally:
            outcome.duration = time.monotonic() - started
            # Observers must not hold up the answer, nor be cancelled with it.
            self.services.ctx.tasks.start_soon(hooks.after_inference, request, outcome)

    @method("completions.create", item=TextCompletion, errors=_ERRORS)
    async def create(self, params: CompletionRequest, call: Call) -> TextCompletion:
        """Continue a text as it stands, without a chat template: OpenAI's older completions.

        With `stream` the parts are stream items, and the result is the whole text all the same.
        """
        from . import openai
        from .text_answer import TextAnswer

        id = await self.services.resolve(params.model)
        generation = openai.completion_params(params, self.services.settings.queue_seconds)
        answer = TextAnswer(id, params)
        async with (
            self.services.pool.use(id, report_to(call)) as worker,
            _pieces(worker, generation) as pieces,
        ):
            async for piece in pieces:
                for part in answer.feed(piece):
                    if params.stream:
                        await call.send(part)
        return answer.completion()

    @method("tokens.count", errors=_ERRORS)
    async def count(self, params: CountTokens, call: Call) -> Counted:
        """Count a chat prompt's tokens with the model's own template and vocabulary.

        The model is loaded if it is not. Those of a model that only a remote engine has are estimated here.
        """
        try:
            return await self._counted(params, call)
        except JanError as failure:
            remote = self.services.router.elsewhere(params.model, failure)
            if remote is None:
                raise
        from .remote.tokens import estimate

        return estimate(params.messages, remote)

    async def _counted(self, params: CountTokens, call: Call) -> Counted:
        from . import openai
        from .worker.request import Prompt

        id = await self.services.resolve(params.model)
        async with self.services.pool.use(id, report_to(call)) as worker:
            whole = worker.count_tokens(openai.chat_prompt(params.messages, params.tools))
            each = [worker.count_tokens(Prompt(text=_text(message))) for message in params.messages if _text(message)]
            total, *counted = await asyncio.gather(whole, *each)
            found = iter(counted)
            own = [next(found) if _text(message) else 0 for message in params.messages]
            share = max(0, -(-(total - sum(own)) // len(own)))
            return Counted(total, [count + share for count in own], worker.info.n_ctx)

    async def _answer(
        self, chat: ChatRequest, engine: InferenceEngine, call: Call, outcome: InferenceOutcome, started: float
    ) -> ChatCompletion:
        async def send(chunk: ChatChunk) -> None:
            if outcome.time_to_first_token is None and _says(chunk):
                outcome.time_to_first_token = time.monotonic() - started
            if chat.stream:
                await call.send(chunk)

        services = self.services
        if engine.id != ENGINE_ID:
            async with services.ctx.stream(
                engine.method, chat, item=ChatChunk, result=ChatCompletion, progress=report_to(call)
            ) as stream:
                async for chunk in stream:
                    await send(chunk)
                completion: ChatCompletion = await stream.result()
                return completion
        from . import openai

        outcome.model = await services.resolve(chat.model)
        async with services.pool.use(outcome.model, report_to(call)) as worker:
            generation = openai.chat_params(chat, services.settings.queue_seconds, worker.info)
            answer = openai.Answer(outcome.model, chat, worker.info, sure=generation.grammar is not None)
            async with _pieces(worker, generation) as pieces:
                async for piece in pieces:
                    for chunk in answer.feed(piece):
                        await send(chunk)
        return answer.completion()


def _pieces(worker: WorkerProcess, generation: GenerateParams) -> aclosing[AsyncGenerator[Piece, None]]:
    """An answer's pieces; leaving the block ends the generation at once, not when garbage is collected."""
    return aclosing(cast("AsyncGenerator[Piece, None]", worker.generate(generation)))


def _says(chunk: ChatChunk) -> bool:
    """Whether there is something of the answer in it: text, thoughts or a call."""
    deltas = [choice.delta for choice in chunk.choices]
    return any(delta.content or delta.reasoning_content or delta.tool_calls for delta in deltas)


def _text(message: ChatMessage) -> str:
    """A message's own text as far as it counts: its content, and the calls it asks for."""
    calls = "".join(f"{each.function.name}{each.function.arguments}" for each in message.tool_calls or [])
    return message.text() + calls


def _kind(failure: BaseException) -> str:
    """The stable type of an error, as an outcome has it."""
    if isinstance(failure, JanError | RpcError):
        return failure.type
    return "internal_error" if isinstance(failure, Exception) else "cancelled"
