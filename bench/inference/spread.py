"""The middle and the ends of a few numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from report import figure

__all__ = ["median", "percentile", "spread"]


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of them are at most; the median for 0.5."""
    if share == 0.5:
        return median(values)
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def spread(values: Sequence[float]) -> str:
    """The median and, where there are several, the least and the most."""
    middle = figure(median(values))
    return f"{middle} ({figure(min(values))} to {figure(max(values))})" if len(values) > 1 else middle
