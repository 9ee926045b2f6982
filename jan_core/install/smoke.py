"""Loads the extensions of a staged overlay in a child process before they may come into this one.

The child imports, checks, activates and retires them in a host of its own, on a data folder that is thrown away. What
crashes, hangs, exits or fails there is refused with the reason. That it went well there is no promise: a smoke test.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InstallFailed
from . import command
from .overlay import Overlay

__all__ = ["LIMIT", "smoke_load"]

log = logging.getLogger(__name__)

LIMIT = 60.0
"""Seconds for importing, activating and retiring all of them: a cold disk is slow."""

_PROBE = Path(__file__).with_name("probe.py")


async def smoke_load(stage: Overlay, ids: Sequence[str], path: Sequence[str], limit: float = LIMIT) -> None:
    """Load extensions out of a staged overlay; `path` is what they find beside it. Raises InstallFailed."""
    import anyio

    scratch = stage.folder / "smoke"
    scratch.mkdir()
    request, answer = scratch / "request.json", scratch / "answer.json"
    data_dir = str(scratch / "data")
    wanted = {"path": [*path, str(stage.site)], "ids": ids, "dataDir": data_dir, "answer": str(answer)}
    request.write_text(json.dumps(wanted), "utf-8")
    env = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    try:
        with anyio.fail_after(limit):
            # Not a byte of bytecode: it would name the staged folder.
            status, output = await command.run(
                [sys.executable, "-I", "-B", "-X", "utf8", str(_PROBE), str(request)], env=env, cwd=scratch
            )
    except TimeoutError:
        raise _refused(ids, f"it did not come up and go down again within {limit:g} s") from None
    if output.strip():
        log.info("the smoke load of %s printed:\n%s", ", ".join(ids), output)
    try:
        answers: dict[str, Any] = json.loads(answer.read_text("utf-8"))
    except FileNotFoundError:
        raise _refused(ids, _ending(status)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(ids, f"the child process left an answer that cannot be read: {error}") from None
    for id in ids:
        failure = answers.get(id, {"stage": "load", "message": "the child process said nothing of it"})
        if failure is not None:
            failure["file"] = str(failure.get("file", "")).removeprefix(f"{stage.site}{os.sep}")
            where = f" ({failure['file']}:{failure.get('line', 0)})" if failure["file"] else ""
            raise _refused([id], f"{failure.get('stage')}: {failure.get('message')}{where}", failure=failure)
    if status:
        raise _refused(ids, _ending(status))


def _refused(ids: Sequence[str], why: str, **data: Any) -> InstallFailed:
    return InstallFailed(
        f"{', '.join(ids)} was tried in a process of its own and does not work: {why}", reason="smoke", **data
    )


def _ending(status: int) -> str:
    if status > 128 and status - 128 in list(signal.Signals):
        return f"the process was ended by {signal.Signals(status - 128).name}"
    return f"the process ended with status {status} before it was up"
