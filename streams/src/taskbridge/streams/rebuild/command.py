"""``taskbridge streams --rebuild`` and ``--forget-old``: states made anew beside the workers, and a switch to them."""

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
    with operation(environment, tell) as run:
        found = _try(run) if dry_run else _rebuild(run, partitions)
        return {**found, "seconds": round(time.monotonic() - began, 1)}


def forget_old(environment: Mapping[str, str]) -> list[str]:
    """Delete what is left of versions that are not live any more: returns the names of their changelogs.

    Raises:
        OperatorError: Kafka does not answer, or does not allow it.
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
    # On the disk of the data folder, and of a missing one nothing is to be left behind.
    data_dir = run.settings.data_dir
    there = next(each for each in (data_dir, *data_dir.absolute().parents) if each.is_dir())
    homes = _partitions(run)[topics.TASK_EVENTS.name]
    live = (run.live_version.read() if VERSION_TOPIC.name in run.topics() else Versions()).live
    with (
        tempfile.TemporaryDirectory(prefix="rebuild-dry-run-", dir=there) as folder,
        closing(Rebuilding(run, run.registry, Path(folder), live=live, homes=homes)) as rebuilding,
    ):
        rebuilding.read()
        # Once more for what came meanwhile, or it would count as a difference.
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
            raise NothingToRebuild(f"{instances_changelog(live).name} is lost: rebuild once without --partitions first")
        # Those that are lost; of states, a move makes all anew.
        published = [topics.TASK_NOTIFICATIONS, *([] if move else [topics.TASK_STATES])]
        apply_topics(run.admin, published, partitions=homes)
        # What an earlier rebuild left in it goes first.
        made = run.recreate(changelog, partitions=homes)
        ground = run.ground(topics.TASK_EVENTS.name, changelog.name, made, version=version, partitions=homes)
        publication = Publication(run, run.registry, writer, ground)
        run.tell(f"version {version} of the instances is made beside version {live}, which stays live")
        with closing(Rebuilding(run, run.registry, folder, live=live, homes=homes)) as rebuilding:
            rebuilding.read()
            if move is None:
                rebuilding.compare(version)
            publication.write_changelog(rebuilding)
            # What came meanwhile, so that little is left while no worker works.
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
        NothingToRebuild: there are no events.
    """
    there = run.topics()
    if topics.TASK_EVENTS.name not in there:
        raise NothingToRebuild(f"{topics.TASK_EVENTS.name} is not on this Kafka")
    return there
