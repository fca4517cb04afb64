"""What ``taskbridge streams --rebuild``, ``--retell`` and ``--forget-old`` print."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskbridge.cli.connection import find_connection, first_given
from taskbridge.cli.data_folder import data_folder
from taskbridge.cli.terminal import json_line, progress, say
from taskbridge.streams.rebuild.command import forget_old, rebuild
from taskbridge.streams.rebuild.retelling import retell

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINES = {
    "events": "events folded",
    "rejected": "records that cannot be folded, parked before",
    "instances": "instances",
    "built_upon": "of them with events that are gone: folded onto the old state",
    "carried_over": "of them with no event left: taken over as they were",
    "from_stores": "of those: from a local store, as the changelog does not have them",
    "from_published": "of those: from the published state, as nothing else has them",
    "let_go": "instances let go, their retention being over",
    "lost": "instances lost: no event, and no state that can be read",
    "states": "states published, having come out another",
    "notifications": "notifications of what came out another",
}
_ALWAYS = ("events", "instances", "states", "notifications")
"""Also where there are none."""


def remake(*, dry_run: bool, partitions: int | None, as_json: bool) -> None:
    """Run a rebuild to its end."""
    found = rebuild(_environment(), dry_run=dry_run, tell=progress, partitions=partitions)
    if as_json:
        say(json_line(found))
        return
    for name, text in _LINES.items():
        if found[name] or name in _ALWAYS:
            say(f"{found[name]:>12,}  {text}")
    if found["switched"]:
        if partitions is not None:
            say(f"all topics have {partitions} partitions: set TASKBRIDGE_PARTITIONS={partitions} from now on")
        say(f"version {found['version']} is live. Once you are content: taskbridge streams --forget-old")
    else:
        say("nothing was changed")


def tell_again(*, as_json: bool) -> None:
    """Run a retelling to its end."""
    found = retell(_environment(), tell=progress)
    if as_json:
        say(json_line(found))
        return
    say(f"{found['instances']:>12,}  instances")
    say(f"{found['notifications']:>12,}  notifications of how they stand")
    if found["unfounded"]:
        say(f"{found['unfounded']:>12,}  of them about lines that no instance shows: they go")
    say("the inboxes are made anew of them as the workers read on")


def forget(*, as_json: bool) -> None:
    """Delete old changelogs, and tell which."""
    deleted = forget_old(_environment())
    for name in deleted:
        say(json_line({"deleted": name}) if as_json else f"deleted {name}")
    if not deleted and not as_json:
        say("there is nothing to forget")


def _environment() -> Mapping[str, str]:
    """The service's own settings; where Kafka and the registry are not among them, as for every operator's command."""
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
