"""What every hub offers, and which kinds there are. It asks nobody itself: `http.py` does, for all of them.

A hub turns what its server answers into records through `grouping.py`; it says of itself what it can do, and a
question beyond that is refused.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import quote, urlsplit

from jan_core import InvalidParams
from jan_core.types import SourcePage, SourceQuery

from ..settings import SourceSetting
from .errors import HubRefused

if TYPE_CHECKING:
    from .http import Http, Token

__all__ = ["Capability", "HubClient", "escaped", "known_sources", "open_hub"]

Capability = Literal["list", "search", "get", "pinned"]
"""`list`: page through everything; `search`: by words; `get`: one by its id; `pinned`: its records name files by a
revision or a hash, so that they cannot change under their URL."""

MAX_LIMIT = 1000


class HubClient(ABC):
    """One hub. Made anew for a question, so it holds nothing between two: what is remembered is `Http`'s."""

    kind: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    default_url: ClassVar[str] = ""

    def __init__(self, setting: SourceSetting, http: Http) -> None:
        self.setting, self.http = setting, http
        self.id, self.title = setting.id, setting.title or setting.id
        self.url = (setting.url or self.default_url).rstrip("/")

    async def page(self, query: SourceQuery) -> SourcePage:
        """Answer a question: all records, those with the words of `text`, or the one with `id` (else an empty page).

        Raises HubUnreachable, HubRefused, HubInvalid, and InvalidParams for a cursor that is not this hub's.
        """
        wanted: Capability = "get" if query.id else "search" if query.text.strip() else "list"
        if wanted not in self.capabilities:
            can = " and ".join(sorted(self.capabilities - {"pinned"}))
            raise HubRefused(f"{self.title} cannot {wanted} models, only {can}", reason="unsupported", source=self.id)
        return await self.answer(query)

    @abstractmethod
    async def answer(self, query: SourceQuery) -> SourcePage:
        """Answer a question that is among the capabilities."""

    def limit(self, query: SourceQuery) -> int:
        return min(max(1, query.limit), MAX_LIMIT)

    def token(self) -> Token | None:
        """The setting's token, for the host of `url` alone; `$NAME` names a variable of the environment.

        Raises HubRefused when that variable is not set.
        """
        from .http import Token

        value = self.setting.token
        if value.startswith("$"):
            value = os.environ.get(value[1:], "")
            if not value:
                message = f"{self.title} needs the variable {self.setting.token} of the environment; it is not set"
                raise HubRefused(message, reason="auth_required", source=self.id)
        return Token(value, self.url) if value else None


def escaped(path: str) -> str:
    """A path below a hub's address: every segment quoted, none of them `.` or `..`, none empty.

    Raises InvalidParams.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidParams(f"{path[:100]!r} is no name of a model", path="$.id")
    return "/".join(quote(part, safe="") for part in parts)


_CLASSES = {
    "huggingface": ("huggingface", "HuggingFaceHub"),
    "cortexso": ("cortexso", "CortexsoHub"),
    "kinto": ("kinto", "KintoHub"),
    "jan-catalogue": ("jan_catalogue", "JanCatalogueHub"),
    "oci": ("oci", "OciHub"),
    "modelscope": ("modelscope", "ModelScopeHub"),
    "lmstudio": ("lmstudio", "LMStudioHub"),
    "openai": ("openai", "OpenAIHub"),
    "hub": ("own", "OwnHub"),
}


def open_hub(setting: SourceSetting, http: Http) -> HubClient:
    """The client of a source. Raises InvalidParams when the setting does not do for its kind."""
    module, name = _CLASSES[setting.kind]
    hub: type[HubClient] = getattr(import_module(f".{module}", __package__), name)
    url = setting.url or hub.default_url
    if not url:
        raise InvalidParams(f"the source {setting.id!r} of kind {setting.kind} needs a url", path="$.sources")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise InvalidParams(f"the source {setting.id!r}: a url must not hold credentials", path="$.sources")
    return hub(setting, http)


def known_sources() -> list[SourceSetting]:
    """The hubs that are known by name. They are asked only when somebody names them."""
    return [
        SourceSetting("huggingface", "huggingface", title="Hugging Face"),
        SourceSetting("ollama", "oci", title="Ollama"),
        SourceSetting("modelscope", "modelscope", title="ModelScope"),
        SourceSetting("cortexso", "cortexso", title="Cortex"),
        SourceSetting("jan-catalogue", "jan-catalogue", title="Jan's model catalogue"),
        SourceSetting("lmstudio", "lmstudio", title="LM Studio's catalogue"),
    ]
