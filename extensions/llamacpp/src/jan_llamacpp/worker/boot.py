"""What the host starts: `python -P boot.py ENGINE_DIR PACKAGE_ROOT MORE_PATHS…`.

Ties this process to its host, puts the engine's directory first on the path (its numpy and jinja2 belong to its build),
then this package's own root, whatever the working directory or the environment say, and hands over to `main`. Runs as a
script: nothing of the package can be imported before the path is right. The pipe is claimed by `main`, before it loads
native code.
"""

import importlib
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"


def boot(arguments: list[str]) -> None:
    engine_dir, package_root, *more = arguments
    # Ctrl-C in a terminal reaches the whole group; it is the host that decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        tie()
    sys.path[:0] = [engine_dir, package_root]
    sys.path.extend(path for path in more if path not in sys.path)
    # By name, in this interpreter of its own: the host refuses to reload a package that imports itself absolutely.
    importlib.import_module("jan_llamacpp.worker.main").main(engine_dir)


def tie() -> None:
    """Die with the host, and before it: see prctl(2) and proc(5).

    The pipe's end tells of the host's death, too (also of one before this), but only a process that can still run reads
    it. The signal comes when the *thread* ends that started this process: the one of the host's event loop, without
    which nobody asks any more. And when memory runs out, it is the worker that holds it whom the kernel shall take.
    """
    import ctypes

    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, "ascii")
    except (OSError, AttributeError):  # a system that forbids it
        pass


if __name__ == "__main__":
    boot(sys.argv[1:])
