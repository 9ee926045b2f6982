"""What people type when they look for a model, drawn from a catalogue so that it fits it. Always the same for the same
one."""

from __future__ import annotations

import json
import random

from catalogues import FAMILIES, KINDS, MAKERS, TAGS, Catalogue

__all__ = ["LIMIT", "Query", "queries"]

LIMIT = 20
"""Models on a page."""

Query = tuple[str, int]
"""A text, and how many models to pass over."""


def queries(catalogue: Catalogue, each: int) -> dict[str, list[Query]]:
    """`each` of every kind."""
    rng = random.Random(f"queries {len(catalogue.models)}")
    ids = rng.choices(list(catalogue.models), k=each)
    hidden = rng.choices(list(catalogue.models), k=each)
    sizes = ["4b", "7b", "8b", "14b", "0.5b", "70b"]
    words = [*FAMILIES, *KINDS, *MAKERS, *TAGS]
    return {
        "nothing typed yet": [("", rng.randrange(5) * LIMIT) for _ in range(each)],
        "one or two letters": [(rng.choice(words)[: rng.randint(1, 2)], 0) for _ in range(each)],
        "the beginning of a word": [(rng.choice(words)[: rng.randint(3, 5)], 0) for _ in range(each)],
        "a common word": [(rng.choice(words), 0) for _ in range(each)],
        "several words": [
            (" ".join([rng.choice(FAMILIES), rng.choice(KINDS), rng.choice(sizes)]), 0) for _ in range(each)
        ],
        "a word and two letters": [(f"{rng.choice(KINDS)} {rng.choice(words)[:2]}", 0) for _ in range(each)],
        "one model's id": [(id, 0) for id in ids],
        "a rare part of a name": [(_end(catalogue, id), 0) for id in hidden],
        "what is not there": [(f"{rng.choice(FAMILIES)} {_absent(rng)}", 0) for _ in range(each)],
        "further pages": [(rng.choice([*FAMILIES, *KINDS]), rng.randrange(1, 40) * LIMIT) for _ in range(each)],
    }


def _end(catalogue: Catalogue, id: str) -> str:
    return str(json.loads(catalogue.models[id])["name"]).lower().partition(" ")[2][-12:].strip()


def _absent(rng: random.Random) -> str:
    return "".join(rng.choices("jqxz", k=6))
