"""One form for what any hub says of a model: text fit to be shown, and what is missing said.

`extra` of a hub's record, each only where it holds: `pinned` (its files are named by a commit or a hash, and cannot
change under their addresses), `partial` (only listed: ask the source for its id to have its files), `remote` (it runs
at the hub, and there is nothing to download), and what a hub knows beyond the record.
"""

from __future__ import annotations

from typing import Any

from jan_core.types import ModelRecord, ModelVariant

from .text import line, lines, tags

__all__ = ["model_record"]


def model_record(
    source: str,
    id: str,
    name: str,
    variants: list[ModelVariant] | None = None,
    *,
    description: str = "",
    publisher: str = "",
    license: str = "",
    parameters: int = 0,
    context_length: int = 0,
    words: list[str] | None = None,
    **extra: Any,
) -> ModelRecord:
    """A record, `unverified`. `words` become its tags; what is empty in `extra` is left away."""
    return ModelRecord(
        id=id,
        name=line(name) or id,
        description=lines(description),
        publisher=line(publisher),
        license=line(license),
        parameters=_exact(parameters),
        context_length=_exact(context_length),
        tags=tags(words or []),
        files=variants[0].files if variants else [],
        variants=variants or [],
        source=source,
        verification="unverified",
        extra={key: value for key, value in extra.items() if value},
    )


def _exact(number: int) -> int:
    """0 for what JSON does not hold exactly."""
    return number if 0 <= number < 2**53 else 0
