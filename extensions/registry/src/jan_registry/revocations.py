"""What a hub has revoked, by file and by model, and the votes that follow: no download, no load, not shown.

Made once for a state of the list. No disk, no network, no clock: whoever asks says what stands in the list and what
time it is. It revokes nothing that is in memory already; the next load is what it keeps from happening.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from jan_core.types import Admission, DownloadFile, DownloadJob, ModelLoad, ModelRecord

from .collections import Revocation

__all__ = ["LONGEST_UNCONFIRMED", "Revocations", "admit_download", "admit_load", "unconfirmed", "without_revoked"]


class _Named(msgspec.Struct):
    """The part of a revocation that counts."""

    sha256: str = ""
    model: str = ""


Lookup = Callable[[str], ModelRecord | None]
"""A model's record by its id, from the list that the revocations belong to; None: the list has none."""

LONGEST_UNCONFIRMED = 30 * 86400
"""Seconds after which it is said that newer revocations may be missing."""


class Revocations:
    """Of one state of the list, from its records' bytes. Texts are compared regardless of case.

    `unread` counts those that are not in order. Where such a one names a hash or a model all the same it holds: it can
    only say no, and one no too many is explained by this count, while nobody would notice one too few.
    """

    def __init__(self, records: Iterable[bytes] = ()) -> None:
        self.unread = 0
        self._hashes: dict[str, Revocation] = {}
        self._models: dict[str, Revocation] = {}
        self._files: dict[str, Revocation] | None = None
        self._lock = threading.Lock()
        from .collections.check import check

        for data in records:
            try:
                self._add(check("revocations", data))
            except ValueError:
                self.unread += 1
                self._add(_salvaged(data))

    def joined(self, other: Revocations) -> Revocations:
        """What either of them revokes."""
        both = Revocations()
        for each in (self, other):
            both.unread += each.unread
            for revocation in (*each._hashes.values(), *each._models.values()):
                both._add(revocation)
        return both

    @property
    def by_model(self) -> bool:
        """Whether any model is revoked by its id."""
        return bool(self._models)

    def _add(self, revocation: Revocation | None) -> None:
        if revocation is not None and revocation.sha256:
            _first(self._hashes, revocation.sha256.lower(), revocation)
        if revocation is not None and revocation.model:
            _first(self._models, revocation.model.lower(), revocation)

    def __len__(self) -> int:
        return len({r.id for by in (self._hashes, self._models) for r in by.values()})

    def refusal(self, sha256: str = "", model: str = "") -> Revocation | None:
        """What revokes a file of this hash or a model of this id; "" is nobody's."""
        return self._hashes.get(sha256.lower()) or self._models.get(model.lower())

    def of_file(self, file: DownloadFile, find: Lookup) -> Revocation | None:
        """What revokes a file: its hash, else that it is the file of a revoked model which the list still has."""
        if found := self.refusal(file.sha256):
            return found
        if not self._models:
            return None
        with self._lock:
            if self._files is None:
                self._files = self._files_of_models(find)
        return self._files.get(file.sha256.lower()) or self._files.get(file.url)

    def _files_of_models(self, find: Lookup) -> dict[str, Revocation]:
        """By hash and by URL: the weights of the revoked models. A projector or a tokenizer may be another's too."""
        found: dict[str, Revocation] = {}
        for revocation in self._models.values():
            model = find(revocation.model.lower())
            for file in _weights(model) if model else ():
                for key in (file.sha256.lower(), file.url):
                    if key:
                        _first(found, key, revocation)
        return found


def admit_download(job: DownloadJob, revocations: Revocations, find: Lookup) -> Admission | None:
    """The vote on a download; None where nothing is against it."""
    return _vote(revocations.of_file(job.file, find))


def admit_load(load: ModelLoad, revocations: Revocations, find: Lookup) -> Admission | None:
    """The vote on a load; None where nothing is against it.

    A model of unknown origin is looked for under the id it has here: rather one too many refused, which its reason
    explains, than one too few.
    """
    found = revocations.refusal(model=load.origin or load.id)
    for file in load.files:
        found = found or revocations.of_file(DownloadFile(file.name, sha256=file.sha256), find)
    return _vote(found)


def without_revoked(model: ModelRecord, revocations: Revocations) -> ModelRecord | None:
    """The model without the variants that have a revoked file; None when it is revoked, or nothing is left of it."""
    if revocations.refusal(model=model.id):
        return None

    def clean(files: Iterable[DownloadFile]) -> bool:
        return not any(revocations.refusal(file.sha256) for file in files)

    if not model.variants:
        return model if clean(model.files) else None
    kept = [variant for variant in model.variants if clean(variant.files)]
    if len(kept) == len(model.variants):
        return model
    # Its files are those of its first variant.
    return msgspec.structs.replace(model, variants=kept, files=kept[0].files) if kept else None


def unconfirmed(checked_at: float, now: float) -> str:
    """What is to be said of revocations that the hub confirmed last at `checked_at`; "": nothing."""
    if now - checked_at <= LONGEST_UNCONFIRMED:
        return ""
    days = int((now - checked_at) // 86400)
    return f"the hub confirmed its revocations {days} days ago: what it has revoked since is not known here"


def _vote(revocation: Revocation | None) -> Admission | None:
    if revocation is None:
        return None
    since = f" since {revocation.at}" if revocation.at else ""
    return Admission(False, f"the operator of the model list has revoked it{since}: {revocation.reason}")


def _salvaged(data: bytes) -> Revocation | None:
    """What a record that is not in order revokes, if that can be made out; the rest of it is not shown to anybody."""
    try:
        found = msgspec.json.decode(data, type=_Named)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    reason = "it does not say why in a form that can be shown"
    return Revocation(id="", reason=reason, sha256=found.sha256, model=found.model)


def _weights(model: ModelRecord) -> list[DownloadFile]:
    files = [*model.files, *(file for variant in model.variants for file in variant.files)]
    return [file for file in files if file.role == "weights"]


def _first(index: dict[str, Any], key: str, revocation: Revocation) -> None:
    """Of several the one with the smallest id is told, whatever order they came in."""
    there = index.get(key)
    if there is None or revocation.id < there.id:
        index[key] = revocation
