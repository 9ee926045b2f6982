"""What a download in Python took, without the start of Python and its imports."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Self


class Meter:
    """Measures what is done while it is entered; `lap` marks the end of the transfer before it is checked."""

    def __enter__(self) -> Self:
        self.before, self.base = self._resident("VmRSS"), time.process_time()
        self.began = self.lapped = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended, self.computed = time.perf_counter(), time.process_time() - self.base

    def lap(self) -> None:
        self.lapped = time.perf_counter()

    def report(self, path: str, sha256: str) -> str:
        """Seconds, seconds of computing, MiB."""
        lapped = self.lapped if self.lapped != self.began else self.ended
        found = {"seconds": self.ended - self.began, "transfer": lapped - self.began, "computing": self.computed}
        found |= {"peak": self._resident("VmHWM"), "before": self.before}
        return json.dumps({**found, "path": path, "sha256": sha256})

    @staticmethod
    def _resident(name: str) -> float:
        found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1]) / 1024
