"""Times as tables show them: percentiles in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

from report import figure

__all__ = ["PERCENTILES", "percentile", "percentiles"]

PERCENTILES = ["p50, ms", "p95", "p99", "most"]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of them are at most."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def percentiles(seconds: Sequence[float]) -> list[str]:
    """The cells below PERCENTILES."""
    found = [percentile(seconds, share) for share in (0.5, 0.95, 0.99)] + [max(seconds, default=None)]
    return [figure(value * 1e3 if value is not None else None) for value in found]
