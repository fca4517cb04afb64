"""Print the results of ``taskbridge streams --rebuild``, ``--republish`` and ``--forget-old``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskbridge.cli.connection import find_connection, first_given
from taskbridge.cli.data_folder import data_folder
from taskbridge.cli.terminal import json_line, progress, say
from taskbridge.streams.rebuild.command import forget_old, rebuild
from taskbridge.streams.rebuild.republication import republish

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINES = {
    "events": "events folded",
    "rejected": "records that cannot be folded; they are dead letters already",
    "instances": "instances",
    "built_upon": "of these: some events deleted; the rest folded onto the old state",
    "carried_over": "of these: all events deleted; state copied unchanged",
    "from_stores": "of the two above: read from a local store, because the changelog lacks them",
    "from_published": "of the two above: read from the published state, because nothing else has them",
    "let_go": "instances dropped, because their retention is over",
    "lost": "instances lost: no event and no readable state is left",
    "states": "states that changed, published",
    "notifications": "notifications of these changes",
}
_ALWAYS = ("events", "instances", "states", "notifications")
"""Printed even when zero."""


def rebuild_states(*, dry_run: bool, partitions: int | None, as_json: bool) -> None:
    """Rebuild all states, and print the counts."""
    found = rebuild(_environment(), dry_run=dry_run, report=progress, partitions=partitions)
    if as_json:
        say(json_line(found))
        return
    for name, text in _LINES.items():
        if found[name] or name in _ALWAYS:
            say(f"{found[name]:>12,}  {text}")
    if found["switched"]:
        if partitions is not None:
            say(f"All topics have {partitions} partitions. Set TASKBRIDGE_PARTITIONS={partitions} from now on.")
        say(f"Version {found['version']} is live. Check it, then delete the old one: taskbridge streams --forget-old")
    else:
        say("Dry run: nothing was changed.")


def republish_entries(*, as_json: bool) -> None:
    """Publish every present list entry again, and print the counts."""
    found = republish(_environment(), report=progress)
    if as_json:
        say(json_line(found))
        return
    say(f"{found['instances']:>12,}  instances")
    say(f"{found['notifications']:>12,}  notifications of present list entries")
    if found["unfounded"]:
        say(f"{found['unfounded']:>12,}  of these: removals of entries that no instance shows")
    say("Workers rebuild the inboxes from these notifications.")


def forget(*, as_json: bool) -> None:
    """Delete old changelogs, and print their names."""
    deleted = forget_old(_environment())
    for name in deleted:
        say(json_line({"deleted": name}) if as_json else f"deleted {name}")
    if not deleted and not as_json:
        say("No old version to delete.")


def _environment() -> Mapping[str, str]:
    """The service's settings; missing addresses of Kafka and the registry are found as for every command."""
    found = find_connection(None, None)
    defaults = {
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": found.bootstrap_servers,
        "STREAMS_SCHEMA_REGISTRY_URL": found.registry_url,
    }
    if (config_file := first_given(os.environ, "KAFKA_CONFIG_FILE")) is not None:
        defaults["STREAMS_KAFKA_CONFIG_FILE"] = config_file
    folder = data_folder()
    if folder.running() is not None:
        defaults["STREAMS_DATA_DIR"] = str(folder.streams)
    return {**defaults, **os.environ}
