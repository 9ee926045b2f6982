"""A process that can be killed while it syncs: told what to do by lines of JSON, it forks for each of them.

`{"folder", "trees", "root", "at"}` -> the child's id when it begins, then its exit status (-9: killed).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3  # noqa: F401
import sys
from pathlib import Path

import filelock  # noqa: F401  (what takes long is done before the fork)
from jan_registry.signed import metadata  # noqa: F401
from jan_registry.signed.folder import FolderFetch
from jan_registry.signed.store import HubStore
from jan_registry.signed.sync import sync


def run(job: dict[str, object]) -> None:
    store = HubStore(Path(str(job["folder"])))
    for tree in list(job["trees"]):  # type: ignore[call-overload]
        sync(store, FolderFetch(Path(tree)), str(job["root"]).encode(), now=lambda: float(str(job["at"])))
    store.close()


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            failed = 1
            with contextlib.suppress(BaseException):
                try:
                    run(job)
                    failed = 0
                except BaseException:
                    import traceback

                    traceback.print_exc()
            os._exit(failed)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
