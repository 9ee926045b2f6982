"""Reading one repository of a registry, with the token that the registry hands out to everybody where it wants one.

The Docker token specification: a registry that answers 401 names a realm to fetch a token from. Nothing of ours is sent
there. A token of the settings goes to the registry itself, and then no other is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from .base import HubClient
from .errors import HubInvalid, HubRefused, HubUnreachable
from .freshness import Kind
from .http import Answer, Token
from .links import link
from .oci_forms import ACCEPT, Config, Layer, Manifest, Tags, challenge, config_of

__all__ = ["Reading"]

T = TypeVar("T")
_MAX_BODY = 1 << 20
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")


class _Granted(Struct):
    token: str = ""
    access_token: str = ""


class Reading:
    """Reads one repository: as it is, and when that is refused with the token that everybody may have."""

    def __init__(self, hub: HubClient, repository: str) -> None:
        self._hub, self._repository = hub, repository
        self._token = hub.token()

    async def manifest(self, tag: str) -> Answer[Manifest]:
        return await self._get(f"manifests/{tag}", msgspec.json.Decoder(Manifest).decode, accept=ACCEPT)

    async def tags(self) -> list[str]:
        """The repository's tags; none where the registry does not tell."""
        try:
            answer = await self._get("tags/list", msgspec.json.Decoder(Tags).decode)
        except (HubInvalid, HubRefused):
            return []
        return (answer.value.tags if answer.value else None) or []

    async def config(self, layer: Layer) -> Config | None:
        """The description of a model; None when it cannot be had: it tells nothing that must be known."""
        try:
            return (await self._get(f"blobs/{layer.digest}", lambda body: config_of(body, layer), "immutable")).value
        except (HubUnreachable, HubInvalid, HubRefused):
            return None

    async def _get(
        self, path: str, decode: Callable[[bytes], T], kind: Kind = "detail", accept: str = "*/*"
    ) -> Answer[T]:
        answer = await self._ask(path, decode, kind, accept)
        if answer.status == 401 and self._token is None:
            self._token = await self._grant(answer.headers.get("www-authenticate", ""))
            answer = await self._ask(path, decode, kind, accept)
        if answer.status == 401:
            raise self._refused()
        if answer.status == 412:
            message = f"{self._hub.title} gives {self._repository} to newer versions of its own program only"
            raise HubRefused(message, reason="unsupported", source=self._hub.id)
        return answer

    async def _ask(self, path: str, decode: Callable[[bytes], T], kind: Kind, accept: str) -> Answer[T]:
        url = f"{self._hub.url}/v2/{quote(self._repository)}/{path}"
        return await self._hub.http.get(
            url, hub=self._hub.id, decode=decode, kind=kind, token=self._token, accept=accept, limit=_MAX_BODY,
            answers=(401, 412),
        )  # fmt: skip

    async def _grant(self, header: str) -> Token:
        """The token that everybody may have. Nothing of ours is sent for it, wherever the registry sends us.

        Raises HubRefused when there is none.
        """
        asked = challenge(header)
        realm = link(asked.realm) if asked else ""
        near = urlsplit(realm).hostname == urlsplit(self._hub.url).hostname
        if asked is None or not realm or not (realm.startswith("https:") or near):
            raise self._refused()
        wanted = {"service": asked.service, "scope": f"repository:{self._repository}:pull"}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode({k: v for k, v in wanted.items() if v})}"
        decode = msgspec.json.Decoder(_Granted).decode
        answer = await self._hub.http.get(url, hub=self._hub.id, decode=decode, kind="none", limit=_MAX_BODY)
        value = (answer.value.token or answer.value.access_token) if answer.value else ""
        if not _TOKEN.fullmatch(value):
            raise self._refused()
        return Token(value, self._hub.url, public=True)

    def _refused(self) -> HubRefused:
        said = "does not take this token" if self._hub.setting.token else "wants a token"
        message = f"{self._hub.title} {said} for {self._repository}"
        return HubRefused(message, reason="auth_required", source=self._hub.id, model=self._repository)
