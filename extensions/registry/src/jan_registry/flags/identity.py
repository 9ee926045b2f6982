"""The random number that buckets are drawn from. It is made on this machine and never leaves it."""

from __future__ import annotations

from ..sqlite import Database

__all__ = ["install_id"]


def install_id(db: Database) -> str:
    """128 random bits as 32 hex digits, made once for an installation; all processes get the same.

    Blocks. Raises StorageError.
    """
    if db.exists:
        with db.read() as reading:
            row = reading.execute("SELECT value FROM identity WHERE name = 'install'").fetchone()
        if row is not None:
            return str(row[0])
    import secrets

    with db.write() as writing:  # another process may have been first: then its number stands
        writing.execute("INSERT OR IGNORE INTO identity VALUES ('install', ?)", [secrets.token_hex(16)])
        row = writing.execute("SELECT value FROM identity WHERE name = 'install'").fetchone()
    return str(row[0])
