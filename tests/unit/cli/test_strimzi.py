"""Strimzi's resources say what the contract and the list of permissions say."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from strimzi import FILES, FOLDER, SUBSCRIBER
from taskbridge.cli.acls import roles


def resources(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_the_tool_writes(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == FILES[name]()


def test_each_role_is_a_user_with_its_permissions() -> None:
    found = {each["metadata"]["name"]: each["spec"]["authorization"]["acls"] for each in resources("users.yaml")}
    for role, acls in roles(SUBSCRIBER).items():
        told = [
            (each["operations"], each["resource"]["name"], each["resource"]["patternType"])
            for each in found.pop(f"taskbridge-{role}")
        ]
        assert told == [([acl.operation], acl.name, "prefix" if acl.prefixed else "literal") for acl in acls]
    assert not found
