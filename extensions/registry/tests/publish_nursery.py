"""A process that forks publishers, each to be killed at some point of its work: see `test_publish_crash.py`.

Reads a line for each: what `models` should hold, and either the `step` (of those that change the disk) at which the
publisher kills itself, or the seconds `after` which it is killed; answers its exit code, -9 when it was killed. Forking
after the imports makes a hundred crashes cost what one process start does.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jan_registry.collections import canonical
from jan_registry.publish.errors import PublishBusy
from jan_registry.publish.keys import Keys, generate
from jan_registry.publish.tree import plan, publish

BUSY = 75  # EX_TEMPFAIL


def die_at(step: int) -> None:
    """SIGKILL to this process when the disk is about to be changed for the `step`th time."""
    left = iter(range(step))

    def before(function: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return counted

    os.fsync, os.mkdir, os.unlink, os.rmdir = map(before, (os.fsync, os.mkdir, os.unlink, os.rmdir))
    Path.replace = before(Path.replace)  # type: ignore[method-assign]


def main(tree: Path, names: list[str]) -> None:
    keys = Keys(generate(hashlib.sha256(name.encode()).digest()) for name in names)
    plan(tree, {}, now=time.time(), keys=keys)  # imports everything, once
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            die_at(job.get("step", sys.maxsize))
            models = [canonical({"id": id, "name": id}) for id in job["models"]]
            try:
                publish(tree, keys, {"models": models}, now=time.time())
            except PublishBusy:
                os._exit(BUSY)
            os._exit(0)
        if "after" in job:
            time.sleep(job["after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


main(Path(sys.argv[1]), sys.argv[2:])
