"""The composition root of ``taskbridge streams --rebuild``: makes the states anew beside the workers, and switches."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.streams.contract.contract import notification_bytes
from taskbridge.streams.folding.choice import choose_folding
from taskbridge.streams.positions.changelog_topic import instances_changelog
from taskbridge.streams.positions.version import VERSION_TOPIC, Versions
from taskbridge.streams.rebuild.moving import Move
from taskbridge.streams.rebuild.operation import Operation, operation
from taskbridge.streams.rebuild.publication import Publication
from taskbridge.streams.rebuild.rebuilding import Rebuilding, Sources
from taskbridge.streams.rebuild.sources.copies import Ticker
from taskbridge.streams.rebuild.sources.local_stores import LocalStores

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from taskbridge.streams.transactions.transaction import TransactionalWriter


class NothingToRebuild(OperatorError):
    """There is no events topic on this Kafka."""


def rebuild(
    environment: Mapping[str, str], *, dry_run: bool, tell: Callable[[str], None], partitions: int | None = None
) -> dict[str, Any]:
    """Make the live version of the instances anew from the events; returns what it came to, by name.

    Workers go on meanwhile, and stop for the switch only. With ``dry_run`` nothing is written to Kafka at all.
    ``partitions``: how many all topics are to have from then on.

    Raises:
        ConfigurationError: before anything is begun.
        OperatorError: nothing changed; it can be started again.
    """
    began = time.monotonic()
    with operation(environment, tell) as run, closing(Registry(run.settings.schema_registry_url)) as registry:
        if dry_run:
            # On the disk of the data folder, and of a missing one nothing is to be left behind.
            data_dir = run.settings.data_dir
            there = next(each for each in (data_dir, *data_dir.absolute().parents) if each.is_dir())
            with tempfile.TemporaryDirectory(prefix="rebuild-dry-run-", dir=there) as folder:
                found = _try(run, registry, Path(folder))
        else:
            with run.alone("rebuild", partitions=partitions) as (writer, versions, folder):
                found = _rebuild(run, registry, folder, writer, versions, partitions=partitions)
        return {**found, "seconds": round(time.monotonic() - began, 1)}


def _try(run: Operation, registry: Registry, folder: Path) -> dict[str, Any]:
    live = (run.live_version.read() if VERSION_TOPIC.name in run.topics() else Versions()).live
    homes = _partitions(run)[topics.TASK_EVENTS.name]
    with _rebuilding(run, registry, folder, live, homes) as rebuilding:
        rebuilding.catch_up()
        # Once more for what came meanwhile, or it would count as a difference.
        rebuilding.catch_up()
        for _ in rebuilding.outcomes(live + 1):
            pass
        return {"version": live, "switched": False, **asdict(rebuilding.counts)}


def _rebuild(
    run: Operation,
    registry: Registry,
    folder: Path,
    writer: TransactionalWriter,
    versions: Versions,
    *,
    partitions: int | None,
) -> dict[str, Any]:
    live, there = versions.live, _partitions(run)
    changelog = instances_changelog(live + 1)
    move = None if partitions is None else Move(run, partitions)
    homes = there[topics.TASK_EVENTS.name] if partitions is None else partitions
    if move is not None and instances_changelog(live).name not in there:
        raise NothingToRebuild(f"{instances_changelog(live).name} is lost: rebuild once without --partitions first")
    # Those that are lost; of states, a move makes all anew.
    published = [topics.TASK_NOTIFICATIONS, *([] if move else [topics.TASK_STATES])]
    apply_topics(run.admin, published, partitions=homes)
    # What an earlier rebuild left in it goes first.
    made = run.make_anew(changelog, partitions=homes)
    publication = Publication(
        writer,
        ground=run.ground(topics.TASK_EVENTS.name, changelog.name, made, version=live + 1, partitions=homes),
        versions=versions,
        notifications=task_notification_codec(registry),
        tell=run.tell,
        stopping=run.stopping,
    )
    run.tell(f"version {live + 1} of the instances is made beside version {live}, which stays live")
    with _rebuilding(run, registry, folder, live, homes) as rebuilding:
        rebuilding.catch_up()
        publication.write_changelog(rebuilding)
        # What came meanwhile, so that little is left while no worker works.
        rebuilding.catch_up()
        publication.switch(rebuilding, run.workers, move)
        return {"version": live + 1, "switched": True, "partitions": homes, **asdict(rebuilding.counts)}


@contextmanager
def _rebuilding(run: Operation, registry: Registry, folder: Path, live: int, homes: int) -> Generator[Rebuilding]:
    there, changelog, settings = run.topics(), instances_changelog(live).name, run.settings
    ids = {name: each.topic_id for name, each in run.offsets.topics([changelog, topics.TASK_EVENTS.name]).items()}
    named = run.workers.changelogs(live)
    is_sound = changelog in ids and (not named or named == frozenset({ids[changelog]}))
    if is_sound:
        is_sound = not any(run.offsets.begins(changelog, range(there[changelog])).values())
    if not is_sound:
        run.tell(f"{changelog} is lost or cut: what the events do not tell is taken from local and published states")
    with closing(LocalStores(folder / "stores", retention_days=settings.retention_days)) as stores:
        stores.read(
            settings.data_dir,
            live,
            changelogs=named,
            needed=not is_sound,
            tell=run.tell,
            tick=Ticker(run.tell, "local stores", stopping=run.stopping),
        )
        sources = Sources(
            consumer=run.consumer,
            offsets=run.offsets,
            positions=run.workers.positions,
            changelog=changelog if changelog in ids else None,
            is_sound=is_sound,
            topic_ids=ids,
            stores=stores,
            partitions=there,
            homes=homes,
            folding=choose_folding(
                registry, cached_instances=settings.live_instances, form_fields=settings.form_fields
            ),
            notification_bytes=notification_bytes(run.offsets),
            states=task_state_codec(registry),
            retention_days=settings.retention_days,
        )
        with closing(Rebuilding(folder, sources, say=run.tell, stopping=run.stopping)) as rebuilding:
            yield rebuilding


def _partitions(run: Operation) -> dict[str, int]:
    """How many each topic has.

    Raises:
        NothingToRebuild: there are no events.
    """
    there = run.topics()
    if topics.TASK_EVENTS.name not in there:
        raise NothingToRebuild(f"{topics.TASK_EVENTS.name} is not on this Kafka")
    return there
