"""What somebody else's program, a chat template, may take: seconds and memory, and the typed error for all it does.

Runs in the worker. No sandbox: what a template can reach is `template.py`'s business. The memory limit works on Linux
only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import weakref

__all__ = ["MAX_MEMORY", "MAX_SECONDS", "Limits", "TemplateError"]

MAX_SECONDS = 1.5
MAX_MEMORY = 512 * 1024 * 1024


class TemplateError(Exception):
    """A template cannot be used, or not with these messages.

    `reason` is one of `too_large`, `syntax`, `unsafe`, `refused`, `too_slow`, `too_much_memory`, `failed`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _TooSlow(BaseException):
    """Thrown into the rendering thread when its time is over. No Exception: nothing on the way may swallow it."""


class Limits:
    """Limits on time and memory for the body of a `with`; what Jinja raises in it becomes TemplateError."""

    def __init__(self) -> None:
        self._memory = _MemoryLimit(MAX_MEMORY)
        self._time: _Alarm | _Watchdog

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._time = _Alarm() if main and hasattr(signal, "setitimer") else _Watchdog()
        self._memory.set()
        self._time.start(MAX_SECONDS)

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        late: BaseException | None = None
        try:
            self._time.stop()
        except _TooSlow as too_slow:  # it came while it was being stopped
            late = too_slow
        self._memory.lift()
        error = late or error
        if error is not None:
            raise _typed(error) from error


def _typed(error: BaseException) -> BaseException:
    """The error to tell of for whatever a stranger's program may raise."""
    from jinja2.exceptions import SecurityError, TemplateSyntaxError

    match error:
        case _TooSlow():
            return TemplateError("too_slow", f"the chat template ran longer than {MAX_SECONDS} s")
        case MemoryError():
            return TemplateError("too_much_memory", "the chat template takes too much memory")
        case SecurityError():
            return TemplateError("unsafe", f"the chat template does what it must not: {error}")
        case TemplateSyntaxError():
            return TemplateError("syntax", f"the chat template has an error in line {error.lineno}: {error}")
        case TemplateError():
            return error
        case Exception():
            return TemplateError("failed", f"the chat template failed: {type(error).__name__}: {error}")
    return error


class _Alarm:
    """Raises `_TooSlow` in the main thread by a timer signal: no other thread, so nothing to wait for.

    Reaches Python code only; long C calls are what the limits on numbers and memory are for.
    """

    def start(self, seconds: float) -> None:
        self._before = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def _ring(_number: int, _frame: object) -> None:
        raise _TooSlow


class _Watchdog:
    """The same where there is no timer signal (Windows, threads): another thread throws it into this one."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._bark)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._stopped = True

    def _bark(self) -> None:
        with self._lock:
            if not self._stopped:
                thread, error = ctypes.c_ulong(self._thread), ctypes.py_object(_TooSlow)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)


class _MemoryLimit:
    """Lets the address space grow by at most `extra` bytes from `set` to `lift`. Linux only; elsewhere no limit.

    Other threads are under it meanwhile: what a hostile template can do with that is to end its own worker.
    """

    def __init__(self, extra: int) -> None:
        self._extra = extra
        self._before: tuple[int, int] | None = None
        self._statm: int | None = None
        if sys.platform == "linux":
            # Kept open: every call that may block costs a wait for the interpreter's lock.
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._statm)

    def set(self) -> None:
        if self._statm is None:
            return
        import resource

        now = int(os.pread(self._statm, 64, 0).split()[0]) * resource.getpagesize()
        self._before = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = now + self._extra
        if soft != resource.RLIM_INFINITY:
            wanted = min(wanted, soft)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))

    def lift(self) -> None:
        if self._before is None:
            return
        import resource

        resource.setrlimit(resource.RLIMIT_AS, self._before)
