"""Which of the recommended models this machine is shown, and in which order. Pure.

The filter hides what is not meant for this machine, what asks for something that is unknown here, and what was revoked;
what is deprecated goes to the end. The order is the list's own, but for two things: what does not fit in the memory
goes behind what does, and what this person uses may pass a few of its neighbours. Ranking hides nothing and invents
nothing: it returns the models it was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from jan_core.types import DownloadFile, ModelContext, ModelRecord

from .collections import Constraint
from .revocations import Revocations, without_revoked
from .targeting import Facts, matches

__all__ = ["MOST_PLACES", "filtered", "memory_needed", "ranked"]

MOST_PLACES = 3
"""So many places a model that is used may rise, at most: its neighbours are as good as equal, others are not."""
_HALF_WAY = 10.0
"""The score of usage (`usage.py`) with which it rises half of them."""


def filtered(
    models: Sequence[ModelRecord], facts: Facts, revocations: Revocations, engines: Mapping[str, str] | None = None
) -> list[ModelRecord]:
    """Those that are for a machine of which `facts` are known, deprecated ones last, revoked variants taken out.

    `engines`: the versions of inference engines by name. A model that asks for an engine which is not among them, or
    for a form of condition that this program does not know, is hidden.
    """
    kept = [
        clean
        for model in models
        if _meant(model.extra, facts, engines or {}) and (clean := without_revoked(model, revocations))
    ]
    return sorted(kept, key=lambda model: bool(model.extra.get("deprecated")))


def ranked(models: Sequence[ModelRecord], context: ModelContext, scores: Mapping[str, float]) -> list[ModelRecord]:
    """The same models in the order for this machine. `scores`: how much each is used, from 0."""
    room = max(context.memory_total or context.memory_free, context.device_memory_free)

    def key(place: int) -> tuple[bool, bool, float]:
        model = models[place]
        used = max(0.0, scores.get(model.id, 0.0))
        too_large = bool(room) and memory_needed(model) > room
        return bool(model.extra.get("deprecated")), too_large, place - MOST_PLACES * used / (used + _HALF_WAY)

    return [models[place] for place in sorted(range(len(models)), key=key)]


def memory_needed(model: ModelRecord) -> int:
    """Bytes of memory for the smallest way to have the model; 0 when that is not known."""
    ways = [variant.memory or _size(variant.files) for variant in model.variants] or [_size(model.files)]
    return 0 if 0 in ways else min(ways)


def _size(files: Sequence[DownloadFile]) -> int:
    """Of all of them; 0 when one is not known."""
    return sum(file.size for file in files) if all(file.size for file in files) else 0


def _meant(extra: Mapping[str, Any], facts: Facts, engines: Mapping[str, str]) -> bool:
    try:
        target = msgspec.convert(extra.get("target", []), list[Constraint])
        requires = msgspec.convert(extra.get("requires", {}), dict[str, Any])
        wanted = msgspec.convert(requires.get("engine", {}), dict[str, str])
        app = msgspec.convert(requires.get("app", ""), str)
    except msgspec.ValidationError:
        return False
    if not matches(target, facts) or requires.keys() - {"app", "engine"}:
        return False
    if app and not in_range(str(facts.get("app_version", "")), app):
        return False
    return all(in_range(engines.get(name, ""), span) for name, span in wanted.items())


@lru_cache(maxsize=1024)
def in_range(version: str, span: str) -> bool:
    """Whether a version lies in a range such as `>=0.3, <2` or `>=b5000`; False for what cannot be compared."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    def plain(text: str) -> str:
        """`b5000`, as llama.cpp counts its builds, and `v1.2` as the numbers they are."""
        text = text.strip()
        return text[1:] if text[:1] in ("b", "v") and text[1:2].isdigit() else text

    parts = []
    for part in span.split(","):
        operator = part.strip()[: len(part.strip()) - len(part.strip().lstrip("<>=!~"))]
        parts.append(operator + plain(part.strip()[len(operator) :]))
    try:
        return SpecifierSet(",".join(parts), prereleases=True).contains(Version(plain(version)))
    except (InvalidSpecifier, InvalidVersion):
        return False
