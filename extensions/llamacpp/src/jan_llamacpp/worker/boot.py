"""What the host starts: `python -P boot.py ENGINE_DIR PACKAGE_ROOT MORE_PATHS…`.

Puts the engine's directory first on the path (its numpy and jinja2 belong to its build), then this package's
own root, whatever the working directory or the environment say, and hands over to `main`. Runs as a script:
nothing of the package can be imported before the path is right. The pipe is claimed by `main`, before it
loads native code.
"""

import importlib
import signal
import sys


def boot(arguments: list[str]) -> None:
    engine_dir, package_root, *more = arguments
    # Ctrl-C in a terminal reaches the whole group; it is the host that decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:0] = [engine_dir, package_root]
    sys.path.extend(path for path in more if path not in sys.path)
    # By name, in this interpreter of its own: the host refuses to reload a package that imports itself absolutely.
    importlib.import_module("jan_llamacpp.worker.main").main(engine_dir)


if __name__ == "__main__":
    boot(sys.argv[1:])
