"""The typed errors of models: files, the store and the pool. Codes -32039, -32043 to -32049 and
-32053.

Those of engine builds are in `engines/errors.py`, those of running a model in `failures.py`. Light, because the method
table names them when the host starts.
"""

from __future__ import annotations

from jan_core import JanError

__all__ = [
    "InvalidModelFile",
    "InvalidModelId",
    "ModelBusy",
    "ModelExists",
    "ModelNotFound",
    "ModelReadOnly",
    "ModelRefused",
    "NoUsableEngine",
    "RequestRefused",
]


class RequestRefused(JanError):
    """An extension refused the request, or no engine may answer it. The message is its reason."""

    code, type = -32039, "request_refused"


class InvalidModelFile(JanError):
    """The file is not a usable GGUF model.

    `data.reason` is a stable word (`not_gguf`, `truncated`, `version`, `big_endian`, `limit`, `malformed`, `tensor`,
    `missing_key`, `missing_tensors`, `not_a_model`, `shard`, `mismatch`, `changed`, `unreadable`); `data.offset` is the
    byte where it was noticed.
    """

    code, type = -32043, "invalid_model_file"

    def __init__(self, message: str, /, *, path: str, reason: str, offset: int = 0) -> None:
        super().__init__(message, path=path, reason=reason, offset=offset)
        self.reason = reason
        self.offset = offset


class ModelNotFound(JanError):
    """No model of this id is installed. `data.known` lists the ids that are."""

    code, type = -32044, "model_not_found"


class InvalidModelId(JanError):
    """No id: 1 to 96 of a-z, 0-9, dot, dash and underscore, with a letter or digit at both ends."""

    code, type = -32045, "invalid_model_id"


class ModelExists(JanError):
    """A model of this id is installed already."""

    code, type = -32046, "model_exists"


class ModelReadOnly(JanError):
    """The embedded model is part of this software: it cannot be replaced or deleted."""

    code, type = -32047, "model_read_only"


class ModelBusy(JanError):
    """The model is answering requests; `data.requests` says how many."""

    code, type, retryable = -32048, "model_busy", True


class ModelRefused(JanError):
    """An extension voted against loading the model (`jan_admit_load`): `extension` and its reason."""

    code, type = -32053, "model_refused"


class NoUsableEngine(JanError):
    """No engine build can run on this machine. `data.refused` says why, by build."""

    code, type = -32049, "no_usable_engine"
