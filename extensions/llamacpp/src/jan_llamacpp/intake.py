"""What is taken in with a GGUF file: the other files of a split model, its projector; and whether they fit together.

Looks and checks; copies nothing (`store.py`) and loads nothing.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from .errors import InvalidModelFile
from .gguf import GGUFInfo, read_info, read_model, shards_of

__all__ = ["Intake", "look_at", "look_at_adapter"]


class Intake(Struct, frozen=True):
    """The files to take in, all checked. `files`: the model's, in order. `projector` None: it has none."""

    files: list[Path]
    info: GGUFInfo
    projector: Path | None


def look_at(source: Path, projector: Path | None = None, *, find: bool = True) -> Intake:
    """Look at the model `source` is (one of) the files of. `projector`: its projector; None: with `find`, the one that
    lies beside it and fits it.

    Raises InvalidModelFile.
    """
    info = read_model(source)
    if info.kind != "model":
        what = {
            "adapter": "an adapter: it is imported for an installed model (its id as `base`)",
            "projector": "a projector: it is imported with its model",
        }
        raise InvalidModelFile(f"{source.name} is {what[info.kind]}", path=str(source), reason="not_a_model")
    if projector is not None:
        check_projector(projector, info)
    elif find:
        projector = _beside(source, info)
    files = shards_of(source) if info.split[1] > 1 else [source]
    return Intake([file.resolve() for file in files], info, projector.resolve() if projector else None)


def check_projector(path: Path, model: GGUFInfo) -> None:
    """Raises InvalidModelFile when the file is no projector, or one of another model."""
    info = read_info(path)
    if info.kind != "projector":
        raise InvalidModelFile(f"{path.name} is no projector", path=str(path), reason="not_a_model")
    widths = _widths(info)
    if widths and not any(width % model.embedding_length == 0 for width in widths):
        wide = " or ".join(map(str, widths))
        message = f"{path.name} makes embeddings of {wide} numbers; {model.name} takes {model.embedding_length}"
        raise InvalidModelFile(message, path=str(path), reason="mismatch")


def look_at_adapter(path: Path, model: GGUFInfo) -> GGUFInfo:
    """A LoRA adapter's header. Raises InvalidModelFile when the file is none, or one for another architecture."""
    info = read_info(path)
    if info.kind != "adapter":
        raise InvalidModelFile(f"{path.name} is no adapter", path=str(path), reason="not_a_model")
    if info.architecture != model.architecture:
        message = f"{path.name} is an adapter for {info.architecture} models; {model.name} is {model.architecture}"
        raise InvalidModelFile(message, path=str(path), reason="mismatch")
    return info


def _beside(source: Path, model: GGUFInfo) -> Path | None:
    """The one projector in the model's folder that fits it; of several, none: which one is the person's choice."""
    fitting = []
    for path in sorted(source.resolve().parent.glob("*mmproj*.gguf")):
        try:
            check_projector(path, model)
        except InvalidModelFile:
            continue
        fitting.append(path)
    return fitting[0] if len(fitting) == 1 else None


def _widths(projector: GGUFInfo) -> list[int]:
    """How many numbers an embedding it makes has; for models that put some into several layers, a multiple."""
    keys = ("clip.vision.projection_dim", "clip.audio.projection_dim")
    return [width for key in keys if isinstance(width := projector.metadata.get(key), int) and width > 0]
