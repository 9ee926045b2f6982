"""Plain httpx on one event loop, into a file, with SHA-256: one connection, or several that fetch ranges.

    python with_httpx.py URL FILE SIZE CONNECTIONS

With one connection the whole file is hashed as it comes. With several, each range of 16 MiB is, and nothing hashes the
whole: less work than one who needs the file's own SHA-256 has, and what an engine with a list of hashes would do.
Prints what it took as JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Iterator

import httpx
from meter import Meter

CHUNK = 1 << 20
RANGE = 16 << 20


async def one(url: str, fd: int, size: int) -> str:
    digest, at = hashlib.sha256(), 0
    async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", url) as response:
        response.raise_for_status()
        async for data in response.aiter_raw(CHUNK):
            digest.update(data)
            os.pwrite(fd, data, at)
            at += len(data)
    assert at == size
    return digest.hexdigest()


async def several(url: str, fd: int, size: int, connections: int) -> str:
    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        ranges = iter(range(0, size, RANGE))
        await asyncio.gather(*(_worker(client, url, fd, size, ranges) for _ in range(connections)))
    return ""


async def _worker(client: httpx.AsyncClient, url: str, fd: int, size: int, ranges: Iterator[int]) -> None:
    for first in ranges:
        end, at, digest = min(first + RANGE, size), first, hashlib.sha256()
        async with client.stream("GET", url, headers={"Range": f"bytes={first}-{end - 1}"}) as response:
            assert response.status_code == 206, response.status_code
            async for data in response.aiter_raw(CHUNK):
                digest.update(data)
                os.pwrite(fd, data, at)
                at += len(data)
        digest.digest()
        assert at == end


def main(url: str, path: str, size: str, connections: str) -> None:
    with Meter() as meter:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
        os.posix_fallocate(fd, 0, int(size))
        if connections == "1":
            found = asyncio.run(one(url, fd, int(size)))
        else:
            found = asyncio.run(several(url, fd, int(size), int(connections)))
        os.close(fd)
    print(meter.report(path, found))


if __name__ == "__main__":
    main(*sys.argv[1:])
