"""Texts by which a model sets apart its thoughts and its tool calls. Known to the host, which takes answers apart at
them, and to the worker, which shows them also where a vocabulary has them as control tokens.
"""

from __future__ import annotations

__all__ = ["MARKERS", "PYTHON_TAG", "THINK_CLOSE", "THINK_OPEN", "TOOL_CALLS", "TOOL_CLOSE", "TOOL_OPEN"]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
TOOL_OPEN, TOOL_CLOSE = "<tool_call>", "</tool_call>"
"""Hermes, Qwen and many others."""
TOOL_CALLS = "[TOOL_CALLS]"
"""Mistral's."""
PYTHON_TAG = "<|python_tag|>"
"""Llama 3's, before calls of its built-in tools; some of its kind write it before every call."""

MARKERS = (THINK_OPEN, THINK_CLOSE, TOOL_OPEN, TOOL_CLOSE, TOOL_CALLS, PYTHON_TAG)
