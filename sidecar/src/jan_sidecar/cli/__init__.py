"""The command line, `jan`: for people, over the same methods as every other frontend.

`app.py` is the tree of commands, `session.py` opens the host and runs one piece of work in it, `output.py` and
`progress.py` are what is seen; one file for each group of commands. It holds no logic of its own: what a command
does is a method's doing. Each command imports what it needs when it runs, so that `jan --help` starts at once.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point of the executable `jan`."""
    try:
        from .app import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules are still being imported: nothing has begun that would have to end
        status = 130
    sys.exit(status)
