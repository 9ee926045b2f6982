"""From the files that lie in a repository to the ways to have the model: variants, each with all that it needs.

Pure: it reads names, and neither a file nor a network. What a name does not tell is left empty rather than guessed;
the one default it picks is a matter of taste (`_PREFERRED`) and of nothing that was measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct, field

from jan_core.types import DownloadFile, ModelVariant

from .ids import distinct, file_name, slug

__all__ = ["Grouped", "Left", "RepoFile", "group", "quantization_of"]


class RepoFile(Struct, omit_defaults=True):
    """A file of a repository. `path` with `/` between its parts; `size` in bytes, 0 when unknown; `sha256` "" too.

    `role`: `weights` or `projector` where the hub says so; else the name tells.
    """

    path: str
    size: int = 0
    sha256: str = ""
    url: str = ""
    role: str = ""


class Left(Struct):
    """A file that belongs to no variant, and why."""

    path: str
    reason: str


class Grouped(Struct):
    """`variants`: the default first. `left`: GGUF files that are of no use by themselves; other files are not named."""

    variants: list[ModelVariant] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


class _Set(Struct):
    """One set of weights, or one projector. `base`: its path without a part's number and `.gguf`; `count`: of how many
    parts, 0 for a file by itself."""

    base: str
    count: int
    files: list[RepoFile]

    @property
    def folder(self) -> str:
        return self.base.rpartition("/")[0]

    @property
    def stem(self) -> str:
        return self.base.rpartition("/")[2]


_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_PROJECTOR = re.compile(r"(?i)(?:^|[-_.])mmproj(?:[-_.]|$)")
_ADAPTER = re.compile(r"(?i)(?:^|[-_.])(?:lora|adapter)(?:[-_.](?:f16|f32|bf16|fp16|q8_0))?$")
_IMATRIX = re.compile(r"(?i)(?:^|[-_.])imatrix(?:[-_.]|$)")
_VOCABULARY = re.compile(r"(?i)^ggml-vocab-")
_QUANTIZATION = re.compile(
    r"(?i)(?:^|[-_.])("
    r"(?:UD-)?(?:I?Q[1-8](?:_(?:KM|KS|KL|K|[0148]|NL|XXS|XS|XXL|XL|S|M|L|P))*|TQ[12]_0|I2_S)"
    r"|MXFP4(?:_MOE)?|NVFP4|(?:UD-)?(?:BF16|FP?16|FP?32))(?=$|[-_.])"
)
_PREFERRED = (
    "Q4_K_M", "Q4_K_XL", "Q4_K_L", "Q4_K_S", "MXFP4", "MXFP4_MOE", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0",
    "Q5_K_M", "Q5_K_S", "Q5_K_L", "Q5_1", "Q5_0", "Q6_K", "Q6_K_L", "Q8_0", "Q3_K_L", "Q3_K_M",
)  # fmt: skip
_MAX_VARIANTS, _MAX_PROJECTORS = 512, 32
_PRECISION = ("F16", "BF16", "Q8_0", "F32")


def group(files: Iterable[RepoFile]) -> Grouped:
    """The variants that the files of one repository make. The order of `files` does not count.

    Parts (`-00001-of-00003`) are one variant when all are there. Each variant has the projector (`mmproj`) that suits
    it best, if there is one. `memory` is the bytes of its files, which is what the weights alone take, and 0 unless all
    sizes are known.
    """
    grouped = Grouped()
    parts, projectors = _sorted_out(files, grouped)
    weights = _bounded(_without_statistics(_complete(parts, grouped), grouped), _MAX_VARIANTS, grouped)
    projectors = _bounded(projectors, _MAX_PROJECTORS, grouped)
    chosen = _projectors_of(weights, projectors)
    used = {projector.base for projector in chosen if projector}
    reason = "another projector suits better" if weights else "a projector without its model"
    grouped.left += [Left(one.files[0].path, reason) for one in projectors if one.base not in used]
    grouped.left.sort(key=lambda left: left.path)
    grouped.variants = _variants(weights, chosen)
    return grouped


def quantization_of(path: str) -> str:
    """The quantization that a file's name tells, else its folder's: `Q4_K_M`, `UD-IQ2_XXS`, `BF16`; "" when neither."""
    for part in reversed(path.removesuffix(".gguf").split("/")):
        found = _QUANTIZATION.findall(_PART.sub("", part))
        if found:
            name: str = found[-1].upper()
            return name.replace("FP16", "F16").replace("FP32", "F32")
    return ""


def _sorted_out(
    files: Iterable[RepoFile], grouped: Grouped
) -> tuple[dict[tuple[str, int], dict[int, RepoFile]], list[_Set]]:
    """The parts of weights by base and count, and the projectors; the rest is left out."""
    parts: dict[tuple[str, int], dict[int, RepoFile]] = {}
    projectors: list[_Set] = []
    bases: set[str] = set()
    ordered = sorted(files, key=lambda file: (file.path, file.sha256, file.size, file.url))
    for file in {file.path: file for file in ordered}.values():
        if not file.path.lower().endswith(".gguf"):
            if ".gguf" in file.path.lower().rpartition("/")[2]:
                grouped.left.append(Left(file.path, "a piece of a GGUF file, to be joined by hand"))
            continue
        base = file.path[: -len(".gguf")]
        if base in bases:
            grouped.left.append(Left(file.path, "another has the same name but for the case of its end"))
            continue
        bases.add(base)
        stem = base.rpartition("/")[2]
        if file.role == "projector" or (not file.role and _PROJECTOR.search(stem)):
            projectors.append(_Set(base, 0, [file]))
        elif not file.role and _ADAPTER.search(stem):
            grouped.left.append(Left(file.path, "an adapter, which is used with a model"))
        elif not file.role and _VOCABULARY.match(stem):
            grouped.left.append(Left(file.path, "a vocabulary without weights"))
        elif part := _PART.search(base):
            # Not 0, which is that of a file by itself: "of 00000" is never whole.
            parts.setdefault((base[: part.start()], int(part[2]) or -1), {})[int(part[1])] = file
        else:
            parts[base, 0] = {0: file}
    return parts, projectors


def _complete(parts: dict[tuple[str, int], dict[int, RepoFile]], grouped: Grouped) -> list[_Set]:
    """The sets whose parts are all there; the others are left out."""
    whole = []
    for (base, count), files in parts.items():
        numbers = sorted(files)
        if numbers == ([0] if count == 0 else list(range(1, len(numbers) + 1))) and len(numbers) == (count or 1):
            whole.append(_Set(base, count, [files[number] for number in numbers]))
        else:
            reason = f"of {max(count, 0)} parts, {len(numbers)} are there"
            grouped.left += [Left(file.path, reason) for file in files.values()]
    return whole


def _without_statistics(weights: list[_Set], grouped: Grouped) -> list[_Set]:
    """Without what was measured in order to quantize (`imatrix`). A name that only ends so is that of a model where it
    is all there is: some name what was quantized with its help like that."""
    models = [one for one in weights if not _IMATRIX.search(one.stem)]
    kept = models or [one for one in weights if not one.stem.lower().startswith("imatrix")]
    rest = {file.path for one in weights for file in one.files} - {file.path for one in kept for file in one.files}
    grouped.left += [Left(path, "statistics for quantizing, not a model") for path in rest]
    return kept


def _bounded(sets: list[_Set], limit: int, grouped: Grouped) -> list[_Set]:
    grouped.left += [Left(file.path, f"more than {limit} of its kind") for one in sets[limit:] for file in one.files]
    return sets[:limit]


def _projectors_of(weights: list[_Set], projectors: list[_Set]) -> list[_Set | None]:
    """The projector for each set of weights: of its own name first, then of no name, near it, and in F16.

    One that bears another's name is nobody else's.
    """
    names = [_name(one) for one in weights]
    candidates = []
    for projector in projectors:
        own, precision = _name(projector), quantization_of(projector.base)
        fineness = _PRECISION.index(precision) if precision in _PRECISION else len(_PRECISION)
        candidates.append((projector, own, any(_akin(own, name) for name in names), fineness))
    chosen: list[_Set | None] = []
    for one, name in zip(weights, names, strict=True):
        ranked = []
        for projector, own, has_kin, fineness in candidates:
            kinship = 0 if own and own == name else 1 if _akin(own, name) else 2 if not own else 3
            if kinship < 3 or not has_kin:
                distance = 0 if projector.folder == one.folder else 1 if one.base.startswith(projector.folder) else 2
                ranked.append((kinship, distance, fineness, projector.base, projector))
        chosen.append(min(ranked, key=lambda item: item[:4])[4] if ranked else None)
    return chosen


def _akin(one: str, other: str) -> bool:
    return bool(one and other) and (one.startswith(other) or other.startswith(one))


def _name(one: _Set) -> str:
    """The model's name that a file's name tells: without quantization, `mmproj`, `model`, separators and case."""
    bare = _QUANTIZATION.sub("", _PROJECTOR.sub("-", one.stem))
    return re.sub(r"[-_. ]+", "", re.sub(r"(?i)^[-_.]*(?:ggml-)?model(?=$|[-_.])", "", bare).lower())


def _variants(weights: list[_Set], projectors: list[_Set | None]) -> list[ModelVariant]:
    names = _file_names([one for one in [*weights, *projectors] if one])
    labels = _labels(weights)
    variants = []
    for one, projector in zip(weights, projectors, strict=True):
        files = [_download(file, names, "weights") for file in one.files]
        if projector:
            files.append(_download(projector.files[0], names, "projector"))
        memory = sum(file.size for file in files) if all(file.size for file in files) else 0
        variants.append(ModelVariant(labels[_key(one)], "gguf", quantization_of(one.base), memory, files))
    return sorted(variants, key=_order)


def _labels(weights: list[_Set]) -> dict[str, str]:
    """An id for each: its quantization, and for all but the shortest name of one quantization the whole name."""
    first: dict[str, str] = {}
    for one in sorted(weights, key=lambda one: (len(one.base), one.base, one.count)):
        first.setdefault(quantization_of(one.base), _key(one))
    stems = {_key(one): one.stem for one in weights}
    stems |= {key: quantization for quantization, key in first.items() if quantization}
    return distinct(stems, lambda key: slug(stems[key]))


def _order(variant: ModelVariant) -> tuple[int, str]:
    """Preferred quantizations as listed, others by how far they are from four bits, unknown ones, full precision."""
    name = variant.quantization.removeprefix("UD-")
    if name in _PREFERRED:
        return _PREFERRED.index(name), variant.id
    bits = int(digits[0]) if (digits := re.search(r"\d+", name)) else 0
    return 1000 if bits == 0 else 2000 + bits if bits >= 16 else 100 + abs(bits - 4) * 2 + (bits < 4), variant.id


def _file_names(sets: list[_Set]) -> dict[str, str]:
    """Path -> a plain file name, no two alike in a repository. Parts keep their numbers behind one common name."""
    stems = {one.base: one.stem for one in sets}
    times = Counter(stem.lower() for stem in stems.values())
    chosen = distinct(stems, lambda base: file_name(base if times[stems[base].lower()] > 1 else stems[base]))
    return {
        file.path: f"{chosen[one.base]}{file.path[len(one.base) : -len('.gguf')]}.gguf"
        for one in sets
        for file in one.files
    }


def _key(one: _Set) -> str:
    return f"{one.base}\0{one.count}"


def _download(file: RepoFile, names: dict[str, str], role: str) -> DownloadFile:
    return DownloadFile(names[file.path], file.url, file.sha256, file.size, role)
