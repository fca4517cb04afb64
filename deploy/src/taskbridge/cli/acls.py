"""Least privilege on Kafka: the ACLs of each role, for ``kafka-acls`` and for an admin client."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from taskbridge.center.acls import CENTER
from taskbridge.cli.connection import GROUP
from taskbridge.edge.kafka.prerequisites import EDGE
from taskbridge.landing.acls import LAND
from taskbridge.reconcile.kafka import RECONCILE
from taskbridge.runtime.kafka import Acl
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_NOTIFICATIONS
from taskbridge.streams.contract.live_version import REBUILD_ID
from taskbridge.streams.contract.start import EXTRAS, INTERNAL, WORK
from taskbridge.streams.engine.app import APP_ID
from taskbridge.webhooks.acls import WEBHOOKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from confluent_kafka.admin import AdminClient

_ANSWER_S = 30.0
_INBOXES = "taskbridge-client"
_CONTRACT = "taskbridge."

OPERATOR = (
    Acl("Create", "topic", _CONTRACT, "topics apply", prefixed=True),
    Acl("DescribeConfigs", "topic", _CONTRACT, "topics apply reports differences", prefixed=True),
    Acl("Read", "topic", _CONTRACT, "tail, set-aside, --rebuild", prefixed=True),
    Acl("Write", "topic", _CONTRACT, "set-aside replay, people and forms import, --rebuild", prefixed=True),
    Acl("Describe", "group", GROUP, "tail, set-aside"),
)

REBUILD = (
    *OPERATOR,
    Acl("Delete", "topic", _CONTRACT, "--partitions recreates the states topic", prefixed=True),
    Acl("Alter", "topic", _CONTRACT, "--partitions adds partitions", prefixed=True),
    Acl("Create", "topic", INTERNAL, "--rebuild and --republish create changelogs", prefixed=True),
    Acl("Read", "topic", INTERNAL, "read the states so far", prefixed=True),
    Acl("Write", "topic", INTERNAL, "write the new version, and switch to it", prefixed=True),
    Acl(
        "Delete",
        "topic",
        INTERNAL,
        "--rebuild deletes replaced changelogs, topics apply --delete-unused",
        prefixed=True,
    ),
    Acl("Read", "group", APP_ID, "set the positions of workers"),
    Acl("Read", "group", REBUILD_ID, "one rebuild at a time"),
    Acl("Write", "transactional-id", INTERNAL, "the switch is one transaction", prefixed=True),
)


def roles(subscriber: str) -> dict[str, tuple[Acl, ...]]:
    """The ACLs by role. The groups of ``subscriber`` begin with its user's name."""
    return {
        "edge": EDGE,
        "streams": (*WORK, *EXTRAS),
        "center": CENTER,
        "webhooks": WEBHOOKS,
        "land": LAND,
        "subscriber": (
            Acl("Read", "topic", TASK_NOTIFICATIONS.name, "the notifications"),
            Acl("Read", "group", subscriber, "its consumer groups, which begin with its name", prefixed=True),
            Acl("Describe", "group", _INBOXES, "the Python client's inbox, which names a group without joining it"),
        ),
        "operator": OPERATOR,
        "rebuild": REBUILD,
        "reconcile": (
            *RECONCILE,
            Acl("Read", "topic", CALLBACKS_QUARANTINE.name, "callbacks of apps that were unknown"),
            Acl("Write", "topic", CALLBACKS_QUARANTINE.name, "marks them as replayed"),
            Acl("Describe", "group", GROUP, "reads them"),
        ),
    }


def commands(principal: str, acls: Sequence[Acl]) -> Iterator[str]:
    """One shell line of ``kafka-acls`` per ACL, with its purpose as a comment."""
    for acl in acls:
        pattern = ["--resource-pattern-type", "prefixed"] if acl.prefixed else []
        argv = ["--add", "--force", "--allow-principal", principal, "--operation", acl.operation]
        argv += [f"--{acl.resource}", acl.name, *pattern]
        yield f'kafka-acls.sh --bootstrap-server "$KAFKA" --command-config "$ADMIN" {shlex.join(argv)}  # {acl.why}'


def bindings(principal: str, acls: Sequence[Acl]) -> list[AclBinding]:
    return [
        AclBinding(
            ResourceType[_constant(acl.resource)],
            acl.name,
            ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL,
            principal,
            "*",
            AclOperation[_constant(acl.operation)],
            AclPermissionType.ALLOW,
        )
        for acl in acls
    ]


def _constant(name: str) -> str:
    """The name of a constant: ``DescribeConfigs`` is DESCRIBE_CONFIGS, ``transactional-id`` is TRANSACTIONAL_ID."""
    return re.sub(r"(?<=[a-z])-?(?=[A-Z])|-", "_", name).upper()


def apply_acls(admin: AdminClient, acls: Sequence[AclBinding]) -> None:
    """Create all of these ACLs. Safe to repeat. Blocks. Raises OperatorError if Kafka refuses, or does not answer."""
    try:
        created = cast("dict[AclBinding, Any]", admin.create_acls(list(acls), request_timeout=_ANSWER_S))
        for answer in created.values():
            answer.result()
    except KafkaException as error:
        raise OperatorError(
            f"Kafka refuses to create the ACLs: {error}. Use a user with Alter on the cluster"
        ) from error
