"""Reads a service's settings from the environment, and reports all errors in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.topics import DEFAULT_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

S = TypeVar("S", bound="BaseModel")

_PARTITIONS_MAX = 10_000


def load_settings(settings_class: type[S], environment: Mapping[str, str]) -> S:
    """The settings that this environment gives.

    Raises:
        ConfigurationError: names every variable that is missing or wrong, never its value.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - commands that ask for the partitions have no use for it

    prefix = settings_class.model_config.get("env_prefix", "")
    given = {name.removeprefix(prefix).lower(): value for name, value in environment.items() if name.startswith(prefix)}
    try:
        return settings_class.model_validate(given)
    except ValidationError as error:
        lines = [
            f"{prefix}{str(each['loc'][0]).upper()}: {'is required' if each['type'] == 'missing' else each['msg']}"
            for each in error.errors()
        ]
        raise ConfigurationError("; ".join(lines)) from error


def explain_program(name: str, *, does: str, example: str) -> None:
    """Answer ``--help``, and refuse any argument, by ending the process: the program is configured by its environment.

    To be called by a program that is the service alone: its settings may be missing where somebody asks for help.
    """
    from argparse import ArgumentParser  # noqa: PLC0415 - services that are commands of the program have no use for it

    ArgumentParser(
        prog=name,
        description=f"{does} Every setting: docs/reference/settings.md.",
        epilog=f"Example: {example}",
    ).parse_args()


def partitions_setting(environment: Mapping[str, str]) -> int:
    """``TASKBRIDGE_PARTITIONS``: how many partitions a topic gets that does not exist yet."""
    text = environment.get("TASKBRIDGE_PARTITIONS", str(DEFAULT_PARTITIONS))
    if not text.isdecimal() or not 1 <= int(text) <= _PARTITIONS_MAX:
        raise ConfigurationError(f"TASKBRIDGE_PARTITIONS: must be a number from 1 to {_PARTITIONS_MAX}")
    return int(text)
