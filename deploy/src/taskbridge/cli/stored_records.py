"""The stored records, dead letters and quarantined callbacks: their commands ``list`` and ``show``, and replay."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, WhichOne, example, operator_connection
from taskbridge.cli.terminal import Heartbeat, json_line, progress, say
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from taskbridge.cli.connection import Connection
    from taskbridge.runtime.producer import AsyncProducer
    from taskbridge.schemas.topics import Topic

_BATCH = 200
_WIDTH = 15

E = TypeVar("E")
R = TypeVar("R")


@dataclass(kw_only=True)
class StoredRecords(Generic[E]):
    """One kind of stored record: its words, and how it is read and shown."""

    command: str
    noun: str
    none: str
    """The message where there are none."""
    example_id: str
    example_reason: str
    read: Callable[[Connection, dict[str, str]], Iterable[E]]
    """Every record; the mapping receives the time of replay by id."""
    position: Callable[[E], tuple[int, str]]
    """The time of arrival and the id."""
    summary: Callable[[E], dict[str, Any]]
    """The fields in a list, with ``id`` and ``reason``."""
    whole: Callable[[E, Connection], dict[str, Any]]
    """All fields, with ``headers``; the last one is the content."""

    def add_commands(self, app: typer.Typer) -> None:
        program = f"taskbridge {self.command}"

        @app.command(
            "list",
            help=f"List the {self.noun}s in the order of their arrival, with the time of their replay.",
            epilog=example(f"{program} list", f"{program} list --reason {self.example_reason} --json"),
        )
        def list_(  # pyright: ignore[reportUnusedFunction]
            reason: Annotated[str | None, typer.Option(help="Only those with this reason.")] = None,
            bootstrap_servers: BootstrapServers = None,
            registry_url: RegistryUrl = None,
            data_dir: DataDir = None,
            as_json: Json = False,  # noqa: FBT002
        ) -> None:
            replays: dict[str, str] = {}
            with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
                summaries = [self.summary(each) for each in sorted(self.read(connection, replays), key=self.position)]
            found = [each for each in summaries if reason in (None, each["reason"])]
            for each in found:
                each["replayed_at"] = replays.get(each["id"])
                say(json_line(each) if as_json else _text_line(each))
            if not found:
                progress(self._nothing_for(reason, [each["reason"] for each in summaries]))

        @app.command(
            "show", help=f"Print all fields of one {self.noun}.", epilog=example(f"{program} show {self.example_id}")
        )
        def show(  # pyright: ignore[reportUnusedFunction]
            entry_id: WhichOne,
            bootstrap_servers: BootstrapServers = None,
            registry_url: RegistryUrl = None,
            data_dir: DataDir = None,
            as_json: Json = False,  # noqa: FBT002
        ) -> None:
            replays: dict[str, str] = {}
            with operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
                entries = self.by_id(connection, replays)
                self._check([entry_id], entries)
                shown = {**self.whole(entries[entry_id], connection)}
            content = shown.popitem()
            shown["replayed_at"] = replays.get(entry_id)
            if as_json:
                say(json_line(shown | dict([content])))
            else:
                _print_whole(shown, content[1])

    def by_id(self, connection: Connection, replays: dict[str, str]) -> dict[str, E]:
        return {self.position(each)[1]: each for each in self.read(connection, replays)}

    def chosen(
        self, reasons: Mapping[str, str | None], ids: list[str] | None, reason: str | None, *, everything: bool
    ) -> list[str]:
        """The ids to replay: those given, else all of the reason, else all; ``reasons`` has all by id.

        Raises ConfigurationError if an id does not exist, or no record has the reason.
        """
        if ids:
            self._check(ids, reasons)
            return list(dict.fromkeys(ids))
        found = [each for each, its_reason in reasons.items() if everything or reason == its_reason]
        if reasons and not found:
            raise ConfigurationError(self._nothing_for(reason, reasons.values()))
        if not found:
            progress(f"nothing to replay: {self.none}")
        return found

    def _check(self, ids: Sequence[str], stored: Collection[str]) -> None:
        if missing := [each for each in ids if each not in stored]:
            raise ConfigurationError(
                f"no {self.noun} has the id {', '.join(missing)}: list the ids with 'taskbridge {self.command} list'"
            )

    def _nothing_for(self, reason: str | None, reasons: Collection[str | None]) -> str:
        if reason is None or not reasons:
            return self.none
        counted = Counter(each or "-" for each in reasons).most_common()
        found = ", ".join(f"{each} ({count})" for each, count in counted)
        return f"no {self.noun} has the reason '{reason}'; reasons found: {found}"


def _text_line(summary: dict[str, Any]) -> str:
    values = [str(value or "-") for name, value in summary.items() if name != "replayed_at"]
    return "  ".join([*values, *([f"replayed at {at}"] if (at := summary["replayed_at"]) else [])])


def _print_whole(shown: dict[str, Any], content: Any) -> None:
    """Print one line per field: line breaks are escaped, except in the content at the end."""
    fields = [*((name, each) for name, each in shown.items() if name != "headers")]
    fields += [("header", f"{name}: {each}") for name, each in sorted(shown["headers"].items())]
    lines = [f"{name:{_WIDTH}} {'-' if each is None else each}".replace("\n", "\\n") for name, each in fields]
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=2)
    say("\n".join(lines) + f"\n\n{text}")


def check_one_way(ids: list[str] | None, reason: str | None, *, everything: bool) -> None:
    """Check that records are selected in exactly one way. Raises BadParameter if in none, or in several."""
    if sum((bool(ids), reason is not None, everything)) != 1:
        raise typer.BadParameter("select records by exactly one of: ids, --reason R, --all", param_hint="ID")


async def publish(
    connection: Connection, entries: Sequence[E], one: Callable[[AsyncProducer, E], Awaitable[R]], *, size: int = _BATCH
) -> list[R]:
    """The outcome of ``one`` for each entry, ``size`` of them at a time, with progress."""
    if not entries:
        return []
    producer, heartbeat = connection.producer(), Heartbeat(progress)
    done: list[R] = []
    try:
        for start in range(0, len(entries), size):
            batch = asyncio.gather(*(one(producer, each) for each in entries[start : start + size]))
            while not (await asyncio.wait([batch], timeout=1))[0]:
                heartbeat.beat(f"publishing: {len(done)} of {len(entries)} done")
            done += batch.result()
    finally:
        await producer.close()
    return done


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
