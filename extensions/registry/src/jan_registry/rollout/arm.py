"""Which of the two lists is served. Pure."""

from __future__ import annotations

from typing import Literal

from jan_core.types import Phase

from ..flags.bucket import within

__all__ = ["Arm", "arm"]

Arm = Literal["dynamic", "builtin"]


def arm(phase: Phase, bucket: int | None, percent: int, *, listed: bool, cooling: bool) -> Arm:
    """`bucket`: this machine's, None when it cannot be told; `percent`: of the machines in `mixed` that are served the
    dynamic list. `listed`: there is a list that was verified or shipped. `cooling`: a local demotion holds.

    fallback: the dynamic list, or the built-in one where there is none or it has failed here lately; mixed: whichever
    the bucket says, the built-in one where there is no other; dynamic: never the built-in one.
    """
    if phase == "dynamic":
        return "dynamic"
    if not listed:
        return "builtin"
    if phase == "fallback":
        return "builtin" if cooling else "dynamic"
    return "dynamic" if bucket is not None and within(bucket, percent) else "builtin"
