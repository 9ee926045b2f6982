"""The messages of host and worker: tagged msgspec Structs, msgpack-encoded, one in each frame.

What they carry is in `options.py`, `request.py` and `reply.py`. It is no public interface: both ends come from the same
package, and `Hello` carries `PROTOCOL` so that a mix of two versions is noticed.

Order: host `Load` -> worker `Hello`, `LoadProgress`…, then `Loaded` or `Failed(id=0)`. After `Loaded` any number of
`Generate`, `Count`, `Embed`, `StatsRequest` (each answered by its own id), `Cancel` and `ForgetThread`; `Shutdown` or
the end of the pipe ends the worker. A `Generate` is answered by its pieces inside `Pieces`, the last of each of its `n`
answers with a `finish`, or by one `Failed`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from .options import LoadOptions
from .reply import ModelInfo, Stats, StepPiece
from .request import GenerateParams, Prompt

__all__ = [
    "PROTOCOL",
    "Cancel",
    "Count",
    "Counted",
    "Embed",
    "Embedded",
    "Failed",
    "ForgetThread",
    "FromWorker",
    "Generate",
    "Hello",
    "Load",
    "LoadProgress",
    "Loaded",
    "Pieces",
    "Shutdown",
    "StatsReply",
    "StatsRequest",
    "ToWorker",
    "decode_from_worker",
    "decode_to_worker",
    "encode",
    "request_id",
]

PROTOCOL = 3
"""Raised when the messages change incompatibly."""


class _Message(Struct, tag_field="op", tag=str.lower):
    """The base of all messages: `op` says which one it is."""


class Load(_Message):
    """The first frame. `key` comes back in `Hello`."""

    key: str
    model: str
    options: LoadOptions


class Generate(_Message):
    id: int
    params: GenerateParams


class Cancel(_Message):
    """Ends generation `id`; unknown and finished ids are ignored."""

    id: int


class Count(_Message):
    """How many tokens would this prompt take?"""

    id: int
    prompt: Prompt


class Embed(_Message):
    """Vectors for each of `prompts`. `normalise`: to length 1."""

    id: int
    prompts: list[Prompt]
    normalise: bool = True


class ForgetThread(_Message):
    """Delete what is kept of a conversation, in memory and on disk. Answered by nothing."""

    thread: str


class StatsRequest(_Message):
    id: int


class Shutdown(_Message):
    """End the process; a load that runs is given up."""


class Hello(_Message):
    key: str
    pid: int
    protocol: int


class LoadProgress(_Message):
    """`done` is between 0 and 1."""

    done: float


class Loaded(_Message):
    info: ModelInfo


class Pieces(_Message):
    """The pieces of one or more scheduler steps, oldest first: one frame for all sequences."""

    pieces: list[StepPiece]


class Counted(_Message):
    id: int
    n_tokens: int


class Embedded(_Message):
    """`vectors`: float32 in this machine's order, one of `size` numbers for each prompt (with pooling `none`: for each
    token). `tokens`: those of each prompt.
    """

    id: int
    vectors: bytes
    size: int
    tokens: list[int]


class StatsReply(_Message):
    id: int
    stats: Stats


class Failed(_Message):
    """Request `id` (0: the load) ended with a typed error. `data` is for the caller."""

    id: int
    type: str
    message: str
    data: dict[str, Any] = {}


ToWorker = Load | Generate | Cancel | Count | Embed | ForgetThread | StatsRequest | Shutdown
FromWorker = Hello | LoadProgress | Loaded | Pieces | Counted | Embedded | StatsReply | Failed


class _Envelope(Struct):
    id: int


_envelope = msgspec.msgpack.Decoder(_Envelope)
_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """The body of a frame. Raises UnicodeEncodeError for text that is no Unicode (a lone surrogate)."""
    return _encoder.encode(message)


def decode_to_worker(body: bytes) -> ToWorker:
    """A message for the worker. Raises msgspec.DecodeError (ValidationError too), or UnicodeDecodeError."""
    return _to_worker.decode(body)


def request_id(body: bytes) -> int:
    """The id of a message whose other fields are wrong. Raises msgspec.DecodeError when it has none."""
    return _envelope.decode(body).id


def decode_from_worker(body: bytes) -> FromWorker:
    """A message for the host. Raises msgspec.DecodeError (ValidationError too), or UnicodeDecodeError."""
    return _from_worker.decode(body)
