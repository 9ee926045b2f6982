"""Tries random grammars on a real vocabulary: `python grammar_fuzz.py ENGINE MODEL COUNT SEED`.

Prints how many were used and refused. A process of its own, because what it looks for is the end of the process.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

PARTS = [
    '"a"',
    '"ab\\n"',
    "[a-z]",
    "[^x]",
    ".",
    "root",
    "x",
    "y",
    '"\\u00e9"',
    '"{"',
    "[\\x00-\\x1F]",
    '""',
    "[]",
    "[^]",
]
COUNTS = ["*", "+", "?", "{2}", "{0,3}", "{1,}", "{3,1}", "{1999}", "{99999}", ""]


def grammar(source: random.Random) -> str:
    """Mostly well-formed, and sometimes with a character changed."""

    def item(depth: int) -> str:
        if depth < 4 and source.random() < 0.3:
            return f"({ways(depth + 1)}){source.choice(COUNTS)}"
        return source.choice(PARTS) + (source.choice(COUNTS) if source.random() < 0.3 else "")

    def ways(depth: int) -> str:
        return " | ".join(
            " ".join(item(depth) for _ in range(source.randint(0, 3))) for _ in range(source.randint(1, 3))
        )

    text = "".join(f"{name} ::= {ways(0)}\n" for name in ("root", "x", "y"))
    if source.random() < 0.2:
        at = source.randrange(len(text))
        text = (
            text[:at]
            + source.choice(["", "(", ")", '"', "\\", "[", "{", "\0", "é", "::=", "<[3]>", "!"])
            + text[at + 1 :]
        )
    return text


def schema(source: random.Random, depth: int = 0) -> Any:
    kind = source.choice(
        ["object", "array", "string", "integer", "ref", "any", "enum"] if depth < 4 else ["string", "null"]
    )
    match kind:
        case "object":
            names = [source.choice(["a", "b", '"', "é", "\\", "x" * 40]) for _ in range(source.randint(0, 4))]
            made = {"type": kind, "properties": {name: schema(source, depth + 1) for name in names}}
            return made | {"required": names[::2]} | ({"additionalProperties": True} if source.random() < 0.3 else {})
        case "array":
            return {"type": kind, "items": schema(source, depth + 1), "maxItems": source.choice([0, 1, 5, 500, 10**7])}
        case "string":
            return {"type": kind} | source.choice(
                [
                    {},
                    {"maxLength": source.choice([0, 3, 900])},
                    {"pattern": source.choice(["^a+$", "(a|b){9}", "[", ".*.*.*x"])},
                ]
            )
        case "ref":
            return {"$ref": source.choice(["#", "#/properties/a", "#/x"])}
        case "any":
            return {"anyOf": [schema(source, depth + 1) for _ in range(source.randint(1, 3))]}
        case "enum":
            return {"enum": [1, 'a"\\\n', None, {"a": [1]}][: source.randint(0, 4)]}
    return {"type": kind}


def main(engine: str, path: str, count: int, seed: int) -> None:
    import numpy as np
    from jan_llamacpp.worker.model import Model
    from jan_llamacpp.worker.native import load_native
    from jan_llamacpp.worker.options import LoadOptions
    from jan_llamacpp.worker.refusal import Refusal
    from jan_llamacpp.worker.request import GenerateParams, Grammar, Prompt, Sampling
    from jan_llamacpp.worker.sampling import make_sampler

    native = load_native(Path(engine))
    native.c.llama_backend_init()
    model = Model(native, path, LoadOptions())
    source = random.Random(seed)
    told = {"tried": 0, "used": 0, "refused": 0, "slowest": 0.0}
    for _ in range(count):
        asked = Grammar(gbnf=grammar(source)) if source.random() < 0.5 else Grammar(schemas={"root": schema(source)})
        if source.random() < 0.2:
            asked = Grammar(asked.gbnf, asked.schemas, triggers=["a"])
        told["tried"] += 1
        noise = np.random.default_rng(source.randrange(2**32))
        began = time.monotonic()
        sampling = Sampling(temperature=source.choice([0, 1]), seed=1)
        try:
            sampler = make_sampler(native, model, GenerateParams(Prompt(), sampling=sampling, grammar=asked), 0)
        except Refusal:
            told["refused"] += 1
        else:
            told["used"] += 1
            tokens: list[int] = []
            try:
                while len(tokens) < 20 and (not tokens or model.piece(tokens[-1]) is not None):
                    row = (noise.standard_normal(model.n_vocab) * 4).astype(np.float32)
                    tokens.append(sampler.sample(row, None, 0, tokens, 0))
            except Refusal:
                pass  # no token fits, or too many ways
            sampler.close()
        told["slowest"] = max(told["slowest"], time.monotonic() - began)
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
