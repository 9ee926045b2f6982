"""What a person may hand to the operator: counts of whole days, and nothing that says whose they are.

No id, no name of a model, no time of day, no version, no locale. Nothing is sent anywhere: somebody saves a file and
gives it away. The operator's side adds many of them up (`fleet.periods`). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from .arm import Arm
from .observations import Entered, Pair, Row, Serve

__all__ = ["Export", "ExportDay", "export"]

DAY = 86_400
Count = Annotated[int, Meta(ge=0, le=10**12)]


class ExportDay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole day in the phase `mixed`. `day`: days since 1970-01-01, UTC; `percent`: of all machines that were to have
    the dynamic list; `arm`: which list was served; `answers` and `errors` of it; `conflicts` between the lists;
    `demoted`: this machine went back on that day."""

    day: Annotated[int, Meta(ge=0, le=10**6)]
    percent: Annotated[int, Meta(ge=0, le=100)]
    arm: Arm
    answers: Count
    errors: Count
    conflicts: Count
    demoted: bool

    @property
    def failed(self) -> bool:
        """Whether the list that was served failed this machine."""
        return self.errors > 0 or (self.arm == "dynamic" and (self.conflicts > 0 or self.demoted))


class Export(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine's days, oldest first, each at most once."""

    schema: Literal[1] = 1
    days: Annotated[list[ExportDay], Meta(max_length=400)] = field(default_factory=list)


def export(history: Sequence[Row], serves: Sequence[Row], pairs: Sequence[Row], now: float) -> Export:
    """Of the days that are over, and throughout which `mixed` was in force at one percentage, or until the machine went
    back: on others which list is served was not drawn by lot. The rows are newest first."""
    entered = [(row.at // DAY, row.seen) for row in reversed(history) if isinstance(row.seen, Entered)]
    days = []
    for day in sorted({row.at // DAY for row in serves} - {int(now) // DAY}):
        began = next((seen for at, seen in reversed(entered) if at < day), None)
        changes = [seen for at, seen in entered if at == day]
        answered = [row.seen for row in serves if row.at // DAY == day and isinstance(row.seen, Serve)]
        if began is None or began.phase != "mixed" or not answered or (changes and changes[0].level != "demotion"):
            continue
        arm: Arm = "dynamic" if any(seen.arm == "dynamic" for seen in answered) else "builtin"
        own = [seen for seen in answered if seen.arm == arm]
        compared = [row.seen for row in pairs if row.at // DAY == day and isinstance(row.seen, Pair)]
        days.append(
            ExportDay(
                day=day,
                percent=began.percent,
                arm=arm,
                answers=sum(seen.count for seen in own),
                errors=sum(seen.errors for seen in own),
                conflicts=sum(max(0, seen.conflicts) for seen in compared),
                demoted=bool(changes),
            )
        )
    return Export(days=days)
