"""Cortex's models: the organisation `cortexso` on Hugging Face, where every branch of a repository is a variant.

The list names the models only: which branches there are takes two requests a model, and is asked for one at a time.
`main` describes a model that has other branches, and then is no variant itself.
"""

from __future__ import annotations

import re
from typing import ClassVar

import anyio
import msgspec
from msgspec.structs import replace

from jan_core.types import ModelRecord, ModelVariant, SourcePage

from .base import escaped
from .grouping import group, quantization_of
from .hf_forms import COMMIT, Branch, Model, Refs, record_of, resolved, unusable
from .huggingface import HuggingFaceHub
from .ids import distinct, file_name, slug
from .paging import few

__all__ = ["CortexsoHub"]

_ORGANISATION = "cortexso"
_MAX_BRANCHES = 64
_AT_ONCE = 4
_DEFAULT = re.compile(rb"^default:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9._-]{0,63})[\"']?[ \t]*$", re.MULTILINE)
_BITS = re.compile(r"_K([SML])$")


class CortexsoHub(HuggingFaceHub):
    """An id is a repository of the organisation, with or without its name: `tinyllama`, `cortexso/tinyllama`."""

    kind: ClassVar[str] = "cortexso"
    filters: ClassVar[tuple[tuple[str, str], ...]] = (("author", _ORGANISATION),)

    def _listed_record(self, model: Model, notes: list[str]) -> ModelRecord | None:
        if why := unusable(model):
            notes.append(f"{model.id[:100]}: {why}")
            return None
        return record_of(model, [], self.id, partial=True)

    async def _one(self, id: str) -> SourcePage:
        repo = id if "/" in id else f"{_ORGANISATION}/{id}"
        if repo.partition("/")[0] != _ORGANISATION:
            return SourcePage([], notes=[f"{id[:100]!r} is not of {_ORGANISATION}"])
        answer = await self.repository(repo)
        model = answer.value
        if model is None:
            return SourcePage([], notes=[f"{self.title} has no model {id[:100]!r}"])
        if why := unusable(model):
            return SourcePage([], notes=[f"{model.id[:100]}: {why}"])
        branches, default, notes = await self._branches(model)
        found: dict[str, list[ModelVariant]] = {}
        room = anyio.CapacityLimiter(_AT_ONCE)
        failed: list[Exception] = []

        async def ask(branch: Branch) -> None:
            async with room:
                if failed:
                    return
                try:
                    files = await self.tree(model.id, branch.commit)
                except Exception as error:  # told below, alone: who asks knows nothing of groups
                    failed.append(error)
                    return
            found[branch.name] = group(resolved(files, self.url, model.id, branch.commit)).variants

        async with anyio.create_task_group() as tasks:
            for branch in branches:
                tasks.start_soon(ask, branch)
        if failed:
            raise failed[0]
        notes += [f"branch {branch.name}: it has no GGUF file" for branch in branches if not found[branch.name]]
        variants = _named({name: found[name] for name in sorted(found, key=lambda name: (name != default, name))})
        record = record_of(model, variants, self.id)
        if not variants:
            return SourcePage([], notes=few([*notes, f"{model.id}: no branch has a model"]), age=answer.age)
        return SourcePage([record], "", few(notes), answer.age, answer.from_cache == "stale")

    async def _branches(self, model: Model) -> tuple[list[Branch], str, list[str]]:
        """The branches that are variants, which of them is the default ("" when nothing says), and notes."""
        answer = await self.http.get(
            f"{self.url}/api/models/{escaped(model.id)}/refs",
            hub=self.id,
            decode=msgspec.json.Decoder(Refs).decode,
            token=self.token(),
            answers=(401, 403),
        )
        self.refuse(answer, model.id)
        every = answer.value.branches if answer.value else []
        pinned = [branch for branch in every if COMMIT.fullmatch(branch.commit)]
        notes = [f"branch {branch.name[:64]}: the hub names no commit" for branch in every if branch not in pinned]
        named = [branch for branch in pinned if branch.name != "main"] or pinned
        main = next((branch for branch in pinned if branch.name == "main"), None)
        if len(named) > _MAX_BRANCHES:
            notes.append(f"of {len(named)} branches the first {_MAX_BRANCHES} are shown")
            named = sorted(named, key=lambda branch: branch.name)[:_MAX_BRANCHES]
        has_card = any(sibling.rfilename == "metadata.yml" for sibling in model.siblings or [])
        default = await self._default(model.id, main.commit) if main and has_card else ""
        return named, default, notes

    async def _default(self, repo: str, commit: str) -> str:
        """The branch that `metadata.yml` on `main` names as the default."""
        answer = await self.http.get(
            f"{self.url}/{escaped(repo)}/resolve/{commit}/metadata.yml",
            hub=self.id,
            kind="immutable",
            decode=bytes,
            token=self.token(),
            accept="*/*",
            limit=64 << 10,
            answers=(401, 403),
        )
        line = _DEFAULT.search(answer.value or b"")
        return line[1].decode() if line else ""


def _named(found: dict[str, list[ModelVariant]]) -> list[ModelVariant]:
    """The variants with their branch's name as id. Files get it before theirs: each branch's is called `model.gguf`."""
    ids = distinct(found, slug)
    variants = []
    for branch, grouped in found.items():
        quantization = _BITS.sub(r"_K_\1", quantization_of(branch.replace("-", "_")))
        for variant in grouped:
            id = ids[branch] if len(grouped) == 1 else f"{ids[branch]}-{variant.id}"
            files = [
                replace(file, name=file_name(f"{branch}/{file.name.removesuffix('.gguf')}", ".gguf"))
                for file in variant.files
            ]
            quant = variant.quantization or quantization
            variants.append(replace(variant, id=id, quantization=quant, files=files))
    return variants
