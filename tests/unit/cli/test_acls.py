"""The ACLs of each role: printed for ``kafka-acls``, and the same for an admin client."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka.admin import AclOperation, ResourcePatternType, ResourceType
from typer.testing import CliRunner

from taskbridge.cli.acls import bindings, commands, roles
from taskbridge.cli.program import app

if TYPE_CHECKING:
    from taskbridge.runtime.kafka import Acl

_OPTIONS = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}


def read_back(line: str) -> tuple[Any, ...]:
    """What ``kafka-acls`` takes from a line: principal, operation, resource, name, kind of pattern."""
    argv = shlex.split(line, comments=True)
    reaching = ["--bootstrap-server", "$KAFKA", "--command-config", "$ADMIN"]
    assert argv[:7] == ["kafka-acls.sh", *reaching, "--add", "--force"]
    given = dict(zip(argv[7::2], argv[8::2], strict=True))
    [option] = _OPTIONS.keys() & given.keys()
    pattern = ResourcePatternType[given.get("--resource-pattern-type", "literal").upper()]
    operation = AclOperation[given["--operation"].replace("DescribeConfigs", "Describe_Configs").upper()]
    return given["--allow-principal"], operation, _OPTIONS[option], given[option], pattern


@pytest.mark.parametrize("role", roles("subscriber"))
def test_printed_acls_equal_applied_acls(role: str) -> None:
    acls: tuple[Acl, ...] = roles("subscriber")[role]
    applied = cast("list[Any]", bindings("User:CN=a user", acls))
    assert [read_back(line) for line in commands("User:CN=a user", acls)] == [
        (each.principal, each.operation, each.restype, each.name, each.resource_pattern_type) for each in applied
    ]
    assert len({str(acl) for acl in acls}) == len(acls)


def printed(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["topics", "acls", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.output.splitlines()]


def test_principals_are_named_by_role_and_a_subscribers_groups_by_its_principal() -> None:
    found = printed("subscriber", "edge", "--principal", "subscriber=User:warehouse")
    assert {(each["role"], each["principal"]) for each in found} == {
        ("subscriber", "User:warehouse"),
        ("edge", "User:edge"),
    }
    own = [each["name"] for each in found if each["resource"] == "group" and each["prefixed"]]
    assert own == ["warehouse"]
    assert {each["role"] for each in printed()} == set(roles("subscriber"))


@pytest.mark.parametrize("arguments", [["reader"], ["--principal", "reader=User:x"]])
def test_an_unknown_role_is_an_error_that_lists_the_roles(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["topics", "acls", *arguments])
    assert done.exit_code == 2
    assert "reader" in done.output
    assert "subscriber" in done.output
