"""`jan models rm`: a model goes, and with it the downloads that brought its files and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .output import note
from .session import Session

__all__ = ["delete_model"]


async def delete_model(session: Session, id: str, adapter: str, *, keep_download: bool) -> dict[str, Any]:
    """Delete a model, or one adapter of it. Returns `id`, `freed` (bytes) and the ids of the `downloads` removed.

    Raises RpcError.
    """
    if adapter:
        await session.call("models.delete", {"id": id, "adapter": adapter})
        return {"id": adapter, "freed": 0, "downloads": []}
    model = next((each for each in (await session.call("models.list"))["models"] if each["id"] == id), None)
    alone = _alone(model) if model else 0
    await session.call("models.delete", {"id": id, "adapter": ""})
    hashes = set(model["hashes"]) if model else set()
    removed = [] if keep_download or not hashes else await _remove_downloads(session, hashes)
    # A clone of what was fetched has its own name and the same blocks: the two are not counted twice.
    freed = max(alone, sum(each["freed"] for each in removed))
    return {"id": id, "freed": freed, "downloads": [each["id"] for each in removed]}


def _alone(model: dict[str, Any]) -> int:
    """Bytes of a model's files that nothing else on this disk shares by a hard link."""
    try:
        return int(model["size"]) if Path(model["path"]).stat().st_nlink == 1 else 0
    except OSError:
        return 0


async def _remove_downloads(session: Session, hashes: set[str]) -> list[dict[str, Any]]:
    """Remove the downloads of files of these hashes that no installed model has."""
    from jan_core import RpcError

    kept = {sha256 for model in (await session.call("models.list"))["models"] for sha256 in model["hashes"]}
    removed = []
    for record in (await session.call("downloads.list", {"states": ["completed"]}))["downloads"]:
        if record["actual_sha256"] in hashes - kept:
            try:
                removed.append(await session.call("downloads.remove", {"id": record["id"]}))
            except RpcError as error:  # the model is gone all the same
                note(f"the download {record['id']} stays: {error}")
    return removed
