"""Writes the topics and the users of the contract as Strimzi's resources, in ``deploy/strimzi``.

uv run python tools/strimzi.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.cli.acls import roles
from taskbridge.schemas.topics import ALL, DEFAULT_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskbridge.runtime.kafka import Acl
    from taskbridge.schemas.topics import Topic

FOLDER = Path(__file__).parents[1] / "deploy" / "strimzi"
SUBSCRIBER = "taskbridge-subscriber"

_HEAD = """\
# Written by tools/strimzi.py: change what it is written from. CLUSTER is the name of your Kafka resource:
# (before Strimzi 0.49 the version is kafka.strimzi.io/v1beta2)
#   sed 's/CLUSTER/my-cluster/' deploy/strimzi/{name} | kubectl apply --namespace kafka -f -
"""
_META = """\
apiVersion: kafka.strimzi.io/v1
kind: {kind}
metadata:
  name: {name}
  labels:
    strimzi.io/cluster: CLUSTER
"""
_TYPES = {"topic": "topic", "group": "group", "transactional-id": "transactionalId"}


def topics_file() -> str:
    """Three replicas of each topic, two of which must have a record: docs/adr/0031."""
    return _file("topics.yaml", (_topic(topic) for topic in ALL))


def users_file() -> str:
    """A user for each role, with what it needs and no more."""
    return _file("users.yaml", (_user(f"taskbridge-{role}", acls) for role, acls in roles(SUBSCRIBER).items()))


def _file(name: str, resources: Iterator[str]) -> str:
    return _HEAD.format(name=name) + "".join(f"---\n{each}" for each in resources)


def _topic(topic: Topic) -> str:
    settings = {"min.insync.replicas": "2", **topic.settings}
    config = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in settings.items())
    spec = f"spec:\n  partitions: {DEFAULT_PARTITIONS}\n  replicas: 3\n  config:\n{config}"
    return _META.format(kind="KafkaTopic", name=topic.name) + spec


def _user(name: str, acls: Sequence[Acl]) -> str:
    found = "".join(
        f"      # {acl.why}\n"
        f"      - resource:\n"
        f"          type: {_TYPES[acl.resource]}\n"
        f"          name: {json.dumps(acl.name)}\n"
        f"          patternType: {'prefix' if acl.prefixed else 'literal'}\n"
        f"        operations: [{acl.operation}]\n"
        for acl in acls
    )
    spec = f"spec:\n  authentication:\n    type: scram-sha-512\n  authorization:\n    type: simple\n    acls:\n{found}"
    return _META.format(kind="KafkaUser", name=name) + spec


FILES = {"topics.yaml": topics_file, "users.yaml": users_file}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in FILES.items():
        (FOLDER / name).write_text(text(), "utf-8")
