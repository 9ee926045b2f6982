"""How deeply a JSON text nests, told from its bytes. Decodes nothing, and judges nothing but depth."""

from __future__ import annotations

from itertools import accumulate

__all__ = ["MAX_DEPTH", "depth_exceeds"]

MAX_DEPTH = 128
"""Nesting of arrays and objects. Deeper documents have no meaning here and cost a C stack elsewhere."""

_LONG = 8 << 10
"""Bytes past which looking for the few brackets of a usual message beats counting them."""

_OPENING, _CLOSING = b"[{", b"]}"
_STEPS = bytes.maketrans(_OPENING + _CLOSING, b"\x01\x01\xff\xff")
_OTHERS = bytes(set(range(256)) - set(_OPENING + _CLOSING))


def depth_exceeds(message: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether a JSON text nests deeper than `limit`; True or False for what is none. Brackets in strings do not count.

    Nearly every message is too short or has too few brackets for it. For the others strings are cut out (what is left
    of escapes has no quotes) and the brackets summed up, in time linear in their number.
    """
    if len(message) <= 2 * limit or _few_brackets(message, limit):
        return False
    outside = b"".join(message.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = memoryview(outside.translate(_STEPS, _OTHERS)).cast("b")
    return max(accumulate(steps), default=0) > limit


def _few_brackets(message: bytes, limit: int) -> bool:
    if len(message) <= _LONG:
        return message.count(b"[") + message.count(b"{") <= limit
    left = limit
    for bracket in (b"[", b"{"):
        at = message.find(bracket)
        while at >= 0:
            left -= 1
            if left < 0:
                return False
            at = message.find(bracket, at + 1)
    return True
