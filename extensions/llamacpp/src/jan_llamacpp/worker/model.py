"""A model: its weights and its vocabulary. Loaded once, then read only.

The vocabulary functions may be called from any thread. Not the KV cache and not decoding: that is
`context.py`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from ..markers import MARKERS
from .mapping import give_back
from .native import Native
from .options import LoadOptions
from .refusal import Refusal

__all__ = ["EMBEDS_ONLY", "Model"]


_MARKERS = frozenset(marker.encode() for marker in MARKERS)
MAX_TEXT = 1 << 20
"""Bytes of one text that are tokenised."""
EMBEDS_ONLY = "this model makes embeddings and does not generate text; use embeddings.create"
DEEP_TEXT = 16 * 1024
"""Longer texts are tokenised on a larger stack: for some vocabularies llama.cpp splits them with std::wregex, which
recurses for each character of a run, and 60,000 of them are more than 8 MiB of stack."""
DEEP_STACK = 1 << 30


class Model:
    """Weights and vocabulary of one GGUF file. Raises Refusal("model_load_failed") when it cannot be loaded.

    `progress` is called with a fraction from the loading thread; when it returns False the load is given up.
    """

    def __init__(
        self, native: Native, path: str, options: LoadOptions, progress: Callable[[float], bool] | None = None
    ) -> None:
        self._native, c = native, native.c
        params = c.llama_model_default_params()
        params.n_gpu_layers = options.n_gpu_layers
        params.use_extra_bufts = options.repack
        params.load_mode = c.LLAMA_LOAD_MODE_MMAP if options.mmap else c.LLAMA_LOAD_MODE_NONE
        if progress is not None:
            # ctypes prints, and swallows, what a callback raises: it must not raise.
            callback = c.llama_progress_callback(lambda done, _user: bool(progress(done)))
            params.progress_callback = callback
        self.handle: Any = c.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            # The reason is known to the log only; the host reads it from there.
            raise Refusal("model_load_failed", "llama.cpp could not load the model")
        if options.mmap and options.repack:
            give_back(Path(path))
        encodes, decodes = c.llama_model_has_encoder(self.handle), c.llama_model_has_decoder(self.handle)
        if encodes and decodes:
            message = "a model with an encoder and a decoder is not supported"
            raise Refusal("model_load_failed", message, reason="encoder-decoder model")
        if encodes and not options.embeddings:
            raise Refusal("model_load_failed", EMBEDS_ONLY, reason="no decoder model")
        self.vocab: Any = c.llama_model_get_vocab(self.handle)
        self.n_vocab = int(c.llama_vocab_n_tokens(self.vocab))
        if self.n_vocab <= 0:
            raise Refusal("model_load_failed", "the model has no vocabulary", reason="no vocabulary")
        self.n_ctx_train = int(c.llama_model_n_ctx_train(self.handle))
        self.n_params = int(c.llama_model_n_params(self.handle))
        self.size = int(c.llama_model_size(self.handle))
        self.shareable = not (c.llama_model_is_recurrent(self.handle) or c.llama_model_is_hybrid(self.handle))
        """Whether a part of a sequence's state stands for itself (attention), so that it can be cut and
        shared.
        """
        self.cost_of_cell = 4 * int(c.llama_model_n_embd(self.handle)) * int(c.llama_model_n_layer(self.handle))
        """Operations it takes a token to look at one cell of the KV cache, in all layers."""
        self.bos = self._special(c.llama_vocab_bos(self.vocab))
        self.eos = self._special(c.llama_vocab_eos(self.vocab))
        self._add_bos = bool(c.llama_vocab_get_add_bos(self.vocab))
        self._pieces: dict[int, bytes | None] = {}
        self._buffer = ctypes.create_string_buffer(1024)

    def close(self) -> None:
        """Free it, after its contexts. A worker ends with its process; this is for who loads several in one."""
        handle, self.handle = self.handle, None
        if handle:
            self._native.c.llama_model_free(handle)

    @property
    def description(self) -> str:
        """For example `llama 1B Q4_0`."""
        buffer = ctypes.create_string_buffer(256)
        self._native.model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    @property
    def chat_template(self) -> str | None:
        """The Jinja source the file carries, if any."""
        raw = self._native.c.llama_model_chat_template(self.handle, None)
        return raw.decode("utf-8", "replace") if raw else None

    def control_texts(self) -> list[str]:
        """What would be read as a control token where it is written out."""
        c = self._native.c
        kinds = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_UNKNOWN
        ids = [token for token in range(self.n_vocab) if c.llama_vocab_get_attr(self.vocab, token) & kinds]
        return [self._render(token, special=True).decode("utf-8", "replace") for token in ids]

    def tokenize(self, text: str, *, bos: bool = True, special: bool = True) -> list[int]:
        """Tokens of `text`; with `special`, control tokens written out in it are recognised.

        Raises Refusal("context_overflow") for more than a mebibyte.

        `bos`: put the begin token in front where the model wants one, unless the text already begins with it.
        """
        begin = bos and self._add_bos and not (special and self.bos and text.startswith(self.bos))
        return self._tokenize(text, begin, special)

    def tokenize_whole(self, text: str) -> list[int]:
        """Tokens of a text to embed: between the begin and end tokens that this model wants around one, and with no
        control token where one is written out. Raises what `tokenize` does.
        """
        return self._tokenize(text, True, False)

    def _tokenize(self, text: str, begin: bool, special: bool) -> list[int]:
        raw = text.encode("utf-8", "replace")  # JSON may hold half a surrogate pair
        if len(raw) > MAX_TEXT:
            message = f"a prompt of {len(raw)} bytes does not fit any context; {MAX_TEXT} are allowed"
            raise Refusal("context_overflow", message)
        if len(raw) > DEEP_TEXT:
            return _on_a_deep_stack(lambda: self._tokens(raw, begin, special))
        return self._tokens(raw, begin, special)

    def _tokens(self, raw: bytes, begin: bool, special: bool) -> list[int]:
        size = len(raw) + 2
        # A short text is quicker than letting go of the interpreter's lock and getting it again.
        tokenize = self._native.tokenize if len(raw) < 4096 else self._native.c.llama_tokenize
        buffer = (ctypes.c_int32 * size)()
        count = tokenize(self.vocab, raw, len(raw), buffer, size, begin, special)
        if count < 0:  # The negative count is the room it needs.
            size = -count
            buffer = (ctypes.c_int32 * size)()
            count = tokenize(self.vocab, raw, len(raw), buffer, size, begin, special)
        return buffer[: max(count, 0)]

    def piece(self, token: int) -> bytes | None:
        """The bytes a token stands for (empty for a control token that is no marker of thoughts or tool calls); None
        when it ends the generation.
        """
        try:
            return self._pieces[token]
        except KeyError:
            ends = self._native.is_eog(self.vocab, token)
            piece = None if ends else self._render(token, special=False)
            if piece == b"" and self.written(token) in _MARKERS:
                piece = self.written(token)
            self._pieces[token] = piece
            return piece

    @cached_property
    def first_bytes(self) -> tuple[array[int], dict[int, int]]:
        """The first byte of each token as it is written (256: it has none, or ends the generation), and the tokens that
        are a single byte, by that byte.
        """
        firsts, single = array("H"), dict[int, int]()
        is_eog, render, vocab = self._native.is_eog, self._native.token_to_piece, self.vocab
        buffer = ctypes.create_string_buffer(64)  # a small one, for the whole vocabulary: every microsecond counts
        for token in range(self.n_vocab):
            size = 0 if is_eog(vocab, token) else render(vocab, token, buffer, 64, 0, True)
            first = buffer[0][0] if size > 0 else self.written(token)[0] if size < 0 else 256
            firsts.append(first)
            if size == 1:
                single.setdefault(first, token)
        return firsts, single

    def ends(self, token: int) -> bool:
        """Whether a token ends the generation."""
        return self.piece(token) is None

    def written(self, token: int) -> bytes:
        """A token as it is written out, control tokens too: what grammars see."""
        return self._render(token, special=True)

    def _special(self, token: int) -> str:
        if token < 0:
            return ""
        buffer = ctypes.create_string_buffer(256)
        size = self._native.token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(size, 0)].decode("utf-8", "replace")

    def _render(self, token: int, *, special: bool) -> bytes:
        size = self._native.token_to_piece(self.vocab, token, self._buffer, len(self._buffer), 0, special)
        if size < 0:
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._native.token_to_piece(self.vocab, token, self._buffer, len(self._buffer), 0, special)
        return self._buffer.raw[: max(size, 0)]


def _on_a_deep_stack(work: Callable[[], list[int]]) -> list[int]:
    """Do it in a thread with a stack of `DEEP_STACK` bytes, of which only what is used takes memory.

    Raises Refusal("generation_failed") where the system does not give that much address space.
    """
    made: list[list[int]] = []
    before = threading.stack_size(DEEP_STACK)
    try:
        thread = threading.Thread(target=lambda: made.append(work()), name="tokenize", daemon=True)
        thread.start()
    except RuntimeError as error:
        raise Refusal("generation_failed", "there is no memory to tokenise a prompt this long") from error
    finally:
        threading.stack_size(before)
    thread.join()
    if not made:
        raise Refusal("generation_failed", "a prompt this long could not be tokenised")
    return made[0]
