"""Checks of Kafka: brokers, topics, replicas, and the ACLs of this user."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.cli.doctor.findings import failed, ok, warning
from taskbridge.runtime.kafka import ACLS_HINT, missing_acls
from taskbridge.runtime.topic_admin import check_topics, metadata
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.cli.doctor.findings import Finding
    from taskbridge.runtime.kafka import Acl, Admin

_TIMEOUT_S = 5
_ENOUGH_BROKERS = 3


class Rights(NamedTuple):
    """The ACLs that a service's Kafka user should have."""

    service: str
    needed: Sequence[Acl]
    """Without one of these the service does not work."""
    wished: Sequence[Acl] = ()
    """Without one of these it works, with a limitation."""


def kafka(admin: Admin, *, wanted: Rights | None, partitions: int) -> Iterator[Finding]:
    """All checks of Kafka.

    Raises:
        TopicsUnavailable: Kafka does not answer.
    """
    cluster = metadata(admin)
    yield ok("kafka", f"{admin.servers} answers")
    yield from brokers([(each.host, each.port) for each in cluster.brokers.values()])
    reports = check_topics(admin, topics.ALL, cluster, partitions=partitions)
    there = {report.name for report in reports if report.partitions}
    for report in reports:
        if not report.partitions:
            yield failed("topics", f"topic {report.name} does not exist", "run taskbridge topics apply")
        for each in report.drift if report.partitions else ():
            yield warning("topics", f"{report.name}: {each}", "correct it in Kafka; taskbridge does not alter topics")
        if report.unchecked:
            yield warning("topics", f"{report.name}: {report.unchecked}", "run this as a user who may read it")
    if there and not any(report.remarks for report in reports):
        yield ok("topics", f"all {len(there)} topics match the contract")
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
                f"cannot reach the broker that Kafka advertises as {host}:{port}: {why}",
                "set advertised.listeners to an address that this machine can reach",
            )
    if len(addresses) < _ENOUGH_BROKERS:
        yield warning(
            "brokers",
            "One broker: if its disk dies, the data is gone."
            if len(addresses) == 1
            else f"{len(addresses)} brokers: too few for {_ENOUGH_BROKERS} replicas",
            f"run {_ENOUGH_BROKERS} brokers, with {_ENOUGH_BROKERS} replicas of each topic",
        )
    else:
        yield ok("brokers", f"{len(addresses)} brokers")


def replicas(found: Mapping[str, Mapping[int, Any]]) -> Iterator[Finding]:
    behind = 0
    for name, partitions in found.items():
        leaderless = [number for number, each in partitions.items() if each.leader < 0]
        if leaderless:
            yield failed(
                "replicas", f"{name} has no leader for partitions {sorted(leaderless)}", "start the missing brokers"
            )
        behind += sum(len(each.isrs) < len(each.replicas) for each in partitions.values())
    if behind:
        yield warning(
            "replicas", f"{behind} partitions have replicas that are not in sync", "start the missing brokers"
        )
    else:
        yield ok("replicas", "all replicas are in sync")


def rights(admin: Admin, wanted: Rights, there: set[str]) -> Iterator[Finding]:
    """Check that this user has the ACLs of the service on the existing topics."""
    missing = missing_acls(admin, (*wanted.needed, *wanted.wished), topics=sorted(there))
    for acl in missing:
        says, do = f"the {wanted.service}'s Kafka user lacks {acl}: {acl.why}", ACLS_HINT
        yield failed("rights", says, do) if acl in wanted.needed else warning("rights", says, do)
    if not missing:
        yield ok("rights", f"the {wanted.service}'s Kafka user has all ACLs that it needs")
