"""What host and worker say to each other: tagged msgspec Structs, msgpack-encoded, one in each frame.

The only module both sides share. It is no public interface: both ends come from the same package, and `Hello`
carries `PROTOCOL` so that a mix of two versions is noticed.

Order: host `Load` -> worker `Hello`, `LoadProgress`…, then `Loaded` or `Failed(id=0)`. After `Loaded` any number of
`Generate`, `Count`, `Embed`, `StatsRequest` (each answered by its own id), `Cancel` and `ForgetThread`; `Shutdown` or
the end of the pipe ends the worker. A `Generate` is answered by its pieces inside `Pieces`, the last of each of its `n`
answers with a `finish`, or by one `Failed`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..toolcalls import ToolStyle

__all__ = [
    "IMAGE_MARK",
    "PROTOCOL",
    "Cancel",
    "Count",
    "Counted",
    "Embed",
    "Embedded",
    "Failed",
    "Finish",
    "ForgetThread",
    "FromWorker",
    "Generate",
    "GenerateParams",
    "Grammar",
    "Hello",
    "Load",
    "LoadOptions",
    "LoadProgress",
    "Loaded",
    "Lora",
    "ModelInfo",
    "Overflow",
    "Pieces",
    "Pooling",
    "Priority",
    "Prompt",
    "Sampling",
    "Shutdown",
    "Stats",
    "StatsReply",
    "StatsRequest",
    "StepPiece",
    "ToWorker",
    "TokenLogprob",
    "Usage",
    "decode_from_worker",
    "decode_to_worker",
    "encode",
    "request_id",
    "state_file",
]

PROTOCOL = 2
"""Raised when the messages change incompatibly."""

IMAGE_MARK = "<__media__>"
"""Where an image stands in a text (mtmd's default marker)."""

Finish = Literal["stop", "length", "cancelled"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]
Overflow = Literal["refuse", "shift"]
Priority = Literal["interactive", "batch"]


class Lora(Struct, frozen=True):
    """A LoRA adapter: a GGUF file of type `adapter`, and how strongly it applies."""

    path: str
    scale: float = 1.0


class LoadOptions(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How to load a model. `None` means: chosen from the model and the machine.

    `n_ctx`: tokens one request may take, prompt and answer together (default: what the model was trained for,
    at most 8,192). `n_seq`: requests that decode at the same time. `n_cells`: tokens that all requests
    together may keep in the KV cache (default: `n_ctx` for each sequence, but at most 8,192 or `n_ctx`,
    whichever is more). `n_batch`: tokens in one decode call. `threads`: CPU threads (default: physical cores,
    fewer while other processes keep them busy). `n_gpu_layers`: -1 for all. `kv_type`: element type of the
    cache. `mmap`: map the file instead of reading it. `repack`: rewrite weights for this CPU at load (twice
    the memory, half the prompt time). `lora`: adapters to apply. `projector`: the file that turns images into
    embeddings for this model. `embeddings`: load for `Embed` instead of `Generate`; `pooling` None: the model's own.
    `speculate`: guess tokens that repeat the text before them and check several in one step. `state_dir`: a folder that
    is this model's alone, where the KV state of threads is kept, at most `state_bytes` of it; None: nowhere.
    `memory_bytes`: how much of idle conversations is kept in memory, out of the KV cache's way.
    """

    n_ctx: int | None = None
    n_seq: int = 8
    n_cells: int | None = None
    n_batch: int = 512
    threads: int | None = None
    n_gpu_layers: int = -1
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    mmap: bool = True
    repack: bool = True
    max_queue: int = 1024
    lora: list[Lora] = []
    projector: str | None = None
    embeddings: bool = False
    pooling: Pooling | None = None
    speculate: bool = True
    state_dir: str | None = None
    state_bytes: int = 4 << 30
    memory_bytes: int = 512 << 20


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn. Temperature 0 takes the likeliest.

    `top_k` 0: no limit. `repeat_penalty` divides or multiplies the logits of tokens among the last
    `penalty_last_n` of prompt and answer (-1: all of them); `frequency_penalty` and `presence_penalty` are
    OpenAI's, over the same window of the answer alone. `logit_bias` is added to the logits, by token id.
    `seed` None: a random one.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    logit_bias: dict[int, float] = {}
    seed: int | None = None


class Prompt(Struct, frozen=True, omit_defaults=True):
    """A prompt in one of three forms: `messages` (rendered by the model's chat template), `text` or `tokens`.

    `messages` and `tools` are plain OpenAI objects; `extra` are further variables for the template. `images`: the
    bytes of the pictures that stand at the `IMAGE_MARK`s in the messages or the text, in their order.
    """

    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    tokens: list[int] | None = None
    tools: list[dict[str, Any]] | None = None
    extra: dict[str, Any] = {}
    images: list[bytes] = []


class Grammar(Struct, frozen=True, omit_defaults=True):
    """What an answer must look like: a grammar in llama.cpp's GBNF, or a JSON schema that one is made from.

    `triggers`: the grammar holds only from the first of these texts on, which is part of it; before it, anything goes.
    `before` and `after`: texts around it; `many`: several of these, one on a line. `reasoning`: the answer may think
    first, between `<think>` and `</think>`; `opened`: it does, because the prompt ends within it (set by the worker).
    `fallback`: the schema to follow where no grammar can be made from `json_schema`.
    """

    gbnf: str | None = None
    json_schema: dict[str, Any] | None = None
    fallback: dict[str, Any] | None = None
    triggers: list[str] = []
    before: str = ""
    after: str = ""
    many: bool = False
    reasoning: bool = False
    opened: bool = False


class GenerateParams(Struct, frozen=True, omit_defaults=True):
    """One generation. `max_tokens` None: until the model ends or the context is full.

    `queue_seconds`: give up with `overloaded` when it has not started by then. `ignore_eos` is for
    measurements. `n`: answers to make; each is drawn with a seed of its own (`seed` + its index), and its pieces carry
    its index. `priority`: `batch` waits while anything interactive does. `overflow`: what happens where prompt and
    answer do not fit the context: refuse, or forget the oldest half after the first `keep` tokens, as often as needed.
    `logprobs`: log-probabilities of each token and of so many alternatives. `thread`: the conversation, whose KV state
    is kept across restarts (`LoadOptions.state_dir`). `speculate` None: as the model was loaded.
    """

    prompt: Prompt
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: list[str] = []
    queue_seconds: float | None = None
    ignore_eos: bool = False
    n: int = 1
    priority: Priority = "interactive"
    overflow: Overflow = "refuse"
    keep: int = 0
    logprobs: int | None = None
    grammar: Grammar | None = None
    thread: str | None = None
    speculate: bool | None = None


class ModelInfo(Struct, frozen=True):
    """A loaded model. `size`: bytes of the weights. `n_ctx`: the limit of one request; `n_cells`: of all
    together. `tools`: how it writes tool calls (see `toolcalls.py`). `reasons`: its chat template speaks of thoughts.
    """

    n_ctx: int
    n_ctx_train: int
    n_cells: int
    n_seq: int
    n_vocab: int
    n_params: int
    size: int
    description: str
    eos: str
    has_template: bool
    threads: int
    load_seconds: float
    engine: str
    pid: int
    tools: ToolStyle = "hermes"
    reasons: bool = False


class Usage(Struct, frozen=True, array_like=True):
    """Tokens of one generation. `cached`: prompt tokens that were in the KV cache already, or on disk.

    `drafted`: tokens that were guessed; `accepted`: those of them that were right.
    """

    prompt: int
    completion: int
    cached: int
    drafted: int = 0
    accepted: int = 0


class TokenLogprob(Struct, frozen=True, array_like=True):
    """A token that was drawn, and how likely the model found it before any sampling option. `top`: the likeliest
    tokens of that place with their log-probabilities, likeliest first. Tokens as bytes: one may be part of a character.
    """

    token: bytes
    logprob: float
    top: list[tuple[bytes, float]] = []


class StepPiece(Struct, array_like=True):
    """What scheduler step `step` added to answer `index` of generation `id`: some text, `tokens` tokens, perhaps the
    end. `logprobs` are those of its tokens, where they were asked for.
    """

    id: int
    text: str
    tokens: int
    step: int
    finish: Finish | None = None
    usage: Usage | None = None
    index: int = 0
    logprobs: list[TokenLogprob] | None = None


class Stats(Struct):
    """Counters since the load, and the state of this moment. Seconds are wall clock."""

    steps: int = 0
    generated: int = 0
    prefilled: int = 0
    reused: int = 0
    preempted: int = 0
    decode_seconds: float = 0.0
    active: int = 0
    queued: int = 0
    free_slots: int = 0
    cells_used: int = 0
    threads: int = 0
    drafted: int = 0
    accepted: int = 0
    step_age: float = 0.0
    """Seconds since the step that runs now began; 0 when none runs."""


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


def state_file(thread: str) -> str:
    """The name of a conversation's file in `LoadOptions.state_dir`: it does not tell the conversation's own."""
    return hashlib.blake2b(thread.encode("utf-8", "replace"), digest_size=16).hexdigest() + ".kv"


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
