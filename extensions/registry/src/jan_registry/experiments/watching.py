"""What this person does with models, told by the events and hooks of the house: downloads, loads, chats.

It finds out which model of the list that was, and tells it; what it is counted for is `service.py`'s. Only that
something was done is looked at, never what was said.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from jan_core import Context, Event, RpcError
from jan_core.types import InferenceOutcome

from .shapes import Kind

__all__ = ["Watch"]

_REMEMBERED = 1000


class Watch:
    """`used` is told the id of a model and what was done with it. `models_with`: the ids of the models in the list that
    have a file, by its SHA-256."""

    def __init__(
        self,
        ctx: Context,
        used: Callable[[str, Kind], Awaitable[None]],
        models_with: Callable[[str], Awaitable[Sequence[str]]],
    ) -> None:
        self._ctx, self._used, self._models_with = ctx, used, models_with
        self._downloaded: OrderedDict[str, None] = OrderedDict()  # models whose download was counted
        self._states: dict[str, str] = {}  # of installed models, as they were told last
        self._origins: dict[str, str] = {}  # of installed models: their id in the list, else their own

    async def event(self, event: Event) -> None:
        """For `jan_event`."""
        data = event.data if isinstance(event.data, dict) else {}
        if event.name == "downloads.changed" and data.get("state") == "completed":
            sha256 = str(data.get("actual_sha256") or data.get("sha256") or "").lower()
            for model in await self._models_with(sha256) if sha256 else ():
                await self._has_downloaded(model)
        elif event.name == "models.changed" and (id := data.get("id")):
            before, state = self._states.get(id), data.get("state")
            self._states[id] = str(state)
            if state == "loaded" and before != "loaded":
                await self._used(await self._listed_as(id), "load")
            elif state in ("deleted", "available"):  # another model may come to be called so
                self._origins.pop(id, None)

    async def after_inference(self, outcome: InferenceOutcome) -> None:
        """For `jan_after_inference`. What was asked of other machines, or failed, does not count."""
        if outcome.where == "local" and not outcome.error and outcome.model:
            await self._used(await self._listed_as(outcome.model), "chat")

    async def _has_downloaded(self, model: str) -> None:
        """A model of several files is downloaded once."""
        if model in self._downloaded:
            return
        self._downloaded[model] = None
        if len(self._downloaded) > _REMEMBERED:
            self._downloaded.popitem(last=False)
        await self._used(model, "download")

    async def _listed_as(self, installed: str) -> str:
        """The list's id of an installed model: where it is from, else what it is called here."""
        if installed not in self._origins:
            try:
                models = (await self._ctx.call("models.list"))["models"]
            except RpcError:
                return installed
            self._origins = {str(model["id"]): str(model.get("origin") or model["id"]) for model in models}
        return self._origins.get(installed, installed)
