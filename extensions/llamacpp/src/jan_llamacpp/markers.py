"""Texts by which models set apart their thoughts and their tool calls. Known to the host, which takes answers apart at
them, and to the worker, which shows them also where a vocabulary has them as control tokens.
"""

from __future__ import annotations

from .toolcalls.forms import FORMS

__all__ = ["MARKERS", "THINK_CLOSE", "THINK_OPEN"]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
MARKERS = frozenset({THINK_OPEN, THINK_CLOSE}.union(*(form.markers() for form in FORMS.values())))
