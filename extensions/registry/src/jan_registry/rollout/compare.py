"""How the dynamic list stands beside the built-in one: coverage, conflicts, order, and what each difference is.

Pure, and whole numbers only, so that a decision made from it can be made again. It does not ask whether the lists are
equal: a newer list is meant to differ. It knows no phases and does not know where lists come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct, field

from jan_core.types import DownloadFile, ModelRecord

__all__ = ["Comparison", "Deviation", "Difference", "compare"]

Difference = Literal["expected", "deprecated", "missing", "conflict"]

WHOLE = 10_000
EXAMPLES = 5
TOP = 10
SHA256 = re.compile(r"[0-9a-f]{64}")


class Deviation(Struct, frozen=True):
    """One difference: `expected` (the newer list says something else), `deprecated` (it says that the model is no
    longer recommended), `missing` (it knows the id not, or no file of it), `conflict` (of one file it says another
    hash or size, so that one of the two lists is wrong)."""

    kind: Difference
    id: str
    what: str


class Comparison(Struct, frozen=True, kw_only=True):
    """`coverage`: the share of the control's ids that the candidate can resolve or has deprecated, per 10,000, rounded
    down; 10,000 where the control has none. `overlap`: how many of the first ten are common, per 10,000 of them.
    `counts`: deviations by kind; `examples`: at most five of each. `invalid`: records of the candidate that nobody
    could use: no or twice the same id, no name, a hash that is none, a negative size."""

    coverage: int
    overlap: int
    invalid: int
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[Deviation] = field(default_factory=list)

    @property
    def conflicts(self) -> int:
        return self.counts.get("conflict", 0)


def compare(
    control: Sequence[ModelRecord],
    candidate: Sequence[ModelRecord],
    *,
    shown: Sequence[str] = (),
    shown_by_candidate: Sequence[str] = (),
) -> Comparison:
    """`control`: the built-in list, whole; `candidate`: what the dynamic list has, at least of the control's ids.
    `shown` are the ids that each of them answers with, best first."""
    theirs = {model.id: model for model in candidate}
    ours = {model.id: model for model in control}
    deviations = [deviation for id in sorted(ours) for deviation in _deviations(ours[id], theirs.get(id))]
    added = sorted(set(shown_by_candidate) - set(ours))
    deviations += [Deviation("expected", id, "shown, and not in the other list") for id in added]
    covered = len(ours) - len({deviation.id for deviation in deviations if deviation.kind == "missing"})
    counts: dict[str, int] = {}
    examples = []
    for deviation in deviations:
        counts[deviation.kind] = counts.get(deviation.kind, 0) + 1
        if counts[deviation.kind] <= EXAMPLES:
            examples.append(deviation)
    return Comparison(
        coverage=covered * WHOLE // len(ours) if ours else WHOLE,
        overlap=_overlap(shown[:TOP], shown_by_candidate[:TOP]),
        invalid=len(candidate) - len(theirs) + sum(not _valid(model) for model in theirs.values()),
        counts=counts,
        examples=examples,
    )


def _deviations(control: ModelRecord, candidate: ModelRecord | None) -> Iterator[Deviation]:
    if candidate is None:
        yield Deviation("missing", control.id, "the dynamic list does not know it")
        return
    before, after = dict(_files(control)), dict(_files(candidate))
    for name in sorted(before.keys() & after.keys()):
        if (before[name].sha256 and after[name].sha256 and before[name].sha256 != after[name].sha256) or (
            before[name].size and after[name].size and before[name].size != after[name].size
        ):
            yield Deviation("conflict", control.id, f"{name}: another hash or size")
    if candidate.extra.get("deprecated"):
        yield Deviation("deprecated", control.id, "no longer recommended")
    elif before and not any(file.url or file.sha256 for file in after.values()):
        yield Deviation("missing", control.id, "the dynamic list names no file of it")
    elif before.keys() != after.keys():
        yield Deviation("expected", control.id, "other files")
    elif (control.name, control.license, control.publisher) != (candidate.name, candidate.license, candidate.publisher):
        yield Deviation("expected", control.id, "described otherwise")


def _files(model: ModelRecord) -> Iterator[tuple[str, DownloadFile]]:
    """Every file of a model by its name; of two with one name the first that says its hash counts."""
    files = [*model.files, *(file for variant in model.variants for file in variant.files)]
    for file in sorted(files, key=lambda file: (file.name, bool(file.sha256))):
        yield file.name, file


def _overlap(ours: Sequence[str], theirs: Sequence[str]) -> int:
    most = min(len(ours), len(theirs))
    return len(set(ours) & set(theirs)) * WHOLE // most if most else (0 if ours or theirs else WHOLE)


def _valid(model: ModelRecord) -> bool:
    return bool(model.id and model.name) and all(
        file.name and file.size >= 0 and (not file.sha256 or SHA256.fullmatch(file.sha256)) for _, file in _files(model)
    )
