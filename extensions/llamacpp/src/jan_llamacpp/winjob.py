"""A Windows job object that ends a process when this one ends, however it ends. Untested: written from Microsoft's
documentation (`CreateJobObjectW`, `JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`).

The second line behind the pipe's end, as PR_SET_PDEATHSIG is on Linux (`worker/boot.py`): it also ends a worker whose
threads are all stuck in a driver. The handle is not inherited, so it is closed when this process is no more.
"""

from __future__ import annotations

import sys

__all__ = ["tie"]

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _EXTENDED_LIMITS = 9
    _KILL_ON_CLOSE = 0x2000
    _SET_QUOTA, _TERMINATE = 0x0100, 0x0001

    class _Basic(ctypes.Structure):
        _fields_ = (
            ("per_process_user_time", ctypes.c_int64),
            ("per_job_user_time", ctypes.c_int64),
            ("limit_flags", wintypes.DWORD),
            ("minimum_working_set", ctypes.c_size_t),
            ("maximum_working_set", ctypes.c_size_t),
            ("active_processes", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority_class", wintypes.DWORD),
            ("scheduling_class", wintypes.DWORD),
        )

    class _Extended(ctypes.Structure):
        _fields_ = (
            ("basic", _Basic),
            ("io_counters", ctypes.c_uint64 * 6),
            ("process_memory", ctypes.c_size_t),
            ("job_memory", ctypes.c_size_t),
            ("peak_process_memory", ctypes.c_size_t),
            ("peak_job_memory", ctypes.c_size_t),
        )

    class _Job:
        """Closing it, or losing it, ends what is in it."""

        def __init__(self) -> None:
            self._kernel = ctypes.WinDLL("kernel32", use_last_error=True)
            for name in ("CreateJobObjectW", "OpenProcess"):
                getattr(self._kernel, name).restype = wintypes.HANDLE
            self._handle = wintypes.HANDLE(self._kernel.CreateJobObjectW(None, None))
            limits = _Extended()
            limits.basic.limit_flags = _KILL_ON_CLOSE
            size = ctypes.sizeof(limits)
            if not self._kernel.SetInformationJobObject(self._handle, _EXTENDED_LIMITS, ctypes.byref(limits), size):
                raise ctypes.WinError(ctypes.get_last_error())

        def add(self, pid: int) -> None:
            process = wintypes.HANDLE(self._kernel.OpenProcess(_SET_QUOTA | _TERMINATE, False, pid))
            try:
                if not process or not self._kernel.AssignProcessToJobObject(self._handle, process):
                    raise ctypes.WinError(ctypes.get_last_error())
            finally:
                if process:
                    self._kernel.CloseHandle(process)

        def __del__(self) -> None:
            self._kernel.CloseHandle(self._handle)


def tie(pid: int) -> object:
    """End process `pid` when the object this returns, or this process, is no more. Does nothing but on Windows.

    Raises OSError.
    """
    if sys.platform == "win32":
        job = _Job()
        job.add(pid)
        return job
    return None
