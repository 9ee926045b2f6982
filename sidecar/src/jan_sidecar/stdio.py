"""`jan-sidecar`: what a desktop shell spawns. JSON-RPC on standard input and output, logs on standard error.

It ends when the client says `exit`, closes standard input, or dies; workers and children end with it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from jan_core.rpc import stdio

__all__ = ["main"]

EXIT_LIMIT = 2.5
"""Seconds from the end of the conversation to the end of the process, whatever an extension still does."""


def main(arguments: list[str] | None = None) -> int:
    """Run the sidecar on this process's standard input and output."""
    parser = argparse.ArgumentParser(
        prog="jan-sidecar", description="The backend of a local-first AI app: JSON-RPC on stdio."
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where everything is kept (default: JAN_DATA_DIR, else the user's data folder)",
    )
    parser.add_argument("--safe-mode", action="store_true", help="start first-party extensions only")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more to standard error")
    options = parser.parse_args(arguments)
    read, write = stdio.claim()  # before anything of an extension is imported
    # A thread that computes in pure Python delays every answer by one switch interval; 5 ms is the default.
    sys.setswitchinterval(0.0005)
    from .runtime import data_folder, log_to

    folder = data_folder(options.data_dir)
    log_to(folder, console=logging.INFO if options.verbose else logging.WARNING)
    try:
        code = asyncio.run(_serve(folder, read, write, options.safe_mode))
    except asyncio.CancelledError:  # by SIGTERM, after the host was left properly
        code = 0
    except KeyboardInterrupt:
        code = 130
    _leave(code)
    return code


async def _serve(folder: Path, read: int, write: int, safe_mode: bool) -> int:
    from jan_core import StorageError

    from .runtime import open_host

    try:
        async with open_host(folder, safe_mode=safe_mode, activate=False) as host:
            _end_on_sigterm()
            await stdio.serve(host, read, write)
            asyncio.get_running_loop().call_later(EXIT_LIMIT, _leave, 0)
    except StorageError as error:
        print(f"jan-sidecar: {error}", file=sys.stderr)
        return 1
    return 0


def _end_on_sigterm() -> None:
    """SIGTERM ends as an interrupt does: the host is left properly."""
    if sys.platform != "win32":
        import signal

        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _leave(code: int) -> None:
    """End the process now. A thread in a blocking read on a terminal or a hung extension cannot hold it."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())
