"""Pictures as a part of a prompt, through mtmd: cut into the model's patches, encoded, and put into the KV cache.

A picture becomes one or more chunks, with tokens of the vocabulary between and around them where the model was trained
so. In a list of tokens a chunk stands as negative numbers, one for each *position* it takes: they are made of the
picture's hash, so that the same picture is the same tokens, and whoever compares prefixes needs to know nothing of it.
Where a model gives its picture's cells fewer positions than cells (M-RoPE), `Picture.n_cells` is larger than the number
of tokens.

Pictures are prepared in the reader's thread (`chunks`), encoded and decoded in the decoding thread (`evaluate`).
Which bytes are a picture is `pictures.py`'s business; when one is evaluated, the scheduler's.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np

from .model import Model
from .native import Native
from .pictures import check_pictures
from .refusal import Refusal
from .request import IMAGE_MARK

__all__ = ["Picture", "Projector", "whole_pictures", "with_pictures"]

KEPT_BYTES = 64 << 20
"""Encoded pictures that are kept, in case they are needed again: a conversation's other turns, another answer."""
FIRST = -(1 << 30)
"""The first token of a picture is below this, the others between this and 0."""
_NOWHERE = f"{os.devnull}/none".encode()

Rows = np.ndarray[Any, np.dtype[np.float32]]


class Picture:
    """One chunk of a picture. `tokens` stand for it; `n_cells` is what it takes in the KV cache."""

    def __init__(self, mtmd: Any, chunk: int, key: bytes) -> None:
        self.chunk = mtmd.mtmd_input_chunk_copy(chunk)
        weakref.finalize(self, mtmd.mtmd_input_chunk_free, self.chunk)
        self.key = key
        self.n_cells = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        self.tokens = _tokens(key, int(mtmd.mtmd_input_chunk_get_n_pos(chunk)))

    @property
    def more_cells(self) -> int:
        """By how much its cells are more than its tokens."""
        return self.n_cells - len(self.tokens)


class Projector:
    """The part of a model that turns pictures into embeddings: a GGUF file of its own.

    Raises Refusal("model_load_failed") where it cannot be loaded, or does not fit the model.
    """

    def __init__(self, native: Native, model: Model, context: Any, path: str, *, n_batch: int, threads: int) -> None:
        self._mtmd = mtmd = importlib.import_module("llama_cpp.mtmd_cpp")
        mtmd.mtmd_helper_log_set(native.log, None)
        params = mtmd.mtmd_context_params_default()
        params.n_threads, params.print_timings = threads, False
        params.use_gpu = bool(native.c.llama_supports_gpu_offload())
        self.handle = mtmd.mtmd_init_from_file(os.fsencode(path), model.handle, params)
        if not self.handle:
            raise Refusal("model_load_failed", "llama.cpp could not load the projector, or it is not this model's")
        if not mtmd.mtmd_support_vision(self.handle):
            raise Refusal("model_load_failed", "the projector takes no pictures", reason="no vision")
        self._context, self._n_batch = context, n_batch
        self._size = int(native.c.llama_model_n_embd_inp(model.handle))
        self._encoded: OrderedDict[bytes, Rows] = OrderedDict()
        self._marker = mtmd.mtmd_get_marker(self.handle)
        self._options = mtmd.mtmd_helper_init_opt_default()
        # What stb_image cannot read would be given to an ffmpeg found in PATH.
        self._options.video_params.ffmpeg_bin_dir = _NOWHERE

    def chunks(self, data: bytes, index: int) -> list[list[int] | Picture]:
        """A picture as what is to be evaluated for it: tokens, and chunks of the picture.

        In any one thread, at any time. Raises Refusal("invalid_image") where it cannot be decoded, `context_overflow`
        where a chunk does not fit one decode and has to.
        """
        mtmd = self._mtmd
        made = mtmd.mtmd_helper_bitmap_init_from_buf_wrapper(
            self.handle, (ctypes.c_uint8 * len(data)).from_buffer_copy(data), len(data), False, self._options
        )
        if made.video_ctx:
            mtmd.mtmd_helper_video_free(made.video_ctx)
        if not made.bitmap or made.video_ctx:
            raise Refusal("invalid_image", "the picture is damaged: it cannot be decoded", index=index)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            text = mtmd.mtmd_input_text(self._marker, len(self._marker), False, True)
            bitmaps = (ctypes.c_void_p * 1)(made.bitmap)
            if mtmd.mtmd_tokenize(self.handle, chunks, ctypes.byref(text), bitmaps, 1):
                raise Refusal("invalid_image", "the model cannot take this picture", index=index)
            digest = hashlib.sha256(data).digest()
            return [self._part(mtmd.mtmd_input_chunks_get(chunks, at), digest, at, index)
                    for at in range(mtmd.mtmd_input_chunks_size(chunks))]  # fmt: skip
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(made.bitmap)

    def _part(self, chunk: int, digest: bytes, at: int, index: int) -> list[int] | Picture:
        mtmd = self._mtmd
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return [int(token) for token in tokens[: count.value]]
        picture = Picture(mtmd, chunk, hashlib.sha256(digest + at.to_bytes(4, "little")).digest())
        if picture.n_cells > self._n_batch and mtmd.mtmd_decode_use_non_causal(self.handle, chunk):
            message = f"the picture takes {picture.n_cells} tokens, which must be in one decode of {self._n_batch}"
            raise Refusal("context_overflow", message, n_prompt=picture.n_cells, n_ctx=self._n_batch, index=index)
        return picture

    def evaluate(self, picture: Picture, seq: int, position: int) -> int:
        """Put a picture into the cells of sequence `seq`, from `position` on.

        Returns what `Context.decode` does (-4: it could not be encoded); on anything but 0, the cells have to be
        cleared from there on.
        """
        rows = self._encode(picture)
        if rows is None:
            return -4
        after = ctypes.c_int32()
        status = self._mtmd.mtmd_helper_decode_image_chunk(
            self.handle, self._context, picture.chunk, rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), position,
            seq, self._n_batch, ctypes.byref(after), self._mtmd.mtmd_helper_post_decode_callback(), None,
        )  # fmt: skip
        if status == 0 and after.value != position + len(picture.tokens):
            return -5
        return int(status)

    def _encode(self, picture: Picture) -> Rows | None:
        rows = self._encoded.pop(picture.key, None)
        if rows is None:
            if self._mtmd.mtmd_encode_chunk(self.handle, picture.chunk):
                return None
            pointer = self._mtmd.mtmd_get_output_embd(self.handle)
            rows = np.ctypeslib.as_array(pointer, shape=(picture.n_cells, self._size)).copy()
        self._encoded[picture.key] = rows
        while len(self._encoded) > 1 and sum(each.nbytes for each in self._encoded.values()) > KEPT_BYTES:
            self._encoded.popitem(last=False)
        return rows


def with_pictures(
    projector: Projector, model: Model, parts: list[tuple[str, bool]], images: list[bytes]
) -> tuple[list[int], dict[int, Picture]]:
    """The tokens of a prompt whose pictures stand at the marks in its parts, and its pictures by where they begin.

    `parts`: texts, and whether control tokens and marks in them are meant. Raises Refusal: `invalid_image`,
    `invalid_generation` where there are not as many marks as pictures, `context_overflow`.
    """
    check_pictures(images)
    tokens: list[int] = []
    pictures: dict[int, Picture] = {}
    pieces = [(piece, own, at > 0) for text, own in parts for at, piece in enumerate(_split(text, own))]
    marks = sum(after_mark for _, _, after_mark in pieces)
    if marks != len(images):
        raise Refusal("invalid_generation", f"the prompt has room for {marks} pictures; {len(images)} came with it")
    waiting = iter(enumerate(images))
    for number, (piece, own, after_mark) in enumerate(pieces):
        if after_mark:
            index, data = next(waiting)
            for chunk in projector.chunks(data, index):
                if isinstance(chunk, Picture):
                    pictures[len(tokens)] = chunk
                    chunk = chunk.tokens
                tokens += chunk
        tokens += model.tokenize(piece, bos=number == 0, special=own)
    return tokens, pictures


def _split(text: str, own: bool) -> list[str]:
    return text.split(IMAGE_MARK) if own else [text]


def whole_pictures(tokens: list[int], length: int) -> int:
    """How many of the first `length` tokens can be used without the rest: a picture is used whole or not at all."""
    while 0 < length < len(tokens) and FIRST <= tokens[length] < 0:
        length -= 1
    return length


def _tokens(key: bytes, count: int) -> list[int]:
    """Negative numbers made of a hash, all of which is in the first nine of them."""
    words = np.frombuffer(hashlib.shake_128(key).digest(4 * count), "<u4").astype(np.int64)
    tokens: list[int] = (-1 - words % -FIRST).tolist()
    tokens[0] += FIRST
    return tokens
