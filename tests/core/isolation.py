"""The isolated extension of the tests."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PROJECT"]

PROJECT = Path(__file__).parent / "isolated"
"""Its project; it owns the methods `test.` (the sample) and `rude.`."""
