"""A pool of real workers, with room for two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jan_llamacpp.pool import ModelPool

from .starter import Starter


@pytest.fixture
def starter(engine_dir: Path, babble: Path) -> Starter:
    return Starter(engine_dir, babble)


@pytest.fixture
async def pool(starter: Starter) -> AsyncIterator[ModelPool]:
    pool = ModelPool(starter, max_loaded=lambda: 2, queue_seconds=lambda: 0.3)
    yield pool
    await pool.close()
