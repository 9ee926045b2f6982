"""What SQLite complains of, in words a person can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jan_core import JanError, StorageError

from .errors import IncognitoFull

if TYPE_CHECKING:
    import sqlite3

__all__ = ["storage_error"]

_BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = (
    5,
    6,
    7,
    8,
    10,
    11,
    13,
    14,
    26,
)


def storage_error(error: sqlite3.Error, where: str, *, memory_limit: int = 0) -> JanError:
    """The typed error for one of SQLite's (result codes: sqlite.org/rescode.html).

    `where` names the database; `memory_limit` in bytes says that it lives in memory.
    """
    code = getattr(error, "sqlite_errorcode", 0) or 0
    primary = code & 0xFF  # extended codes carry the primary one in their low byte
    if primary == _FULL and memory_limit:
        return IncognitoFull(
            f"the {memory_limit >> 20} MiB for incognito threads are used up: delete one", limit=memory_limit
        )
    advice = {
        _BUSY: "another process holds it: end that, or try again",
        _LOCKED: "another process holds it: end that, or try again",
        _NOMEM: "there is not enough memory",
        _READONLY: "it is read-only: check the permissions of the file and its folder",
        _IOERR: "the disk reports an error: check it, and copy the data folder to another one",
        _CORRUPT: "the file is damaged: end the application, keep a copy, and rescue what is there with "
        "`sqlite3 FILE .recover`; moved away, a new one is begun",
        _NOTADB: "the file is not a database or is damaged: end the application and move it away; a new one is begun",
        _FULL: "the disk is full: free some space and try again; what was acknowledged is kept",
        _CANTOPEN: "it cannot be opened: check that its folder exists and is yours",
    }.get(primary, str(error))
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    return StorageError(f"{where}: {advice}", path=where, sqlite=name)
