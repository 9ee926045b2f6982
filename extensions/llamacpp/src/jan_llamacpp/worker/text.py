"""From a token's bytes to text that may be shown: whole characters only, and never past a stop string.

Pure: knows nothing of tokens, models or pipes.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

__all__ = ["TextStream"]


class TextStream:
    """Bytes in, text out. Text is held back only while it is an unfinished character or could begin a stop
    string.

    The first stop string is the one that *ends* first (of several ending together, the longest): this depends
    on the text alone, not on how it was cut into tokens. The stop string itself is never part of the text.

    Bytes that are not UTF-8 become U+FFFD, as everywhere; a character that is cut off by the end of the
    generation is left out instead, because it was not wrong, only unfinished.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes) -> str:
        """The text that is now certain. Empty for ever once a stop string came (`stopped`)."""
        if self.stopped:
            return ""
        text = self._decoder.decode(data)
        if not self._stop or not text:
            return text
        text = self._held + text
        cut = self._first_stop(text)
        if cut is not None:
            self.stopped, self._held = True, ""
            return text[:cut]
        keep = self._unsafe_tail(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The held text, when the generation ends without a stop string."""
        held, self._held = self._held, ""
        return held

    def _first_stop(self, text: str) -> int | None:
        """Where the first stop string begins."""
        found = ((at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0)
        first = min(found, default=None)
        return None if first is None else first[1]

    def _unsafe_tail(self, text: str) -> int:
        """How many of the last characters could be the beginning of a stop string."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:size]):
                    longest = size
                    break
        return longest
