"""Grammars on real vocabularies: what is drawn fits them at every temperature, and no grammar ends the process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jan_llamacpp.embedded import EMBEDDED_MODEL
from jan_llamacpp.worker.grammar import Constraint
from jan_llamacpp.worker.model import Model
from jan_llamacpp.worker.native import Native, load_native
from jan_llamacpp.worker.options import LoadOptions
from jan_llamacpp.worker.refusal import Refusal
from jan_llamacpp.worker.request import GenerateParams, Grammar, Prompt, Sampling
from jan_llamacpp.worker.sampling import Sampler, make_sampler

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", 'b"\\']}, "maxItems": 3},
    },
    "required": ["name", "count"],
}
Row = Callable[[int, list[int]], Any]


@pytest.fixture(scope="session")
def native(engine_dir: Path) -> Native:
    found = load_native(engine_dir)
    found.c.llama_backend_init()
    return found


@pytest.fixture(scope="session", params=["embedded", "bytes"])
def model(native: Native, babble: Path, request: pytest.FixtureRequest) -> Model:
    """Two vocabularies: of whole words, and of single bytes."""
    return Model(native, str(EMBEDDED_MODEL if request.param == "embedded" else babble), LoadOptions())


def noise(model: Model, seed: int, scale: float = 4.0) -> Row:
    random = np.random.default_rng(seed)
    return lambda _step, _tokens: (random.standard_normal(model.n_vocab) * scale).astype(np.float32)


def sampler(native: Native, model: Model, grammar: Grammar | None, seed: int = 1, **how: Any) -> Sampler:
    logprobs = how.pop("logprobs", None)
    params = GenerateParams(Prompt(), sampling=Sampling(seed=seed, **how), grammar=grammar, logprobs=logprobs)
    return make_sampler(native, model, params, 0)


def written(model: Model, sampling: Sampler, row: Row, most: int = 600) -> tuple[bytes, bool]:
    """The text that is drawn, and whether it ended by itself."""
    tokens: list[int] = []
    try:
        while len(tokens) < most:
            tokens.append(sampling.sample(row(len(tokens), tokens), None, 0, tokens, 0))
            if model.piece(tokens[-1]) is None:
                return b"".join(model.written(token) for token in tokens[:-1]), True
    finally:
        sampling.close()
    return b"".join(model.written(token) for token in tokens), False


@pytest.mark.parametrize(
    "how",
    [{"temperature": 0}, {}, {"temperature": 3.0, "top_k": 200, "top_p": 1.0, "min_p": 0.0}, {"repeat_penalty": 1.5}],
    ids=str,
)
def test_json_follows_its_schema_at_every_temperature(native: Native, model: Model, how: dict[str, Any]) -> None:
    for seed in range(6):
        text, ended = written(
            model, sampler(native, model, Grammar(schemas={"root": SCHEMA}), seed, **how), noise(model, seed)
        )
        assert ended
        found = json.loads(text.decode(errors="replace"))
        assert list(found) in (["name", "count"], ["name", "count", "tags"])
        assert 0 <= found["count"] <= 99
        assert set(found.get("tags", [])) <= {"a", 'b"\\'}


def test_the_likeliest_text_that_fits_is_drawn_when_it_is_wanted(native: Native, model: Model) -> None:
    wanted = '{"name": "Ada", "count": 7}'
    tokens = [*model.tokenize(wanted, bos=False, special=False)]

    def row(step: int, drawn: list[int]) -> Any:
        made = np.zeros(model.n_vocab, np.float32)
        made[tokens[step] if step < len(tokens) else native.c.llama_vocab_eos(model.vocab)] = 9
        return made

    for how in ({"temperature": 0}, {"temperature": 0.1}):
        text, ended = written(model, sampler(native, model, Grammar(schemas={"root": SCHEMA}), **how), row)
        assert ended
        assert text.decode().strip() == wanted


def test_many_tokens_asked_at_once_are_answered_as_each_alone(native: Native, model: Model) -> None:
    constraint = Constraint(native, model, Grammar(schemas={"root": SCHEMA}))
    everything = np.arange(model.n_vocab)
    for token in [*model.tokenize('{"name": "né', bos=False), *model.tokenize('", "count"', bos=False)]:
        mask = constraint.allowed(everything)
        assert mask.tolist() == [constraint.allows(each) for each in everything.tolist()]
        assert mask[token]
        constraint.accept(token)
    constraint.close()


def test_a_grammar_of_the_callers_own_is_followed(native: Native, model: Model) -> None:
    grammar = Grammar(gbnf='root ::= ("ja" | "nein") " " [0-9]{3}\n')
    for seed in range(5):
        text, ended = written(model, sampler(native, model, grammar, seed), noise(model, seed))
        assert ended
        word, number = text.decode().split()
        assert word in ("ja", "nein")
        assert len(number) == 3


def scripted(model: Model, script: str, seed: int) -> Row:
    """Rows that spell `script` out, and are noise after it."""
    tokens = model.tokenize(script, bos=False)
    rest = noise(model, seed)

    def row(step: int, drawn: list[int]) -> Any:
        made = rest(step, drawn)
        if step < len(tokens):
            made[tokens[step]] = 100
        return made

    return row


def test_a_grammar_waits_for_its_trigger_and_holds_from_there(native: Native, model: Model) -> None:
    gbnf = 'root ::= "<tool_call>\\n" body "\\n</tool_call>"'
    grammar = Grammar(gbnf=gbnf, schemas={"body": SCHEMA}, triggers=["<tool_call>"])
    for seed in range(5):
        made = sampler(native, model, grammar, seed)
        text, ended = written(model, made, scripted(model, "Anything: {[ <tool_call>", seed))
        assert ended
        free, _, call = text.decode(errors="replace").partition("<tool_call>\n")
        assert free.strip() == "Anything: {["
        body, close, _ = call.partition("\n</tool_call>")
        assert close
        assert "name" in json.loads(body)


def test_a_grammar_holds_after_the_thoughts_that_the_prompt_opened(native: Native, model: Model) -> None:
    grammar = Grammar(schemas={"root": SCHEMA}, reasoning=True, opened=True)
    for seed in range(5):
        text, ended = written(
            model, sampler(native, model, grammar, seed), scripted(model, "Hm, </ok>{ </think>", seed)
        )
        assert ended
        thoughts, _, found = text.decode(errors="replace").partition("</think>")
        assert thoughts.strip() == "Hm, </ok>{"
        assert "name" in json.loads(found)


def test_what_follows_a_trigger_and_does_not_fit_leaves_the_text_free(native: Native, model: Model) -> None:
    # The trigger ends amid a token only where there are tokens of several characters.
    grammar = Grammar(gbnf='root ::= "call(" [0-9]+ ")"', triggers=["call("])
    text, _ = written(model, sampler(native, model, grammar), scripted(model, "recall(12", 3), most=60)
    assert b"call(12" in text
    assert model.n_vocab < 1000 or text.decode(errors="replace").split("call(")[1].split(")")[0].isdigit()


def test_nothing_to_wait_for_nothing_is_greedy_only_without_a_grammar(native: Native, model: Model) -> None:
    plain = sampler(native, model, None, temperature=0)
    assert plain.greedy
    assert not sampler(native, model, Grammar(gbnf='root ::= "a"'), temperature=0).greedy
    assert not sampler(native, model, None, temperature=0, logprobs=0).greedy
    assert not sampler(native, model, None, temperature=0, presence_penalty=1.0).greedy
    assert not sampler(native, model, None).greedy


def test_log_probabilities_are_the_models_own_before_all_options(native: Native, model: Model) -> None:
    row = noise(model, 3)(0, [])
    exact = row.astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum())
    best = np.argsort(-exact)[:5]
    for how in (
        {"temperature": 0},
        {"temperature": 1.7},
        {"logit_bias": {int(best[3]): 50.0}},
        {"repeat_penalty": 2.0},
    ):
        made = sampler(native, model, None, logprobs=5, **how)
        token = made.sample(row.copy(), None, 0, [int(best[0])] * 4, 0)
        found = made.last_logprob
        made.close()
        assert found is not None
        assert found.token == model.written(token)
        assert found.logprob == pytest.approx(exact[token], abs=1e-4)
        assert [value for _, value in found.top] == pytest.approx(exact[best].tolist(), abs=1e-4)
        assert [token for token, _ in found.top] == [model.written(int(each)) for each in best]


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        (Grammar(gbnf="root ::= "), None),
        (Grammar(gbnf="root ::= root"), "left recursion"),
        (Grammar(gbnf='root ::= "a"{5,2}'), "from 5 to 2"),
        (Grammar(gbnf="x"), "::= is missing"),
        (Grammar(schemas={"root": {"type": "nothing"}}), "unknown type"),
        (Grammar(gbnf='root ::= "a"', triggers=[""]), "trigger"),
        (Grammar(gbnf='root ::= "a"', triggers=["(é"]), "trigger"),
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused_with_its_reason(
    native: Native, model: Model, grammar: Grammar, why: str | None
) -> None:
    if why is None:
        text, ended = written(model, sampler(native, model, grammar), noise(model, 1))
        assert (text, ended) == (b"", True), "an empty text is all that fits"
        return
    with pytest.raises(Refusal, match=why) as caught:
        sampler(native, model, grammar)
    assert caught.value.type == "invalid_generation"


FUZZ = Path(__file__).with_name("grammar_fuzz.py")


def test_no_grammar_ends_the_process_or_holds_it_up(engine_dir: Path, babble: Path) -> None:
    """Random grammars and schemas, in a child of its own; `grammar_fuzz.py` says how."""
    done = subprocess.run(
        [sys.executable, FUZZ, engine_dir, EMBEDDED_MODEL, "400", "7"], capture_output=True, timeout=240, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["tried"] == 400
    assert told["used"] > 40
    assert told["refused"] > 40
    assert told["slowest"] < 5
