"""Bytes as they lie on a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.bench.streams.setup import Setup


def bytes_below(folder: Path) -> int:
    """What the files below a folder hold."""
    return sum(_size(path) for path in folder.rglob("*"))


def topic_bytes(setup: Setup, topic: str) -> int:
    """What a topic's segments hold on the one broker; their indexes, a few thousandths, are left out."""
    partitions = {f"{topic}-{number}" for number in range(setup.partitions)}
    # Old segments of a topic that was deleted and recreated stay for a while under another name.
    segments = setup.folder.rglob(f"{topic}-[0-9]*/*.log")
    return sum(_size(path) for path in segments if path.parent.name in partitions)


def topics_bytes(setup: Setup, topics: Iterable[str]) -> dict[str, int]:
    return {topic: topic_bytes(setup, topic) for topic in topics}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0  # compacted, or flushed, just now
