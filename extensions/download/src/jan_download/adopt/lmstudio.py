"""LM Studio's models: `<folder>/PUBLISHER/MODEL/FILE.gguf`, which says nothing of hashes.

The program is closed; this is from its documentation (https://lmstudio.ai/docs/app/advanced/import-model) and from its
own open-source client: `findLMStudioHome` of github.com/lmstudio-ai/lmstudio.js reads the home from
`~/.lmstudio-home-pointer`, else takes `~/.cache/lm-studio` or `~/.lmstudio`. Another folder of models is
`downloadsFolder` in `settings.json` there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from .places import Places
from .reading import small_text

__all__ = ["folders"]


class _Settings(msgspec.Struct, rename="camel"):
    downloads_folder: str = ""


def folders(places: Places) -> Iterator[Path]:
    """Folders of models."""
    for home in dict.fromkeys(_homes(places)):
        try:
            chosen = msgspec.json.decode(small_text(home / "settings.json"), type=_Settings).downloads_folder
        except msgspec.MsgspecError:
            chosen = ""
        if Path(chosen).is_absolute():
            yield Path(chosen)
        yield home / "models"


def _homes(places: Places) -> Iterator[Path]:
    if home := places.home:
        pointed = Path(small_text(home / ".lmstudio-home-pointer").strip())
        if pointed.is_absolute():
            yield pointed
        yield home / ".lmstudio"
        yield home / ".cache" / "lm-studio"
