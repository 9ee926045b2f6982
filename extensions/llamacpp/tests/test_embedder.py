"""The embedder, step by step, on real llama.cpp contexts in this process; and its vectors beside the engine's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jan_llamacpp.worker.options import LoadOptions
from jan_llamacpp.worker.protocol import Embedded, Failed
from jan_llamacpp.worker.refusal import Refusal
from jan_llamacpp.worker.request import Prompt

from .conftest import MakeModel
from .embedding_models import WORDS, write_bert
from .model_files import Shape, write

TEXTS = ["the cat sat on a mat", "moon", "green river ran on the stone", "old dog", "sun " * 30, "a", "river moon"]

THEIRS = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], embedding=True, n_ctx=0, n_batch=512, n_ubatch=512, n_threads=1,
              pooling_type=int(sys.argv[2]), flash_attn=sys.argv[2] == "4", verbose=False)
print(json.dumps([model.embed(text, normalize=sys.argv[2] != "4") for text in json.load(sys.stdin)]))
"""


class Bench:
    """An embedder on a model, worked by hand; keeps what it sends."""

    def __init__(self, engine_dir: Path, model: Path, **options: Any) -> None:
        from jan_llamacpp.worker.engine import make_embedding_engine

        self.sent: list[Any] = []
        load = LoadOptions(embeddings=True, threads=1, **options)
        self.info, self.prompts, self.embedder = make_embedding_engine(
            engine_dir, str(model), load, self.sent.append, lambda _done: True
        )

    def ask(self, id: int, texts: list[str], normalise: bool = True) -> None:
        self.embedder.embed(id, [self.prompts.whole(Prompt(text=text)) for text in texts], normalise)

    def run(self) -> None:
        for _ in range(1000):
            if not self.embedder.step():
                return
        raise AssertionError("it does not end")

    def vectors(self, texts: list[str], normalise: bool = True) -> Any:
        self.ask(1, texts, normalise)
        self.run()
        (answer,) = self.sent
        self.sent.clear()
        assert isinstance(answer, Embedded), answer
        return np.frombuffer(answer.vectors, np.float32).reshape(-1, answer.size)


@pytest.fixture
def open_bench(engine_dir: Path) -> Callable[..., Bench]:
    return lambda model, **options: Bench(engine_dir, model, **options)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "bert.gguf")


def alike(ours: Any, theirs: Any) -> bool:
    """Vectors of length 1 that point the same way, as far as half precision goes: a step's other rows can decide which
    of its kernels attention uses. Those of different texts are further apart (`test_vectors_are…`).
    """
    return bool(ours.shape == theirs.shape and (ours * theirs).sum(axis=-1).min() > 0.9999)


def engines_own(engine_dir: Path, model: Path, pooling: int, texts: list[str]) -> Any:
    """The same texts by llama-cpp-python's own high-level API, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, str(model), str(pooling)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(engine_dir)},
        check=True,
    )
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2), ("last", 3)])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_vectors_are_those_of_the_engines_own_api(
    open_bench: Callable[..., Bench], engine_dir: Path, bert: Path, babble: Path, kind: str, pooling: Any, number: int
) -> None:
    model = bert if kind == "bert" else babble
    ours = open_bench(model, pooling=pooling).vectors(TEXTS)
    theirs = engines_own(engine_dir, model, number, TEXTS)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert alike(ours, theirs)
    others = np.abs(ours @ ours.T - np.eye(len(TEXTS)))
    assert others.max() < 0.99, "different texts are told apart, or the comparison says nothing"


def test_a_ranking_model_gives_its_scores_as_they_are(
    open_bench: Callable[..., Bench], engine_dir: Path, tmp_path: Path
) -> None:
    model = write_bert(tmp_path / "rank.gguf", pooling=4, labels=32)  # their API reads as many numbers as n_embd
    ours = open_bench(model).vectors(TEXTS)
    assert ours.shape == (len(TEXTS), 32)
    assert np.allclose(ours, engines_own(engine_dir, model, 4, TEXTS), atol=1e-4)


def test_pooling_none_gives_a_vector_for_each_token(open_bench: Callable[..., Bench], bert: Path) -> None:
    bench = open_bench(bert, pooling="none")
    bench.ask(1, ["the cat", "moon"], normalise=False)
    bench.run()
    (answer,) = bench.sent
    assert answer.tokens == [4, 3], "with those that begin and end a text"
    rows = np.frombuffer(answer.vectors, np.float32).reshape(-1, answer.size)
    mean = open_bench(bert, pooling="mean").vectors(["the cat", "moon"], normalise=False)
    assert np.allclose(rows[:4].mean(axis=0), mean[0], atol=1e-5)
    assert np.allclose(rows[4:].mean(axis=0), mean[1], atol=1e-5)


def test_a_model_that_names_no_pooling_gets_the_one_that_fits_it(
    open_bench: Callable[..., Bench], babble: Path, tmp_path: Path
) -> None:
    unnamed = write_bert(tmp_path / "unnamed.gguf", pooling=None)
    assert np.array_equal(open_bench(unnamed).vectors(TEXTS), open_bench(unnamed, pooling="mean").vectors(TEXTS))
    assert np.array_equal(open_bench(babble).vectors(TEXTS), open_bench(babble, pooling="last").vectors(TEXTS))


def test_texts_are_packed_into_one_decode(open_bench: Callable[..., Bench], bert: Path) -> None:
    bench = open_bench(bert)
    together = bench.vectors(TEXTS)
    assert bench.embedder.stats().steps == 1
    alone = np.vstack([bench.vectors([text]) for text in TEXTS])
    assert np.allclose(together, alone, atol=1e-5), "texts in one decode do not see each other"


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_more_texts_than_fit_a_step_take_more_steps(
    open_bench: Callable[..., Bench], bert: Path, babble: Path, kind: str
) -> None:
    bench = open_bench(bert if kind == "bert" else babble, n_batch=64)
    texts = [" ".join(WORDS[at % 7 :][: 1 + at % 5]) for at in range(200)]
    many = bench.vectors(texts)
    assert 10 < bench.embedder.stats().steps <= 200
    for at in (0, 63, 64, 199):
        assert alike(many[at], bench.vectors([texts[at]])[0]), "in the order of the texts"
    stats = bench.embedder.stats()
    assert (stats.active, stats.queued, stats.cells_used, stats.free_slots) == (0, 0, 0, bench.info.n_seq)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_text_longer_than_a_step_is_read_over_several(
    open_bench: Callable[..., Bench], babble: Path, pooling: Any
) -> None:
    text = "the cat sat on a mat and ran. " * 20
    in_parts = open_bench(babble, pooling=pooling, n_batch=64)
    vector = in_parts.vectors([text, "short"])
    assert in_parts.embedder.stats().steps > 5
    assert alike(vector, open_bench(babble, pooling=pooling, n_batch=2048).vectors([text, "short"]))


def test_an_encoder_reads_a_whole_text_at_once_however_small_a_step_is(
    open_bench: Callable[..., Bench], bert: Path
) -> None:
    text = " ".join(WORDS[at % 14] for at in range(126))
    bench = open_bench(bert, n_batch=16, n_seq=4)
    assert bench.info.n_ctx == 128
    assert np.allclose(bench.vectors(["moon", text, "sun"]), open_bench(bert).vectors(["moon", text, "sun"]), atol=1e-5)


def test_a_text_that_is_too_long_is_refused_with_the_limit(open_bench: Callable[..., Bench], bert: Path) -> None:
    bench = open_bench(bert, n_ctx=100_000)  # more than it was trained for: positions are rows of a table
    with pytest.raises(Refusal, match=r"129 tokens.* at most 128") as caught:
        bench.ask(1, ["moon", "sun " * 127])
    assert caught.value.type == "context_overflow"
    assert caught.value.data == {"n_prompt": 129, "n_ctx": 128, "index": 1}
    assert len(bench.vectors(["sun " * 126])) == 1


@pytest.mark.parametrize("tokens", [[], [70], [-1, 2]])
def test_tokens_that_are_none_are_refused(open_bench: Callable[..., Bench], bert: Path, tokens: list[int]) -> None:
    bench = open_bench(bert)
    with pytest.raises(Refusal) as caught:
        bench.embedder.embed(1, [[5], tokens], True)
    assert (caught.value.type, caught.value.data) == ("invalid_generation", {"index": 1})


@pytest.mark.parametrize(("poison", "what"), [(float("nan"), "finite"), (0.0, "zeros")])
def test_a_useless_vector_is_an_error_of_its_own(
    open_bench: Callable[..., Bench], tmp_path: Path, poison: float, what: str
) -> None:
    bench = open_bench(write_bert(tmp_path / "bad.gguf", poison=poison))
    bench.ask(1, ["moon", "sun"])
    bench.ask(2, ["moon"])
    bench.run()
    assert [(answer.id, answer.type) for answer in bench.sent] == [(1, "embedding_failed"), (2, "embedding_failed")]
    assert what in bench.sent[0].message
    assert bench.embedder.stats().free_slots == bench.info.n_seq


def test_a_cancelled_request_is_dropped_and_others_go_on(open_bench: Callable[..., Bench], babble: Path) -> None:
    bench = open_bench(babble, n_batch=64)
    bench.ask(1, ["a long text of one that leaves " * 10] * 3)
    bench.ask(2, ["the other"])
    assert bench.embedder.step()
    bench.embedder.cancel(1)
    bench.run()
    (answer,) = bench.sent
    assert (answer.id, len(answer.tokens)) == (2, 1)
    stats = bench.embedder.stats()
    assert (stats.active, stats.queued, stats.free_slots) == (0, 0, bench.info.n_seq)


def test_a_decode_that_is_aborted_or_fails_is_made_anew(
    open_bench: Callable[..., Bench], babble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = open_bench(babble)
    expected = bench.vectors(TEXTS)
    context = bench.embedder._context
    decode, answers = context.decode, iter([2, -3])

    def failing(rows: int) -> int:
        return next(answers, None) or decode(rows)

    monkeypatch.setattr(context, "decode", failing)
    before = bench.embedder.stats().steps
    assert alike(bench.vectors(TEXTS), expected)
    assert bench.embedder.stats().steps - before == 2 + len(TEXTS), "after a failure each text alone, to find which"


def test_a_text_that_cannot_be_decoded_fails_alone(
    open_bench: Callable[..., Bench], babble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = open_bench(babble)
    context = bench.embedder._context
    decode = context.decode
    (bad,) = bench.prompts.whole(Prompt(text="~"))

    def failing(rows: int) -> int:
        return -3 if bad in context._tokens[:rows] else decode(rows)

    monkeypatch.setattr(context, "decode", failing)
    bench.ask(1, ["one", "two"])
    bench.ask(2, ["three", "~"])
    bench.ask(3, ["four"])
    bench.run()
    assert {answer.id: type(answer) for answer in bench.sent} == {1: Embedded, 2: Failed, 3: Embedded}


def watched(bench: Bench) -> list[bytes]:
    """The names of what llama.cpp is about to compute from now on."""
    cutoff = bench.embedder._context._cutoff
    assert cutoff
    name, seen = cutoff.name, list[bytes]()

    def telling(tensor: int) -> bytes:
        seen.append(name(tensor))
        return seen[-1]

    cutoff.name = telling
    return seen


@pytest.mark.parametrize("pooling", ["none", "mean", "last"])
def test_logits_that_nobody_asked_for_are_not_computed(
    open_bench: Callable[..., Bench], babble: Path, pooling: Any
) -> None:
    bench = open_bench(babble, pooling=pooling)
    seen = watched(bench)
    whole = bench.vectors(TEXTS)
    assert seen.pop().startswith(b"result_output"), "the first step, which shows where to stop, has them"
    bench.vectors([text[::-1] for text in TEXTS])  # what was written over is not taken for a result
    seen.clear()
    assert np.array_equal(bench.vectors(TEXTS), whole)
    assert seen.pop() == b"result_embd_pooled"
    assert not any(each.startswith(b"result_output") for each in seen)


def test_dense_layers_behind_the_logits_are_computed(open_bench: Callable[..., Bench], tmp_path: Path) -> None:
    dense = (("dense_2.weight", (256, 256)),)
    shape = Shape(
        "lfm2", n_layer=2, n_head_kv=[4, 0], n_ctx=512, type="F32", more={"shortconv.l_cache": 3}, added=dense
    )
    bench = open_bench(write(tmp_path / "dense.gguf", shape), pooling="mean")
    seen = watched(bench)
    for id in (1, 2):
        seen.clear()
        bench.embedder.embed(id, [[5, 6, 7]], True)  # zeros for weights: there is no vector
        bench.run()
        assert seen.count(b"result_embd_pooled") == 2
        assert seen.pop() == b"result_embd_pooled"


def test_a_control_token_in_a_text_is_text(open_bench: Callable[..., Bench], babble: Path) -> None:
    bench = open_bench(babble)
    assert 258 not in bench.prompts.whole(Prompt(text="<|im_start|>"))


def test_an_embedder_generates_nothing(engine_dir: Path, make_model: MakeModel, bert: Path) -> None:
    from jan_llamacpp.worker.engine import make_engine

    with pytest.raises(Refusal, match=r"makes embeddings.*embeddings\.create") as caught:
        make_engine(engine_dir, str(bert), LoadOptions(threads=1), print, lambda _done: True)
    assert caught.value.type == "model_load_failed"
