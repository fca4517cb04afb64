"""The ids of schemas as they are remembered on disk: by subject and text, since an id belongs to one text for ever."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def key_of(subject: str, text: str) -> str:
    # The id belongs to this text: a changed schema must not go out under its predecessor's id.
    canonical = json.dumps(json.loads(text), sort_keys=True)
    return f"{subject}#{hashlib.sha256(canonical.encode()).hexdigest()}"


def read(path: Path | None) -> dict[str, int]:
    if path is None:
        return {}
    try:
        return {str(key): int(value) for key, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def write(path: Path | None, ids: dict[str, int]) -> str | None:
    """Why they could not be written, if so: a full disk must not keep those from being used that are known."""
    if path is None:
        return None
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(ids, indent=2, sort_keys=True))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return error.strerror or str(error)
    return None
