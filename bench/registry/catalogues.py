"""Catalogues of any size, made up but shaped like real ones, and the edits that lead from one version to the next.

The same size and seed always give the same bytes. Names, makers and files follow what people publish: few makers have
most models, half of the models have three variants or fewer and some a dozen, every file its hash, its list of pieces
and one or two places to get it from. Nothing here reads a clock, and only `real` a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jan_registry.collections import canonical

__all__ = ["Catalogue", "edit", "made_up", "real", "touch"]


def _words(text: str) -> list[str]:
    return text.split()


PIECE = 8 << 20
FEATURED = 24
MAKERS = _words(
    "mlx-community unsloth bartowski janhq qwen mradermacher lmstudio-community google meta-llama mistralai microsoft"
    " thedrummer ibm-granite nvidia deepseek-ai huggingfacetb tencent liquidai nousresearch openbmb zai-org menlo"
)
FAMILIES = _words(
    "llama-3.2 llama-3.3 qwen3 qwen3.5 gemma-3 gemma-4 mistral-small phi-4 olmo-3 granite-4 smollm3 deepseek-r1-distill"
    " nemotron hermes-4 lfm2 minicpm ernie-4.5 glm-4.7 jan-nano gpt-oss command-r exaone falcon-h1 internlm3"
)
KINDS = _words("instruct chat base coder thinking vision math reasoning long-context embedding reranker roleplay")
SIZES = (0.5, 1, 1.5, 3, 4, 7, 8, 12, 14, 27, 32, 70)
QUANTS = _words(
    "Q4_K_M Q8_0 Q5_K_M Q6_K Q4_K_S Q3_K_M Q2_K Q5_K_S IQ4_XS Q3_K_L Q3_K_S IQ3_XS IQ2_M F16 BF16 Q4_0 IQ3_M Q4_1"
)
HOW_MANY = (1, 1, 2, 2, 3, 3, 3, 4, 6, 14)
"""Variants, each as likely: half have three or fewer."""
LICENSES = ("apache-2.0", "mit", "llama3.2", "gemma", "apache-2.0", "other")
TAGS = _words("text-generation conversational en zh fr de es code tools imatrix unsloth moe reasoning roleplay medical")
WORDS = _words(
    "a compact open language model tuned for following instructions with native tool use long context and strong"
    " results in coding mathematics and many languages on everyday hardware designed research applications"
)


@dataclass(frozen=True)
class Catalogue:
    """One version. `models`: canonical records by id; `downloads`: how many, by id. Never changed in place."""

    models: Mapping[str, bytes]
    downloads: Mapping[str, int]

    @property
    def featured(self) -> list[str]:
        """The ids that are recommended: what is downloaded most."""
        return sorted(self.models, key=lambda id: (-self.downloads.get(id, 0), id))[:FEATURED]

    def records(self, *, stats: bool = True) -> dict[str, list[bytes]]:
        """What a publisher is given: canonical bytes, by collection."""
        slots = [{"id": "default", "title": "Recommended", "models": self.featured}]
        numbers = [{"id": id, "downloads": self.downloads[id]} for id in self.models if self.downloads.get(id)]
        return {
            "models": list(self.models.values()),
            "featured": [canonical(slot) for slot in slots],
            "stats": [canonical(number) for number in numbers] if stats else [],
        }


def made_up(count: int, seed: int = 1) -> Catalogue:
    """`count` models."""
    rng = random.Random(f"{seed} {count}")
    models: dict[str, bytes] = {}
    downloads: dict[str, int] = {}
    while len(models) < count:
        record = _record(rng, taken=models)
        models[record["id"]] = canonical(record)
        downloads[record["id"]] = int(math.exp(rng.gauss(7.5, 2.2)))
    return Catalogue(models, downloads)


def edit(catalogue: Catalogue, rng: random.Random, *, count: int, numbers: bool) -> Catalogue:
    """The next version: `count` edits, of which most touch a text or a file, some bring a model and few take one away;
    `numbers`: a day has passed, and half of the download counts with it."""
    models, downloads = dict(catalogue.models), dict(catalogue.downloads)
    for _ in range(count):
        draw, id = rng.random(), rng.choice(list(models))
        record = json.loads(models[id])
        if draw < 0.15:
            record = _record(rng, taken=models)
            downloads[record["id"]] = rng.randrange(2000)
        elif draw < 0.20 and len(models) > 1:
            del models[id], downloads[id]
            continue
        elif draw < 0.60:
            record["description"] = _description(rng)
        elif draw < 0.75:
            record["tags"] = sorted(rng.sample(TAGS, rng.randint(1, 5)))
        else:
            _upload(record, rng)
        models[record["id"]] = canonical(record)
    if numbers:
        for id in rng.sample(list(models), len(models) // 2):
            downloads[id] = downloads.get(id, 0) + int(math.exp(rng.gauss(3, 2)))
    return Catalogue(models, downloads)


def touch(catalogue: Catalogue, rng: random.Random) -> Catalogue:
    """The next version, in which one model has another description."""
    id = rng.choice(list(catalogue.models))
    record = json.loads(catalogue.models[id]) | {"description": _description(rng)}
    return Catalogue({**catalogue.models, id: canonical(record)}, catalogue.downloads)


def real(path: Path) -> Catalogue:
    """A copy of Jan's catalogue (`model_catalog_v2.json`): its names, texts, files and numbers. It has no hashes and
    rounded sizes, so hashes are made up. Raises OSError, ValueError."""
    models: dict[str, bytes] = {}
    downloads: dict[str, int] = {}
    for entry in json.loads(path.read_bytes()):
        id = re.sub(r"[^a-z0-9._-]", "-", f"{entry['model_name']}".lower()).strip(".-")
        id = f"{re.sub(r'[^a-z0-9._-]', '-', entry['developer'].lower())}/{id}"[:128]
        quants = {each["path"].rpartition("/")[2]: each for each in entry.get("quants") or []}
        if id in models or not quants:
            continue  # weights that are not GGUF
        files = [(name, _bytes(each.get("file_size") or "1 GB")) for name, each in quants.items()]
        record = _model(id, entry["model_name"], entry["developer"], files)
        models[id] = canonical(record | {"description": (entry.get("description") or "")[:1000]})
        downloads[id] = entry.get("downloads") or 0
    return Catalogue(models, downloads)


def _record(rng: random.Random, taken: Mapping[str, Any]) -> dict[str, Any]:
    while True:
        maker = MAKERS[min(int(rng.expovariate(0.25)), len(MAKERS) - 1)]
        family, kind, size = rng.choice(FAMILIES), rng.choice(KINDS), rng.choice(SIZES)
        series = f"-v{rng.randrange(1, 60)}.{rng.randrange(10)}" if rng.random() < 0.8 else ""
        name = f"{family}-{size:g}b-{kind}{series}"
        if (id := f"{maker}/{name}") not in taken:
            break
    quants = rng.sample(QUANTS, rng.choice(HOW_MANY))
    files = [(f"{name}-{quant}.gguf", int(size * 1e9 * rng.uniform(0.3, 1.1))) for quant in quants]
    record = _model(id, name.replace("-", " ").title(), maker, files)
    record |= {
        "description": _description(rng),
        "license": rng.choice(LICENSES),
        "arch": family.partition("-")[0],
        "params": int(size * 1e9),
        "ctx": rng.choice((8192, 32768, 131072)),
        "modalities": ["text"],
        "caps": ["tools"] if rng.random() < 0.4 else [],
        "tags": sorted(rng.sample(TAGS, rng.randint(1, 5))),
    }
    return record


def _model(id: str, name: str, maker: str, files: list[tuple[str, int]]) -> dict[str, Any]:
    """`files`: names and sizes; each is a variant."""
    quants = [re.sub(r"\.gguf$", "", file).rpartition("-")[2] for file, _ in files]
    return {
        "id": id,
        "schema": 1,
        "name": name,
        "publisher": maker,
        "variants": [
            {"id": f"{_plain(quant)}-{at}" if _plain(quant) in map(_plain, quants[:at]) else _plain(quant)}
            | {"format": "gguf", "quant": quant[:64], "ram_bytes": files[at][1] * 6 // 5, "files": [at]}
            for at, quant in enumerate(quants)
        ],
        "files": [_file(id, file, size) for file, size in files],
    }


def _file(id: str, name: str, size: int, edition: int = 0) -> dict[str, Any]:
    of = f"{id} {name} {edition}"
    sha256, commit, xet, pieces = (_hash(f"{what} {of}") for what in ("file", "commit", "xet", "pieces"))
    sources = [{"kind": "hf", "repo": id, "rev": commit[:40], "path": name, "xet": xet}]
    if int(sha256[0], 16) < 5:
        sources.append({"kind": "modelscope", "repo": id, "rev": "master", "path": name})
    return {
        "path": name,
        "role": "weights",
        "size": size,
        "sha256": sha256,
        "pieces": {"len": PIECE, "n": -(-size // PIECE), "sha256": pieces, "target": f"pieces/{pieces}.bin"},
        "sources": sources,
    }


def _upload(record: dict[str, Any], rng: random.Random) -> None:
    """The maker has put a repaired file in the place of one."""
    at = rng.randrange(len(record["files"]))
    old = record["files"][at]
    record["files"][at] = _file(record["id"], old["path"], old["size"], rng.randrange(1, 1 << 30))


def _description(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(6, 30))).capitalize() + "."


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9._+-]", "-", text.lower()).strip(".+-")[:100] or "file"


def _bytes(text: str) -> int:
    """ "2.2 GB" and the like."""
    found = re.fullmatch(r"([0-9.]+) ?([KMGT])i?B", text.strip())
    return int(float(found[1]) * 1000 ** ("KMGT".index(found[2]) + 1)) if found else 10**9
