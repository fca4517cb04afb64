"""Listing, showing, choosing and marking stored records: dead letters and quarantined callbacks."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from taskbridge.cli.terminal import json_line, progress, say
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from taskbridge.runtime.producer import AsyncProducer
    from taskbridge.schemas.topics import Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecords:
    """One kind of stored record, with the messages for an empty result."""

    none: str
    none_for: str
    """Followed by the reason."""
    none_with: str
    """``{}`` is replaced by the ids."""

    def print_list(
        self, summaries: Sequence[dict[str, Any]], replays: Mapping[str, str], reason: str | None, *, as_json: bool
    ) -> None:
        """Print one line per record, of one reason if given; ``replays`` has the time of replay by id."""
        found = [each for each in summaries if reason is None or each["reason"] == reason]
        for each in found:
            each["replayed_at"] = replays.get(each["id"])
            say(json_line(each) if as_json else _text_line(each))
        if not found:
            progress(self._nothing_for(reason, [each["reason"] for each in summaries]))

    def check(self, ids: Sequence[str], stored: Collection[str]) -> None:
        """Check that all ids exist.

        Raises:
            ConfigurationError: one does not.
        """
        if missing := [each for each in ids if each not in stored]:
            raise ConfigurationError(self.none_with.format(", ".join(missing)))

    def chosen(self, reasons: Mapping[str, str | None], ids: list[str] | None, reason: str | None) -> list[str]:
        """The ids to replay: those given, else all of the reason, else all; ``reasons`` has all by id.

        Raises:
            ConfigurationError: an id does not exist, or no record has the reason.
        """
        if ids:
            self.check(ids, reasons)
            return list(dict.fromkeys(ids))
        found = [each for each, its_reason in reasons.items() if reason in (None, its_reason)]
        if reasons and not found:
            raise ConfigurationError(self._nothing_for(reason, reasons.values()))
        if not found:
            progress(f"nothing to replay: {self.none}")
        return found

    def _nothing_for(self, reason: str | None, reasons: Collection[str | None]) -> str:
        if reason is None or not reasons:
            return self.none
        counted = Counter(each or "-" for each in reasons).most_common()
        return f"{self.none_for} '{reason}'; reasons found: {', '.join(f'{each} ({count})' for each, count in counted)}"


def _text_line(summary: dict[str, Any]) -> str:
    values = [str(value or "-") for name, value in summary.items() if name != "replayed_at"]
    return "  ".join([*values, *([f"replayed at {at}"] if (at := summary["replayed_at"]) else [])])


def check_one_way(ids: list[str] | None, reason: str | None, *, everything: bool) -> None:
    """Check that records are selected in exactly one way.

    Raises:
        typer.BadParameter: in none, or in several.
    """
    if sum((bool(ids), reason is not None, everything)) != 1:
        raise typer.BadParameter("select records by exactly one of: ids, --reason R, --all", param_hint="ID")


def print_whole(shown: dict[str, Any], text: str, *, width: int) -> None:
    """Print all fields of one record, one line each: line breaks are escaped, except in ``text`` at the end."""
    lines = [f"{name:{width}} {'-' if each is None else each}" for name, each in shown.items() if name != "headers"]
    lines += [f"{'header':{width}} {name}: {each}" for name, each in shown["headers"].items()]
    say("\n".join(each.replace("\n", "\\n") for each in lines) + f"\n\n{text}")


async def mark_replayed(producer: AsyncProducer, topic: Topic, entry_id: str, key: bytes | None) -> None:
    """Mark a record as replayed, on its own topic.

    Returns also if Kafka refuses the mark: the next replay finds the record published, and marks it.
    """
    from taskbridge.schemas.dead_letters import replay_headers

    headers = replay_headers(entry_id, time.time_ns() // 1_000_000)
    try:
        await producer.produce(topic.name, key=key, value=None, headers=headers)
    except OperatorError as error:
        progress(f"{entry_id} was replayed, but not marked as replayed ({error}): replay it again to mark it")
