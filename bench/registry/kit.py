"""What every part needs: hubs of several sizes in front of which an nginx stands."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import catalogues
from catalogues import Catalogue
from client import NotTakenError

from extensions.registry.tests.hubmaker import Hub, Nginx

if TYPE_CHECKING:
    from hosts import Synced

__all__ = ["Kit", "NotTakenError", "Publication", "Site", "say"]


class Publication(NamedTuple):
    """What a publication took in seconds, when it `ended` (`time.perf_counter`), and bytes of the compressed list and
    of the compressed difference to the version before."""

    seconds: float
    ended: float
    whole: int
    delta: int


@dataclass
class Site:
    """A hub and its web server. `catalogue` is what it holds now."""

    catalogue: Catalogue
    hub: Hub
    web: Nginx

    def publish(self, catalogue: Catalogue) -> Publication:
        """The next version."""
        self.hub.collections = catalogue.records()
        began = time.perf_counter()
        published = self.hub.publish()
        ended = time.perf_counter()
        self.catalogue = catalogue
        models = next(one for one in published.collections if one.name == "models")
        return Publication(ended - began, ended, models.full_bytes, models.delta_bytes)


@dataclass
class Kit:
    """`folder` is for everything that is made. `data`: a copy of a real catalogue. What is made once is kept until
    `close`; `first` says what the first publication of each size took."""

    folder: Path
    rounds: int
    quick: bool
    data: Path | None = None
    first: dict[int, Publication] = field(default_factory=dict)
    synced: dict[int, Synced] = field(default_factory=dict)
    _sites: dict[int, Site] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _folders: int = 0

    @property
    def sizes(self) -> tuple[int, int, int]:
        """In models."""
        return (100, 400, 1_000) if self.quick else (300, 10_000, 100_000)

    def site(self, size: int) -> Site:
        """The hub of that size; published the first time. Raises NotTakenError without nginx."""
        if size not in self._sites:
            say(f"publishing {size:,} models")
            hub = Hub(self.fresh(f"hub-{size}"))
            site = Site(catalogues.made_up(size), hub, self.serve(hub.tree))
            self.first[size] = site.publish(site.catalogue)
            self._sites[size] = site
        return self._sites[size]

    def serve(self, folder: Path, **options: Any) -> Nginx:
        """An nginx on a folder, until `close`. Raises NotTakenError."""
        return self._stack.enter_context(_serving(folder, self.fresh("nginx"), **options))

    def fresh(self, name: str) -> Path:
        """A folder that nobody else has."""
        self._folders += 1
        path = self.folder / f"{self._folders}-{name}"
        path.mkdir()
        return path

    def close(self) -> None:
        self._stack.close()


@contextmanager
def _serving(folder: Path, here: Path, **options: Any) -> Iterator[Nginx]:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise NotTakenError("nginx is not installed (Debian's package nginx-light has it)")
    web = Nginx(binary, folder, here / "state", **options).start()
    try:
        yield web
    finally:
        web.stop()


def say(text: str) -> None:
    """Tell who waits what is being done."""
    print(text, file=sys.stderr, flush=True)
