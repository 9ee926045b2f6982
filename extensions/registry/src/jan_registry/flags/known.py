"""The flags that this program reads: their names, what they may be, and what holds when nobody says anything.

A value that does not fit is no answer, wherever it comes from. `safe` is what holds when an administrator has said
something that cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass

from jan_core.types import Phase

__all__ = [
    "CEILING",
    "EXPERIMENTS",
    "KNOWN",
    "PERCENT",
    "PHASE",
    "PHASES",
    "REFRESH",
    "SHADOW",
    "Known",
    "Value",
    "fit",
    "fit_text",
]

Value = bool | int | str

PHASE = "registry.phase"
CEILING = "registry.phase.ceiling"
PERCENT = "registry.mixed.percent"
SHADOW = "registry.shadow.enabled"
REFRESH = "registry.refresh_s"
EXPERIMENTS = "experiments.enabled"

PHASES: tuple[Phase, ...] = ("fallback", "mixed", "dynamic")
"""From the safest to the last."""


@dataclass(frozen=True, slots=True)
class Known:
    """`choices` of a text, `least` and `most` of a number; `safe` None: there is no value that is safer."""

    default: Value
    safe: Value | None
    about: str
    choices: tuple[str, ...] = ()
    least: int = 0
    most: int = 0


KNOWN: dict[str, Known] = {
    PHASE: Known("fallback", "fallback", "the phase the operator asks for", choices=PHASES),
    CEILING: Known("fallback", "fallback", "how far evidence of this machine may promote it", choices=PHASES),
    PERCENT: Known(5, 0, "in `mixed`, the share of machines that are served the dynamic list", most=100),
    SHADOW: Known(True, False, "in `mixed`, whether the arm that is not served is measured too"),
    REFRESH: Known(4 * 3600, None, "seconds between two refreshes in the background", most=30 * 86400),
    EXPERIMENTS: Known(True, False, "whether this machine takes part in experiments"),
}


def fit(name: str, value: object) -> Value:
    """`value`, when the flag may have it. Raises ValueError, also for a flag that nobody knows."""
    known = KNOWN.get(name)
    if known is None:
        raise ValueError(f"{name}: there is no such flag")
    if isinstance(known.default, bool):
        if isinstance(value, bool):
            return value
        raise ValueError(f"{name}: must be true or false")
    if isinstance(known.default, int):
        if isinstance(value, int) and not isinstance(value, bool) and known.least <= value <= known.most:
            return value
        raise ValueError(f"{name}: must be a whole number from {known.least} to {known.most}")
    if isinstance(value, str) and value in known.choices:
        return value
    raise ValueError(f"{name}: must be one of {', '.join(known.choices)}")


def fit_text(name: str, text: str) -> Value:
    """As `fit`, for a value written as text: `true` or `false`, a number, a word."""
    known = KNOWN.get(name)
    if known is not None and isinstance(known.default, bool):
        return fit(name, {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower()))
    if known is not None and isinstance(known.default, int):
        return fit(name, int(text) if text.strip().isdecimal() and len(text) < 20 else None)
    return fit(name, text.strip().lower())
