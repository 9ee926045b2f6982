"""The place where one installation of a build happens: its folders, its lock, its log, and how commands run there.

It knows nothing of wheels or of the engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .process import run
from .progress import Tracker

__all__ = ["LOG", "Workshop"]

LOG = "install.log"
# They would change what is compiled behind the back of uv's cache, or where things are put.
_SCRUBBED = (
    "CMAKE_ARGS",
    "FORCE_CMAKE",
    "SKBUILD_CMAKE_ARGS",
    "SKBUILD_BUILD_DIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "UV_TARGET",
    "UV_PREFIX",
)


@dataclass(frozen=True)
class Workshop:
    """`stage` is gone after the attempt, whatever becomes of it; `kept` outlives one that failed. `lock`: the
    descriptor of the build's lock, which every command holds, too.
    """

    stage: Path
    kept: Path
    tracker: Tracker
    lock: int

    @property
    def target(self) -> Path:
        """The engine that is being put together."""
        return self.stage / "target"

    async def run(
        self, command: Sequence[str], on_line: Callable[[str], None] = lambda line: None, **env: str
    ) -> tuple[int, str]:
        """Run a command; its status and output, as `process.run` gives them."""
        tmp = str(self.stage / "tmp")  # temporary files go with the stage
        ours = {key: value for key, value in os.environ.items() if key not in _SCRUBBED}
        ours |= {"TMPDIR": tmp, "TEMP": tmp, "TMP": tmp, "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
        return await run(
            command, log=self.stage / LOG, env=ours | env, cwd=self.stage, on_line=on_line, holding=[self.lock]
        )
