"""Pictures in prompts: what is refused before it is decoded, what mtmd makes of them, and the scheduler with them."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker.images import Picture, whole_pictures
from jan_llamacpp.worker.options import LoadOptions
from jan_llamacpp.worker.pictures import MOST_PICTURES, check_pictures, size_of
from jan_llamacpp.worker.protocol import Failed, Pieces
from jan_llamacpp.worker.refusal import Refusal
from jan_llamacpp.worker.reply import Usage
from jan_llamacpp.worker.request import IMAGE_MARK, GenerateParams, Prompt, Sampling

from .conftest import MakeModel
from .image_models import bmp, png, write_projector

GREEDY = Sampling(temperature=0)
RED, GREEN = png(), png(colour=(20, 220, 60))
JPEG = b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + bytes(9)


def jpeg(width: int, height: int, *, marker: int = 0xC0, between: bytes = b"") -> bytes:
    """A JPEG up to its frame header."""
    return JPEG + between + bytes((0xFF, marker)) + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(7, 5), (7, 5)),
        (bmp(9, 4), (9, 4)),
        (bmp(9, -4), (9, 4)),
        (b"BM" + bytes(12) + struct.pack("<IHH", 12, 30, 20), (30, 20)),
        (b"GIF89a" + struct.pack("<HH", 320, 200), (320, 200)),
        (jpeg(640, 480), (640, 480)),
        (jpeg(640, 480, marker=0xC2, between=b"\0\xff\xfe\0\x05abc"), (640, 480)),
        (b"", None),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"<svg/>", None),
        (b"RIFF\0\0\0\0WEBPVP8 ", None),
        (b"ID3\3", None),
        (JPEG, None),
        (JPEG + b"\xff\xd9", None),
    ],
)
def test_a_picture_says_its_size_before_it_is_decoded(data: bytes, size: tuple[int, int] | None) -> None:
    assert size_of(data) == size


@pytest.mark.parametrize(
    ("pictures", "why"),
    [
        ([png(50_000, 50_000, data=b"")], "50000 x 50000 is too large"),
        ([png(20_000, 1, data=b"")], "too large"),
        ([jpeg(65_535, 65_535)], "too large"),
        ([b"GIF89a\0\0\0\0"], "no picture"),
        ([RED, b"not a picture"], "no picture"),
        ([RED] * (MOST_PICTURES + 1), "more than 16"),
        ([png(data=bytes(21 << 20))], "bytes together"),
    ],
)
def test_what_would_be_too_much_is_refused_before_it_is_decoded(pictures: list[bytes], why: str) -> None:
    with pytest.raises(Refusal, match=why) as caught:
        check_pictures(pictures)
    assert caught.value.type == "invalid_image"


@given(st.binary(max_size=64), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"\xff\xd8", JPEG, b""]))
def test_any_bytes_have_a_size_or_none(data: bytes, begin: bytes) -> None:
    size = size_of(begin + data)
    assert size is None or all(isinstance(number, int) for number in size)
    with contextlib.suppress(Refusal):
        check_pictures([begin + data])


# --- with a model -------------------------------------------------------------------------------------------


class Bench:
    """A scheduler on a model with a projector, worked by hand; keeps what it sends."""

    def __init__(self, engine_dir: Path, model: Path, projector: Path | None, **options: Any) -> None:
        from jan_llamacpp.worker.engine import make_engine

        self.sent: list[Pieces | Failed] = []
        load = LoadOptions(threads=1, projector=str(projector) if projector else None, **{"n_seq": 4, **options})
        self.info, self.prompts, self.scheduler = make_engine(
            engine_dir, str(model), load, self.sent.append, lambda _done: True
        )

    def ask(self, id: int, text: str, *images: bytes, **params: Any) -> None:
        prompt = Prompt(text=text, images=list(images))
        tokens, pictures = self.prompts.read(prompt)
        params = {"sampling": GREEDY, "max_tokens": 8, "ignore_eos": True, **params}
        self.scheduler.submit(id, tokens, GenerateParams(prompt, **params), pictures)

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(5000):
            if until() or (not self.scheduler.step() and not self.scheduler.stats().queued):
                return
        raise AssertionError("it does not end")

    def text(self, id: int, index: int = 0) -> str:
        pieces = [p for s in self.sent if isinstance(s, Pieces) for p in s.pieces if (p.id, p.index) == (id, index)]
        return "".join(piece.text for piece in pieces)

    def usage(self, id: int) -> Usage:
        used = [p.usage for s in self.sent if isinstance(s, Pieces) for p in s.pieces if p.id == id and p.usage]
        return used[0]

    def answer(self, id: int, text: str, *images: bytes, **params: Any) -> str:
        self.ask(id, text, *images, **params)
        self.run()
        return self.text(id)


@pytest.fixture(scope="session", params=["mlp", "gemma3"])
def projector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_projector(tmp_path_factory.mktemp("projector") / f"mmproj-{request.param}.gguf", kind=request.param)


@pytest.fixture
def bench(engine_dir: Path, babble: Path, projector: Path) -> Bench:
    return Bench(engine_dir, babble, projector)


@pytest.fixture(scope="session")
def mrope(make_model: MakeModel) -> Path:
    """A model for which the patches of a picture have places in two dimensions: fewer positions than cells."""
    return make_model(arch="qwen2vl", sections=[2, 3, 3, 0])


def llama_cpps_own(bench: Bench, projector: Path, text: str, images: list[bytes], count: int) -> bytes:
    """Greedy tokens by mtmd's own helper, which evaluates a prompt with its pictures in one call."""
    from jan_llamacpp.worker.context import Context

    native, weights = bench.scheduler._native, bench.scheduler._model
    context = Context(native, weights, LoadOptions(threads=1, n_seq=1), 1024, 1024, 1)
    import llama_cpp.mtmd_cpp as mtmd

    params = mtmd.mtmd_context_params_default()
    handle = mtmd.mtmd_init_from_file(str(projector).encode(), weights.handle, params)
    bitmaps = [
        mtmd.mtmd_helper_bitmap_init_from_buf(
            handle, (ctypes.c_uint8 * len(image)).from_buffer_copy(image), len(image), False
        )
        for image in images
    ]
    chunks = mtmd.mtmd_input_chunks_init()
    raw = text.encode()
    whole = mtmd.mtmd_input_text(raw, len(raw), True, True)
    assert (
        mtmd.mtmd_tokenize(handle, chunks, ctypes.byref(whole), (ctypes.c_void_p * len(images))(*bitmaps), len(images))
        == 0
    )
    past = ctypes.c_int32()
    assert mtmd.mtmd_helper_eval_chunks(handle, context.handle, chunks, 0, 0, 512, True, ctypes.byref(past)) == 0
    drawn = []
    row = native.c.llama_get_logits_ith(context.handle, -1)
    for at in range(count):
        drawn.append(int(np.ctypeslib.as_array(row, shape=(weights.n_vocab,)).argmax()))
        assert context.decode(context.put(0, 0, past.value + at, drawn[-1:], 1)) == 0
        row = native.c.llama_get_logits_ith(context.handle, 0)
    return bytes(drawn)


def test_an_answer_is_the_one_of_llama_cpps_own_helper(bench: Bench, projector: Path) -> None:
    text = f"what is on this picture: {IMAGE_MARK} tell me"
    ours = bench.answer(1, text, RED)
    assert ours.encode() == llama_cpps_own(bench, projector, text, [RED], 8)
    other = bench.answer(2, text, GREEN)
    assert other.encode() == llama_cpps_own(bench, projector, text, [GREEN], 8)
    assert ours != other, "or the picture says nothing"
    text = f"{IMAGE_MARK} and {IMAGE_MARK} are two"
    assert bench.answer(3, text, GREEN, RED).encode() == llama_cpps_own(bench, projector, text, [GREEN, RED], 8)


def test_a_picture_with_places_in_two_dimensions_takes_more_cells_than_positions(
    engine_dir: Path, mrope: Path, tmp_path: Path
) -> None:
    projector = write_projector(tmp_path / "mmproj.gguf", kind="qwen2vl_merger")
    bench = Bench(engine_dir, mrope, projector, n_ctx=256, n_cells=256)
    text = f"what is {IMAGE_MARK} and {IMAGE_MARK} there"
    tokens, pictures = bench.prompts.read(Prompt(text=text, images=[RED, GREEN]))
    assert [(len(each.tokens), each.n_cells) for each in pictures.values()] == [(3, 9)] * 2
    answer = bench.answer(1, text, RED, GREEN)
    assert answer.encode() == llama_cpps_own(bench, projector, text, [RED, GREEN], 8)
    assert bench.scheduler.stats().cells_used == len(tokens) + 7 + 2 * 6
    assert bench.answer(2, text, RED, GREEN) == answer
    assert bench.usage(2).cached == len(tokens) - 1
    slots = bench.scheduler._cache.slots
    assert sum(slot.cells for slot in slots) <= 256
    bench.answer(3, "a text that needs " + "the room " * 20)
    assert sum(slot.cells for slot in slots) <= 256, "what more a picture takes is counted"


def test_what_was_read_of_a_picture_is_not_read_again(bench: Bench) -> None:
    first = bench.answer(1, f"look {IMAGE_MARK} and say what it is", RED)
    assert bench.usage(1).cached == 0
    turn = f"look {IMAGE_MARK} and say what it is{first} and now?"
    again = bench.answer(2, turn, RED)
    assert bench.usage(2).cached >= bench.usage(1).prompt
    assert again == bench_anew(bench).answer(3, turn, RED), "and the answer is the same"
    other = bench.answer(4, turn, GREEN)
    _, pictures = bench.prompts.read(Prompt(text=turn, images=[GREEN]))
    assert bench.usage(4).cached <= next(iter(pictures)), "nothing of another picture"
    assert other != again


def bench_anew(bench: Bench) -> Bench:
    """The same scheduler with nothing in its cache."""
    for slot in bench.scheduler._cache.slots:
        bench.scheduler._cache.forget(slot)
    return bench


def test_the_same_picture_is_the_same_tokens_wherever_it_stands(bench: Bench) -> None:
    tokens, pictures = bench.prompts.read(Prompt(text=f"{IMAGE_MARK}a{IMAGE_MARK}b", images=[RED, RED]))
    first, second = pictures
    assert pictures[first].tokens == pictures[second].tokens == tokens[first : first + len(pictures[first].tokens)]


def test_pictures_and_texts_are_answered_side_by_side(bench: Bench) -> None:
    alone = {id: bench.answer(id, text, *images) for id, text, images in WORK}
    bench_anew(bench).sent.clear()
    for id, text, images in WORK:
        bench.ask(id, text, *images)
    bench.run()
    assert {id: bench.text(id) for id, _, _ in WORK} == alone
    stats = bench.scheduler.stats()
    assert (stats.active, stats.queued) == (0, 0)


WORK = [
    (1, f"one {IMAGE_MARK} is", (RED,)),
    (2, "the other one has no picture at all and is longer than it", ()),
    (3, f"two {IMAGE_MARK} are {IMAGE_MARK} there", (GREEN, RED)),
    (4, "short", ()),
]


def test_several_answers_share_a_picture(bench: Bench) -> None:
    bench.ask(1, f"see {IMAGE_MARK} this", RED, n=3)
    bench.run()
    assert len({bench.text(1, index) for index in range(3)}) == 1
    assert bench.text(1)


def test_penalties_and_guesses_know_that_a_picture_is_no_text(bench: Bench) -> None:
    sampling = Sampling(temperature=0, repeat_penalty=1.3, frequency_penalty=0.5, penalty_last_n=-1)
    text = f"abcabc {IMAGE_MARK} abcabc {IMAGE_MARK} abcabc "
    guessed = bench.answer(1, text, RED, RED, sampling=sampling, max_tokens=40)
    assert guessed == bench_anew(bench).answer(2, text, RED, RED, sampling=sampling, max_tokens=40, speculate=False)


def test_a_picture_that_gives_its_cells_up_is_read_again(
    engine_dir: Path, babble: Path, projector: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(engine_dir, babble, projector, n_ctx=512, n_cells=768)
    assert bench.prompts._projector is not None
    evaluate, seen = bench.prompts._projector.evaluate, []

    def counting(picture: Picture, seq: int, position: int) -> int:
        seen.append(picture)
        return int(evaluate(picture, seq, position))

    monkeypatch.setattr(bench.prompts._projector, "evaluate", counting)
    for id, colour in ((1, (255, 0, 0)), (2, (0, 255, 0)), (3, (0, 0, 255))):
        bench.ask(id, f"see {IMAGE_MARK} this", png(colour=colour), max_tokens=None)
    bench.run()
    assert bench.scheduler.stats().preempted, "or this test says nothing"
    assert len(seen) > len(set(seen)) == 3
    ends = {p.id: p.finish for s in bench.sent if isinstance(s, Pieces) for p in s.pieces if p.finish}
    assert ends == {1: "length", 2: "length", 3: "length"}


def test_cancelling_a_picture_ends_only_its_request(bench: Bench) -> None:
    bench.ask(1, f"see {IMAGE_MARK} this", RED)
    bench.ask(2, "text")
    bench.scheduler.step()
    bench.scheduler.cancel(1)
    bench.run()
    ends = {p.id: p.finish for s in bench.sent if isinstance(s, Pieces) for p in s.pieces if p.finish}
    assert ends == {1: "cancelled", 2: "length"}


def test_a_picture_that_cannot_be_evaluated_ends_its_request_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bench.answer(9, "text beside it")
    assert bench.prompts._projector is not None
    evaluate, bad = bench.prompts._projector.evaluate, []

    def failing(picture: Picture, seq: int, position: int) -> int:
        bad.append(picture)
        return -3 if len(bad) == 1 else evaluate(picture, seq, position)

    monkeypatch.setattr(bench.prompts._projector, "evaluate", failing)
    bench.ask(1, f"bad {IMAGE_MARK} one", RED)
    bench.ask(2, f"good {IMAGE_MARK} one", RED)
    bench.ask(3, "text beside it")
    bench.run()
    assert [(s.id, s.type) for s in bench.sent if isinstance(s, Failed)] == [(1, "generation_failed")]
    assert bench.text(2)
    assert bench.text(3) == expected


@pytest.mark.parametrize(
    ("text", "images", "why"),
    [
        (f"{IMAGE_MARK} and {IMAGE_MARK} x", [RED], "room for 2 pictures; 1"),
        ("none at all", [RED], "room for 0 pictures; 1"),
        (f"see {IMAGE_MARK} x", [png(data=b"rubbish")], "damaged"),
    ],
)
def test_pictures_that_do_not_fit_their_prompt_are_refused(
    bench: Bench, text: str, images: list[bytes], why: str
) -> None:
    with pytest.raises(Refusal, match=why):
        bench.prompts.read(Prompt(text=text, images=images))


def test_a_prompt_that_is_too_long_with_its_pictures_is_refused(
    engine_dir: Path, babble: Path, projector: Path
) -> None:
    bench = Bench(engine_dir, babble, projector, n_ctx=64)
    with pytest.raises(Refusal, match="do not fit the context of 64") as caught:
        bench.ask(1, f"{IMAGE_MARK}x" * 4, RED, RED, RED, RED, overflow="shift")
    assert caught.value.type == "context_overflow"


def test_a_chat_s_pictures_stand_in_its_template(bench: Bench) -> None:
    message = {"role": "user", "content": f"{IMAGE_MARK}what is it <|im_end|>"}
    tokens, pictures = bench.prompts.read(Prompt(messages=[message], images=[RED]))
    assert len(pictures) == 1
    assert tokens[-1] >= 0
    text = bytes(token for token in tokens if 0 <= token < 256)
    assert b"user\n" in text
    assert b"what is it <|im_end|>" in text, "written out, as it was"


def test_a_model_without_a_projector_says_so(engine_dir: Path, babble: Path) -> None:
    bench = Bench(engine_dir, babble, None)
    with pytest.raises(Refusal, match="no projector") as caught:
        bench.prompts.read(Prompt(text=IMAGE_MARK, images=[RED]))
    assert caught.value.type == "invalid_generation"


def test_a_projector_of_another_model_is_refused_when_it_is_loaded(
    engine_dir: Path, babble: Path, tmp_path: Path
) -> None:
    other = write_projector(tmp_path / "other.gguf", n_embd=128)
    with pytest.raises(Refusal, match="not this model's") as caught:
        Bench(engine_dir, babble, other)
    assert caught.value.type == "model_load_failed"


def test_a_picture_is_used_whole_or_not_at_all() -> None:
    tokens = [5, 6, -(1 << 30) - 7, -3, -4, 8]
    assert [whole_pictures(tokens, length) for length in range(7)] == [0, 1, 2, 2, 2, 5, 6]
