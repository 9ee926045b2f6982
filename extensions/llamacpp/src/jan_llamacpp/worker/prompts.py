"""From what a request says to the tokens that are read: by the model's chat template, or plainly."""

from __future__ import annotations

from typing import Any

from ..markers import THINK_OPEN
from ..template import ChatTemplate, TemplateError
from .controls import Controls, cut
from .grammar import refuse_unusable
from .images import Picture, Projector, with_pictures
from .model import MAX_TEXT, Model
from .refusal import Refusal
from .request import Grammar, Prompt
from .sequence import common_prefix

__all__ = ["Prompts"]


class Prompts:
    """Turns a `Prompt` into tokens: by the model's chat template, or plainly. Any one thread at a time."""

    def __init__(self, model: Model, projector: Projector | None = None) -> None:
        self._model, self._projector = model, projector
        self._controls = Controls(model.control_texts())
        # Compiled with the model's load and not by the first request; what is wrong with it is told to requests.
        self._template: ChatTemplate | TemplateError
        try:
            self._template = ChatTemplate(model.chat_template, model.bos, model.eos)
        except TemplateError as error:
            self._template = error

    def tokens(self, prompt: Prompt) -> list[int]:
        """Raises Refusal: `template_failed`, `invalid_generation`, `context_overflow`."""
        if prompt.tokens is not None:
            return prompt.tokens
        tokens: list[int] = []
        for at, (part, own) in enumerate(self._parts(prompt)):
            tokens += self._model.tokenize(part, bos=at == 0, special=own)
        return tokens

    def read(self, prompt: Prompt) -> tuple[list[int], dict[int, Picture]]:
        """The tokens of a prompt and the pictures in it, by where they begin. Raises what `tokens` does, and Refusal:
        `invalid_image`.
        """
        if not prompt.images:
            return self.tokens(prompt), {}
        if self._projector is None:
            message = "this model takes no pictures: it has no projector"
            raise Refusal("invalid_generation", message, reason="no_projector")
        return with_pictures(self._projector, self._model, self._parts(prompt), prompt.images)

    def _parts(self, prompt: Prompt) -> list[tuple[str, bool]]:
        """The text of a prompt in parts; with each, whether control tokens in it are meant."""
        if prompt.text is not None:
            return [(prompt.text, True)]
        if prompt.messages is None:
            raise Refusal("invalid_generation", "a prompt needs messages, text or tokens")
        found: list[str] = []

        def hide(value: Any) -> Any:
            return self._controls.hide(value, found)

        try:
            if isinstance(self._template, TemplateError):
                raise TemplateError(self._template.reason, str(self._template))
            text = self._template.render(prompt.messages, tools=prompt.tools, extra=prompt.extra, hide=hide)
        except TemplateError as error:
            raise Refusal("template_failed", str(error), reason=error.reason) from error
        if len(text) > MAX_TEXT:
            return [(text, True)]  # which is refused where it is tokenised
        return cut(text, found)

    def prepare(self, grammar: Grammar) -> None:
        """Do what takes long about a grammar here, where no step waits for it. Raises Refusal("invalid_generation")."""
        refuse_unusable(grammar)
        if not grammar.triggers:  # else it is most likely never needed
            self._model.first_bytes  # noqa: B018 - made once

    def opening(self, prompt: Prompt, tokens: list[int]) -> str:
        """The tag with which a prompt of messages ends within the model's thoughts, and what follows it; else ""."""
        if prompt.messages is None:
            return ""
        end = b"".join(self._model.written(token) for token in tokens[-8:] if token >= 0).decode("utf-8", "replace")
        return THINK_OPEN + "\n" if end.rstrip().endswith(THINK_OPEN) else ""

    def lead(self, prompt: Prompt, tokens: list[int]) -> int:
        """How many of the prompt's first tokens are its system message's, where it begins with one."""
        if not prompt.messages or prompt.messages[0].get("role") != "system":
            return 0
        # What two conversations with this system message have in common.
        other = Prompt(
            messages=[prompt.messages[0], {"role": "user", "content": ""}], tools=prompt.tools, extra=prompt.extra
        )
        try:
            return common_prefix(tokens, self.tokens(other))
        except Refusal:  # a template that wants something else to follow
            return 0

    def whole(self, prompt: Prompt) -> list[int]:
        """The tokens of a text to embed. Raises Refusal: `invalid_generation`, `context_overflow`."""
        if prompt.text is not None:
            return self._model.tokenize_whole(prompt.text)
        if prompt.tokens is None:
            raise Refusal("invalid_generation", "what is embedded is text or tokens")
        return prompt.tokens
