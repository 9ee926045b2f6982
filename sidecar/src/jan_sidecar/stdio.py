"""`jan-sidecar`: what a desktop shell spawns. JSON-RPC on standard input and output, logs on standard error.

It ends when the client says `exit`, closes standard input, or dies; workers and children end with it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from jan_core.rpc import stdio

from .departure import Departure, leave

__all__ = ["main"]


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
    parser.add_argument("--watch", action="store_true", help="reload extensions when their files change")
    parser.add_argument(
        "--dev",
        metavar="FOLDER",
        type=Path,
        action="append",
        default=[],
        help="also run the extension in this project's folder, and reload it when it changes (may be repeated)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more to standard error")
    options = parser.parse_args(arguments)
    try:
        read, write = stdio.claim()  # before anything of an extension is imported
    except RuntimeError as error:
        parser.exit(1, f"jan-sidecar: {error}\n")
    # A thread that computes in pure Python delays every answer by one switch interval; 5 ms is the default.
    sys.setswitchinterval(0.0005)
    from .runtime import data_folder, log_to

    folder = data_folder(options.data_dir)
    log_to(folder, console=logging.INFO if options.verbose else logging.WARNING)
    departure = Departure()
    departure.watch(read)
    try:
        code = asyncio.run(_serve(folder, read, write, options, departure))
    except asyncio.CancelledError:  # by SIGTERM, after the host was left properly
        code = 0
    except KeyboardInterrupt:
        code = 130
    leave(code)
    return code


async def _serve(folder: Path, read: int, write: int, options: argparse.Namespace, departure: Departure) -> int:
    from jan_core import StorageError
    from jan_core.manifest import ManifestError

    from .runtime import open_host

    try:
        async with open_host(
            folder,
            safe_mode=options.safe_mode,
            activate=False,
            watch=options.watch or bool(options.dev),
            folders=options.dev,
        ) as host:
            _end_on_sigterm(departure)
            try:
                await stdio.serve(host, read, write)
            finally:
                departure.begin()
    except (StorageError, ManifestError) as error:
        print(f"jan-sidecar: {error}", file=sys.stderr)
        return 1
    return 0


def _end_on_sigterm(departure: Departure) -> None:
    """SIGTERM ends as an interrupt does: the host is left properly, or in time."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end(number: int, frame: object) -> None:
        # An ordinary handler and not the loop's: it runs also while an extension blocks the loop.
        departure.begin()
        loop.call_soon_threadsafe(task.cancel)

    signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    raise SystemExit(main())
