"""Hugging Face, or a mirror that speaks its API: repositories that hold GGUF files.

Pages of the list name the files and the commit, not the sizes: one request a page. Asking for one model gets sizes and
hashes too. Every address names the commit that was described. What a repository's files hold is not looked at.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import anyio.to_thread
import msgspec

from jan_core import InvalidParams
from jan_core.types import ModelRecord, SourcePage, SourceQuery

from ..convert import HUGGING_FACE
from ..settings import SourceSetting
from .base import Capability, HubClient, escaped
from .errors import HubInvalid, HubRefused
from .grouping import RepoFile, group
from .hf_forms import Model, TreeEntry, files_of, next_cursor, record_of, resolved, tree_files, unusable
from .http import Answer, Http, Token
from .paging import few

__all__ = ["HuggingFaceHub"]

_EXPAND = (
    "author", "sha", "gated", "private", "disabled", "downloads", "likes", "lastModified", "gguf", "siblings", "tags",
    "pipeline_tag",
)  # fmt: skip
_PAGE = 100
_MAX_LIST, _MAX_DETAIL = 32 << 20, 16 << 20
_MAX_TREE_PAGES = 20


class HuggingFaceHub(HubClient):
    """The setting's `url`, else `$HF_ENDPOINT`, else huggingface.co. Its `author` option narrows the list to one owner.

    An id may name a branch, tag or commit: `owner/name@revision`.
    """

    kind: ClassVar[str] = "huggingface"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "search", "get", "pinned"})
    default_url: ClassVar[str] = HUGGING_FACE
    filters: ClassVar[tuple[tuple[str, str], ...]] = (("filter", "gguf"),)

    def __init__(self, setting: SourceSetting, http: Http) -> None:
        super().__init__(setting, http)
        self.author = setting.options.get("author", "")
        if not setting.url:
            self.url = os.environ.get("HF_ENDPOINT", "").rstrip("/") or self.url

    def token(self) -> Token | None:
        """The setting's token; where the setting names neither a token nor an address, `$HF_TOKEN`, which belongs to
        `$HF_ENDPOINT`. That one is not sent unencrypted."""
        if self.setting.token or self.setting.url:
            return super().token()
        value = os.environ.get("HF_TOKEN", "").strip()
        safe = self.url.startswith("https://") or urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        return Token(value, self.url) if value and safe else None

    async def answer(self, query: SourceQuery) -> SourcePage:
        return await (self._one(query.id) if query.id else self._list(query))

    async def _list(self, query: SourceQuery) -> SourcePage:
        asked = [*self.filters, ("sort", "downloads"), ("limit", str(min(self.limit(query), _PAGE)))]
        asked += [("search", query.text.strip())] if query.text.strip() else []
        asked += [("author", self.author)] if self.author else []
        asked += [("expand", field) for field in _EXPAND]
        asked += [("cursor", _cursor(query.cursor))] if query.cursor else []
        url = f"{self.url}/api/models?{urlencode(asked)}"
        answer = await self.http.get(
            url, hub=self.id, kind="search", decode=_listed, token=self.token(), limit=_MAX_LIST
        )
        models, notes = await anyio.to_thread.run_sync(self._records, answer.value or [])
        try:
            cursor = next_cursor(answer.headers.get("link", ""), url, self.url)
        except ValueError:
            cursor = ""
            notes.append("the list goes on at another address, which is not followed")
        if cursor == query.cursor:
            cursor = ""  # a hub that continues with the page it has just given would go on for ever
        return SourcePage(models, cursor, few(notes), answer.age, answer.from_cache == "stale")

    def _records(self, entries: list[msgspec.Raw]) -> tuple[list[ModelRecord], list[str]]:
        """The records of the entries of a list, and notes on those that are of no use."""
        models: list[ModelRecord] = []
        notes: list[str] = []
        for raw in entries:
            try:
                model = msgspec.json.decode(raw, type=Model)
            except (ValueError, RecursionError) as error:
                notes.append(f"an entry cannot be read: {str(error)[:100]}")
                continue
            record = self._listed_record(model, notes)
            models += [record] if record else []
        return models, notes

    def _listed_record(self, model: Model, notes: list[str]) -> ModelRecord | None:
        """The record of an entry of the list; None with a note when it is of no use."""
        if why := unusable(model):
            notes.append(f"{model.id[:100]}: {why}")
            return None
        grouped = group(resolved(files_of(model), self.url, model.id, model.sha or ""))
        if not grouped.variants:
            notes.append(f"{model.id[:100]}: it has no GGUF file that can be used by itself")
            return None
        return record_of(model, grouped.variants, self.id, partial=True)

    async def _one(self, id: str) -> SourcePage:
        answer = await self.repository(id)
        model = answer.value
        if model is None:
            return SourcePage([], notes=[f"{self.title} has no public model {id[:100]!r}; a private one needs a token"])
        if why := unusable(model):
            return SourcePage([], notes=[f"{model.id[:100]}: {why}"])
        files = files_of(model)
        if any(file.path.lower().endswith(".gguf") and not file.size for file in files):
            files = await self.tree(model.id, model.sha or "")
        grouped = group(resolved(files, self.url, model.id, model.sha or ""))
        notes = [f"{left.path}: {left.reason}" for left in grouped.left]
        if not grouped.variants:
            return SourcePage([], notes=few([*notes, f"{model.id[:100]}: it has no GGUF file"]), age=answer.age)
        record = record_of(model, grouped.variants, self.id)
        return SourcePage([record], "", few(notes), answer.age, answer.from_cache == "stale")

    async def repository(self, id: str) -> Answer[Model]:
        """One repository with the sizes and hashes of its files; the answer's value is None when there is none.

        Raises HubRefused when it is gated or needs a token, and what `Http.get` raises.
        """
        repo, _, revision = id.partition("@")
        path = f"{self.url}/api/models/{escaped(repo)}"
        if revision:
            path += f"/revision/{escaped(revision).replace('/', '%2F')}"
        answer = await self.http.get(
            f"{path}?blobs=true",
            hub=self.id,
            decode=msgspec.json.Decoder(Model).decode,
            token=self.token(),
            limit=_MAX_DETAIL,
            answers=(401, 403),
        )
        self.refuse(answer, repo)
        return answer

    async def tree(self, repo: str, commit: str) -> list[RepoFile]:
        """All files at a commit, with sizes and hashes, without addresses. Raises what `Http.get` raises."""
        url = f"{self.url}/api/models/{escaped(repo)}/tree/{commit}?recursive=true"
        files: list[RepoFile] = []
        cursors = {""}
        asked = url
        while len(cursors) <= _MAX_TREE_PAGES:
            answer = await self.http.get(
                asked,
                hub=self.id,
                kind="immutable",
                decode=msgspec.json.Decoder(list[TreeEntry]).decode,
                token=self.token(),
                limit=_MAX_DETAIL,
                answers=(401, 403),
            )
            self.refuse(answer, repo)
            files += tree_files(answer.value or [])
            try:
                cursor = next_cursor(answer.headers.get("link", ""), asked, self.url)
            except ValueError:
                raise HubInvalid(
                    f"{self.title}: the files of {repo} go on at another address", source=self.id
                ) from None
            if cursor in cursors:
                break
            cursors.add(cursor)
            asked = f"{url}&{urlencode({'cursor': cursor})}"
        return files

    def refuse(self, answer: Answer[Any], repo: str) -> None:
        """Raises HubRefused for a 401 or 403 by what the hub says it means (`X-Error-Code`).

        It answers 401 for what does not exist, too, to whom it does not know: that is no refusal.
        """
        if answer.status not in (401, 403):
            return
        code = answer.headers.get("x-error-code", "")
        if code == "GatedRepo":
            message = f"the licence of {repo} must be accepted at {self.url}/{repo}, by whose token is used"
            raise HubRefused(message, reason="license_required", source=self.id, model=repo)
        if code == "RepoNotFound":
            return
        token = "does not take this token" if self.token() else "wants a token"
        raise HubRefused(f"{self.title} {token} for {repo}", reason="auth_required", source=self.id, model=repo)


def _listed(body: bytes) -> list[msgspec.Raw]:
    return msgspec.json.decode(body, type=list[msgspec.Raw])


def _cursor(cursor: str) -> str:
    if len(cursor) > 2000 or not (cursor.isascii() and cursor.isprintable()):
        raise InvalidParams("the cursor is not one of this source", path="$.cursor")
    return cursor
