"""The composition root of ``taskbridge streams --rebuild``: makes the states anew beside the workers, and switches."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas import topics
from schemas.codec import task_notification_codec, task_state_codec
from schemas.errors import OperatorError
from schemas.registry import Registry
from streams.contract import notification_bytes
from streams.fold.folding_choice import choose_folding
from streams.rebuild.moving import Move
from streams.rebuild.operation import Operation, operation
from streams.rebuild.publication import Publication
from streams.rebuild.rebuilding import Rebuilding, Sources
from streams.tables.changelog_topic import instances_changelog
from streams.version import VERSION_TOPIC, Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streams.commit.transaction import TransactionalWriter


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
    with closing(_rebuilding(run, registry, folder, live, homes)) as rebuilding:
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
    live, there = versions.live, _partitions(run, moving=partitions is not None)
    changelog = instances_changelog(live + 1)
    move = None if partitions is None else Move(run, partitions)
    homes = there[topics.TASK_EVENTS.name] if partitions is None else partitions
    if move is not None and instances_changelog(live).name not in there:
        raise NothingToRebuild(f"{instances_changelog(live).name} is lost: rebuild once without --partitions first")
    # What an earlier rebuild left in it goes first.
    run.make_anew(changelog, partitions=homes)
    publication = Publication(
        writer,
        changelog=changelog.name,
        versions=versions,
        notifications=task_notification_codec(registry),
        tell=run.tell,
        stopping=run.stopping,
    )
    run.tell(f"version {live + 1} of the instances is made beside version {live}, which stays live")
    with closing(_rebuilding(run, registry, folder, live, homes)) as rebuilding:
        rebuilding.catch_up()
        publication.write_changelog(rebuilding)
        # What came meanwhile, so that little is left while no worker works.
        rebuilding.catch_up()
        publication.switch(rebuilding, run.workers, move)
        return {"version": live + 1, "switched": True, "partitions": homes, **asdict(rebuilding.counts)}


def _rebuilding(run: Operation, registry: Registry, folder: Path, live: int, homes: int) -> Rebuilding:
    there, changelog = run.topics(), instances_changelog(live).name
    if changelog not in there:
        run.tell(f"{changelog} is lost: what the events do not tell is taken from the published states")
    sources = Sources(
        consumer=run.consumer,
        offsets=run.offsets,
        positions=run.workers.positions,
        changelog=changelog if changelog in there else None,
        partitions=there,
        homes=homes,
        folding=choose_folding(registry, live_instances=run.settings.live_instances),
        notification_bytes=notification_bytes(run.offsets),
        states=task_state_codec(registry),
        retention_days=run.settings.retention_days,
    )
    return Rebuilding(folder, sources, say=run.tell, stopping=run.stopping)


def _partitions(run: Operation, *, moving: bool = False) -> dict[str, int]:
    """How many each topic has.

    Raises:
        NothingToRebuild: there are no events.
    """
    there = run.topics()
    # Those that a move had taken away, and did not come to write anew, it makes again.
    if topics.TASK_EVENTS.name not in there or (topics.TASK_STATES.name not in there and not moving):
        raise NothingToRebuild(f"{topics.TASK_EVENTS.name} or {topics.TASK_STATES.name} is not on this Kafka")
    return there
