"""A list of flags, and what one of them is for one machine. Pure: no clock, no disk, and nothing of OpenFeature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..collections import Flag
from ..targeting import Facts, matches
from .bucket import FLAGS, bucket, within
from .known import Value

__all__ = ["Evaluation", "FlagList", "evaluate", "read_flags"]


@dataclass(frozen=True, eq=False, slots=True)
class FlagList:
    """The flags of one state of the collection. `expires_at`: the expiry of the metadata that vouches for them, in
    seconds since the epoch; 0: never. Two lists are the same one only when they are the same object."""

    flags: Mapping[str, Flag] = field(default_factory=dict)
    expires_at: float = 0.0

    def stale(self, now: float) -> bool:
        return 0 < self.expires_at <= now


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`reason` is OpenFeature's word for it. `rule`: the place of the rule that decided, -1 for none."""

    value: Value
    reason: Literal["STATIC", "TARGETING_MATCH", "SPLIT", "DEFAULT"]
    rule: int = -1


def read_flags(records: Iterable[bytes], *, expires_at: float = 0.0) -> FlagList:
    """The flags among the records of the collection `flags`. One of a kind or form that this program does not know is
    passed over: no flag is better than one that is misread."""
    from ..collections.check import check

    flags = {}
    for record in records:
        try:
            entry = check("flags", record)
        except ValueError:
            continue
        if isinstance(entry, Flag):
            flags[entry.id] = entry
    return FlagList(flags, expires_at)


def evaluate(flag: Flag, facts: Facts, unit: Callable[[], str | None]) -> Evaluation:
    """The first rule whose target matches and whose share has this machine, else the flag's value. All rules draw from
    one bucket. `unit` is asked when there is something to draw; None: the bucket cannot be told, and only shares of a
    hundred percent have this machine."""
    for place, rule in enumerate(flag.rules):
        if not matches(rule.target, facts):
            continue
        if rule.percent >= 100:
            return Evaluation(rule.value, "TARGETING_MATCH" if rule.target else "STATIC", place)
        drawn_from = unit()
        if drawn_from is not None and within(bucket(FLAGS, flag.salt or flag.id, drawn_from), rule.percent):
            return Evaluation(rule.value, "SPLIT", place)
    return Evaluation(flag.value, "DEFAULT" if flag.rules else "STATIC")
