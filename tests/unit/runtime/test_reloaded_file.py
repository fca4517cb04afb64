"""A file is looked at now and then; what a broken one says of itself shows none of what it holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from taskbridge.runtime.reloaded_file import FileBroken, ReloadedFile, parse_toml

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Words:
    words: list[str]

    @property
    def count(self) -> int:
        return len(self.words)


class Text(ReloadedFile[Words]):
    title = "text file"
    log_events = "words_reloaded", "words_broken"

    def parse(self, text: str) -> Words:
        return Words(text.split())


class Numbers(BaseModel):
    numbers: tuple[int, ...]


def test_it_is_looked_at_now_and_then_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.reloaded_file.POLL_S", 1000)
    (tmp_path / "text").write_text("one")
    file, looked = Text(tmp_path / "text"), list[int]()
    monkeypatch.setattr(file, "reload_if_changed", lambda: looked.append(1))

    async def scenario() -> None:
        watching = asyncio.create_task(file.watch())
        for _ in range(3):
            await asyncio.to_thread(lambda: None)
        watching.cancel()

    asyncio.run(scenario())
    assert looked == []


def test_it_is_kept_up_with_until_the_watch_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.reloaded_file.POLL_S", 0)
    path = tmp_path / "text"
    path.write_text("one")
    file = Text(path)

    async def scenario() -> None:
        watching = asyncio.create_task(file.watch())
        path.write_text("another")
        async with asyncio.timeout(10):
            while file.current.words == ["one"]:  # noqa: ASYNC110 - a file has no event for it
                await asyncio.sleep(0)
        watching.cancel()

    asyncio.run(scenario())
    assert file.current.words == ["another"]


@pytest.mark.parametrize("text", ["numbers = [", 'numbers = ["s3cret", "other"]', "a = " + "[" * 10_000])
def test_what_is_not_right_is_told_in_one_line_without_it(text: str) -> None:
    with pytest.raises(FileBroken) as caught:
        parse_toml(text, Numbers)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
