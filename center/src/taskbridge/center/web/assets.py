"""The pages' own files, read once from the package: nothing else on the disk can be requested."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    compressed: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Assets:
    """All files by name. ``version`` changes when any of them does."""

    pages: Mapping[str, Asset]
    parts: Mapping[str, Asset]
    version: str


def read_assets() -> Assets:
    """Read the package's files; pages request the files of this very version, which may then be cached for ever."""
    found = {
        entry.name: entry.read_bytes()
        for entry in sorted(files("taskbridge.center.web").joinpath("assets").iterdir(), key=lambda entry: entry.name)
        if _suffix(entry.name) in _MEDIA_TYPES
    }
    digest = hashlib.sha256()
    for name, content in found.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    version = digest.hexdigest()[:16]
    pages = {
        name: _asset(name, content.replace(b'"/assets/', f'"/assets/{version}/'.encode()))
        for name, content in found.items()
        if _suffix(name) == ".html"
    }
    parts = {name: _asset(name, content) for name, content in found.items() if name not in pages}
    return Assets(pages, parts, version)


def _asset(name: str, content: bytes) -> Asset:
    etag = hashlib.sha256(content).hexdigest()[:24]
    # Weak: both encodings carry it.
    return Asset(content, gzip.compress(content, 9, mtime=0), _MEDIA_TYPES[_suffix(name)], f'W/"{etag}"')


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
