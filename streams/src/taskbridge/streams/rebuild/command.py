"""``taskbridge streams --rebuild`` and ``--forget-old``: rebuild all states while workers run, then switch over."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.positions.changelog_topic import instances_changelog
from taskbridge.streams.positions.version import FIRST_VERSION, VERSION_TOPIC, Versions
from taskbridge.streams.rebuild.moving import Move
from taskbridge.streams.rebuild.operation import Operation, delete_topics, operation
from taskbridge.streams.rebuild.publication import Publication
from taskbridge.streams.rebuild.rebuilding import Rebuilding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class NothingToRebuild(OperatorError):
    """The events topic, or the changelog of the live version, is missing."""


def rebuild(
    environment: Mapping[str, str], *, dry_run: bool, tell: Callable[[str], None], partitions: int | None = None
) -> dict[str, Any]:
    """Rebuild the instances from the events as a new version; returns counts by name.

    Workers run meanwhile, and stop only for the switch. With ``dry_run`` nothing is written to Kafka.
    ``partitions``: the new number of partitions of all topics.

    Raises:
        ConfigurationError: a setting is wrong; nothing was started.
        OperatorError: nothing changed; it is safe to run it again.
    """
    began = time.monotonic()
    with operation(environment, tell) as run:
        found = _try(run) if dry_run else _rebuild(run, partitions)
        return {**found, "seconds": round(time.monotonic() - began, 1)}


def forget_old(environment: Mapping[str, str]) -> list[str]:
    """Delete the changelogs of versions that are no longer live; returns their names.

    Raises:
        OperatorError: Kafka does not answer, or denies access.
    """
    with operation(environment, tell=lambda _line: None) as run:
        there = run.topics()
        live = run.live_version.read().live if VERSION_TOPIC.name in there else FIRST_VERSION
        names = [instances_changelog(version).name for version in range(FIRST_VERSION, live)]
        old = [name for name in names if name in there]
        if old:
            delete_topics(run.admin, old)
        return old


def _try(run: Operation) -> dict[str, Any]:
    # On the disk of the data folder, which a dry run does not create.
    data_dir = run.settings.data_dir
    there = next(each for each in (data_dir, *data_dir.absolute().parents) if each.is_dir())
    homes = _partitions(run)[topics.TASK_EVENTS.name]
    live = (run.live_version.read() if VERSION_TOPIC.name in run.topics() else Versions()).live
    with (
        tempfile.TemporaryDirectory(prefix="rebuild-dry-run-", dir=there) as folder,
        closing(Rebuilding(run, run.registry, Path(folder), live=live, homes=homes)) as rebuilding,
    ):
        rebuilding.read()
        # Again, because new events would count as differences.
        rebuilding.catch_up()
        rebuilding.compare(live + 1)
        rebuilding.count()
        return {"version": live, "switched": False, **asdict(rebuilding.counts)}


def _rebuild(run: Operation, partitions: int | None) -> dict[str, Any]:
    with run.alone("rebuild", partitions=partitions) as (writer, versions, folder):
        live, there = versions.live, _partitions(run)
        changelog, version = instances_changelog(live + 1), live + 1
        move = None if partitions is None else Move(run, partitions)
        homes = partitions or there[topics.TASK_EVENTS.name]
        if move is not None and instances_changelog(live).name not in there:
            raise NothingToRebuild(
                f"Kafka has no topic {instances_changelog(live).name}: run --rebuild without --partitions first"
            )
        # Create missing topics; a move recreates the states topic.
        published = [topics.TASK_NOTIFICATIONS, *([] if move else [topics.TASK_STATES])]
        apply_topics(run.admin, published, partitions=homes)
        # Remains of an earlier rebuild are deleted.
        made = run.recreate(changelog, partitions=homes)
        ground = run.ground(topics.TASK_EVENTS.name, changelog.name, made, version=version, partitions=homes)
        publication = Publication(run, run.registry, writer, ground)
        run.tell(f"building version {version} of the instances; version {live} stays live")
        with closing(Rebuilding(run, run.registry, folder, live=live, homes=homes)) as rebuilding:
            rebuilding.read()
            if move is None:
                rebuilding.compare(version)
            publication.write_changelog(rebuilding)
            # New events first, so that workers are stopped only briefly.
            rebuilding.catch_up()
            if move is None:
                rebuilding.compare(version)
            publication.write_changes(rebuilding)
            publication.switch(rebuilding, versions, move)
            rebuilding.count()
            return {"version": version, "switched": True, "partitions": homes, **asdict(rebuilding.counts)}


def _partitions(run: Operation) -> dict[str, int]:
    """How many each topic has.

    Raises:
        NothingToRebuild: the events topic does not exist.
    """
    there = run.topics()
    if topics.TASK_EVENTS.name not in there:
        raise NothingToRebuild(f"Kafka has no topic {topics.TASK_EVENTS.name}, so there is nothing to rebuild from")
    return there
