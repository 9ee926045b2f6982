"""Looking for models by words."""

from __future__ import annotations

from jan_core.types import ModelRecord

__all__ = ["search"]


def search(models: list[ModelRecord], text: str) -> list[ModelRecord]:
    """Models in which every word of `text` occurs, in any case, in the id, name, publisher or tags.

    Those whose id or name begins with the first word come first; otherwise the list's own order stays.
    """
    words = text.casefold().split()
    if not words:
        return list(models)
    found = [model for model in models if all(word in _text(model) for word in words)]
    return sorted(found, key=lambda model: not _begins(model, words[0]))


def _text(model: ModelRecord) -> str:
    return "\n".join([model.id, model.name, model.publisher, *model.tags]).casefold()


def _begins(model: ModelRecord, word: str) -> bool:
    return model.id.casefold().startswith(word) or model.name.casefold().startswith(word)
