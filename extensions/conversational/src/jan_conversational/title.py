"""The title of a thread nobody gave one: the first line of its first user message, cut at a word."""

from __future__ import annotations

__all__ = ["derive_title"]


def derive_title(text: str, limit: int = 60) -> str:
    """At most `limit` characters, the ellipsis included; empty when there is nothing to show."""
    for line in text[:10_000].splitlines():
        words = "".join(c if c.isprintable() else " " for c in line).split()
        if words:
            return _cut(" ".join(words), limit)
    return ""


def _cut(line: str, limit: int) -> str:
    if len(line) <= limit:
        return line
    head, _, _ = line[:limit].rpartition(" ")
    # A single word longer than the title (or a script without spaces) is cut where the title ends.
    return (head or line[: limit - 1]) + "…"
