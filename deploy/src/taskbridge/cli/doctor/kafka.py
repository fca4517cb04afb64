"""Kafka as a service would meet it: brokers, topics, replicas, and what this user may do."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.cli.doctor.findings import failed, ok, warning
from taskbridge.runtime.acls import SEE, lacking
from taskbridge.runtime.topic_admin import check_topics, metadata
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.cli.doctor.findings import Finding
    from taskbridge.runtime.acls import Acl
    from taskbridge.runtime.kafka import Admin

_TIMEOUT_S = 5
_ENOUGH_BROKERS = 3


class Rights(NamedTuple):
    """What a service's Kafka user should be allowed."""

    service: str
    needed: Sequence[Acl]
    """Without one of these the service does not work."""
    wished: Sequence[Acl] = ()
    """Without one of these it does, and goes without something."""


def kafka(admin: Admin, *, wanted: Rights | None, partitions: int) -> Iterator[Finding]:
    """All of it.

    Raises:
        TopicsUnavailable: no answer.
    """
    cluster = metadata(admin)
    yield ok("kafka", f"{admin.servers} answers")
    yield from brokers([(each.host, each.port) for each in cluster.brokers.values()])
    reports = check_topics(admin, topics.ALL, cluster, partitions=partitions)
    there = {report.name for report in reports if report.partitions}
    for report in reports:
        if not report.partitions:
            yield failed("topics", f"{report.name} is not there", "taskbridge topics apply")
        for each in report.drift if report.partitions else ():
            yield warning("topics", f"{report.name}: {each}", "correct it on Kafka; nothing alters topics by itself")
        if report.unchecked:
            yield warning("topics", f"{report.name}: {report.unchecked}", "let somebody who may look run this")
    if there and not any(report.remarks for report in reports):
        yield ok("topics", f"all {len(there)} are there, as the contract has them")
    yield from replicas({name: cluster.topics[name].partitions for name in sorted(there)})
    if wanted is not None:
        yield from rights(admin, wanted, there)


def brokers(addresses: list[tuple[str, int]]) -> Iterator[Finding]:
    for host, port in addresses:
        try:
            socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
        except OSError as error:
            why = error.strerror or error
            yield failed(
                "brokers",
                f"Kafka says that one of its brokers is at {host}:{port}, which cannot be reached from here: {why}",
                "have advertised.listeners name an address that this machine reaches",
            )
    if len(addresses) < _ENOUGH_BROKERS:
        yield warning(
            "brokers",
            f"there are {len(addresses)} brokers: what only one disk has is lost with it",
            f"{_ENOUGH_BROKERS} brokers, topics with {_ENOUGH_BROKERS} replicas",
        )
    else:
        yield ok("brokers", f"{len(addresses)} brokers")


def replicas(found: Mapping[str, Mapping[int, Any]]) -> Iterator[Finding]:
    behind = 0
    for name, partitions in found.items():
        leaderless = [number for number, each in partitions.items() if each.leader < 0]
        if leaderless:
            yield failed("replicas", f"{name} has no leader for {sorted(leaderless)}", "bring the missing brokers back")
        behind += sum(len(each.isrs) < len(each.replicas) for each in partitions.values())
    if behind:
        yield warning(
            "replicas", f"{behind} partitions have replicas that are not in sync", "see to the missing brokers"
        )
    else:
        yield ok("replicas", "all replicas are in sync")


def rights(admin: Admin, wanted: Rights, there: set[str]) -> Iterator[Finding]:
    """Whether this user may do what the service does with the topics that are there."""
    missing = lacking(admin, (*wanted.needed, *wanted.wished), topics=sorted(there))
    for acl in missing:
        says, do = f"the {wanted.service}'s Kafka user lacks {acl}: {acl.why}", SEE
        yield failed("rights", says, do) if acl in wanted.needed else warning("rights", says, do)
    if not missing:
        yield ok("rights", f"the {wanted.service}'s Kafka user may do what it does")
