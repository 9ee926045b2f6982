# development only: stands in for the engine until it lands
from __future__ import annotations
import time, hashlib, threading
from dataclasses import dataclass
from typing import Any
from ..records import Job, Piece
from ..status import Status
from ..outcome import NO_ERROR
from ..errors import *
from .stop import Stopped
from ..storage.checkpoint import Superseded
@dataclass
class Transfer:
    job: Job; sources: Any; hashes: Any; journal: Any; store: Any; network: Any; limits: Any; options: Any; reserve: int; report: Any; more_sources: Any; stop: Any
    def up(self, **c):
        j = self.journal.update(self.job.id, self.job.run, **c)
        if j is None: raise Superseded
        self.job = j
        self.report(Status(j, written=j.offset, connections=1, pieces="1a"))
    def run(self):
        job=self.job
        try:
            body = self.network.open(self.sources[0], first=job.offset, size=job.size)
        except Exception:
            self.stop.check(); raise
        p = self.store.open_partial(job.partial, job.size)
        at = job.offset
        last=0
        buf = memoryview(bytearray(65536))
        try:
            while True:
                try:
                    n = body.readinto(buf[:self.limits.grain(65536)])
                except Exception:
                    self.stop.check(); raise
                if self.stop.is_set(): break
                if not n: break
                self.limits.spend(n, self.stop.wait)
                p.write(buf[:n], at); at += n
                if time.monotonic()-last > .1:
                    p.sync(); self.up(offset=at, high=max(at,self.job.high), total=job.size or max(0,body.total)); last=time.monotonic()
            p.sync(); self.up(offset=at, high=max(at,self.job.high), total=job.size or max(0,body.total))
        finally:
            p.close(); body.close()
        self.stop.check()
        import hashlib
        actual = hashlib.sha256(self.store.partial(job.partial).read_bytes()).hexdigest()
        if job.sha256 and actual != job.sha256: raise HashMismatch("bad")
        self.up(state="verifying", actual=actual)
        self.store.publish(job.partial, actual)
        if not job.group: self.store.name(actual, job.destination)
        self.up(state="completed", total=at, verified=bool(job.sha256), completed_at=0.0 if job.group else time.time(), attempts=0, **NO_ERROR)
        return self.job
