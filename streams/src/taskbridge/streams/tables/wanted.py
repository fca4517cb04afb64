"""Which partitions of which table this worker is to have, as the group's leader assigned them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Collection


class Misassigned(OperatorError):
    """Events were assigned without the changelog of their partition: they cannot be folded here."""


class Wanted(NamedTuple):
    """One table's partitions as the group's leader assigned them to this worker."""

    actives: frozenset[int]
    standbys: frozenset[int]


def assigned(assignor: Any, changelogs: Collection[str]) -> dict[str, Wanted]:
    """By changelog topic.

    Raises:
        Misassigned: there is an active partition of events without that of each table.
    """
    actives, standbys = assignor.assigned_actives(), assignor.assigned_standbys()
    wanted = {
        topic: Wanted(
            frozenset(tp.partition for tp in actives if tp.topic == topic),
            frozenset(tp.partition for tp in standbys - actives if tp.topic == topic),
        )
        for topic in changelogs
    }
    events = {tp.partition for tp in actives if tp.topic not in changelogs}
    for topic, each in wanted.items():
        if missing := events - each.actives:
            raise Misassigned(f"partitions {sorted(missing)} were assigned without those of {topic}")
    return wanted
