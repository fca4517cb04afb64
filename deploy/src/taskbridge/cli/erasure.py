"""The command ``taskbridge people erase``."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from taskbridge.cli.options import BootstrapServers, DataDir, Json, RegistryUrl, example, operator_connection
from taskbridge.cli.terminal import json_line, progress, say
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.events import PersonRecord, notification_key
from taskbridge.schemas.topics import (
    CALLBACKS_QUARANTINE,
    FORM_DATA,
    PEOPLE,
    TASK_EVENTS,
    TASK_EVENTS_DLQ,
    TASK_NOTIFICATIONS,
    TASK_STATES,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.center.erasure import Erased
    from taskbridge.cli.connection import Connection
    from taskbridge.cli.topic_update import Plan

commands = typer.Typer()

_LEFT_ON = (TASK_EVENTS, TASK_EVENTS_DLQ, CALLBACKS_QUARANTINE, TASK_NOTIFICATIONS, TASK_STATES, FORM_DATA, PEOPLE)
"""Topics whose records may name the person."""
_NEVER = {
    TASK_STATES.name: "as long as their instances exist",
    FORM_DATA.name: "as long as their instances exist, or for keep_days of the apps file: erase the values in the app",
    PEOPLE.name: "until Kafka compacts the topic, after the tombstone",
}
"""How long a record stays where no time ends it."""


@commands.command(
    "erase",
    epilog=example(
        "taskbridge people erase manager02 --corp ding5d17e3add038d445",
        "taskbridge people erase manager02 --corp ding5d17e3add038d445 --yes --json",
    ),
)
def erase(
    user: Annotated[str, typer.Argument(metavar="USER", help="User id.")],
    corp: Annotated[str, typer.Option(help="Corp of the person.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,  # noqa: FBT002
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Erase a person from the task center's database and the people topic, while the service runs.

    Sessions, names, other ids and what the person entered are deleted. The audit trail keeps its entries under a
    pseudonym that nobody can resolve any more. Lists and histories of requests keep the user id; what Kafka still has
    is printed, with the time until when. CENTER_* names the database, as for the service. Exit code 1 if the person is
    unknown, or if Kafka does not answer: then run it again later.
    """
    if not corp or "/" in corp:
        raise typer.BadParameter("a corp has no slash in it", param_hint="--corp")
    from taskbridge.center.app import erasure
    from taskbridge.cli.services import environment_of

    environment = environment_of("CENTER", bootstrap_servers, registry_url, data_dir)
    with erasure(environment) as its, operator_connection(bootstrap_servers, registry_url, data_dir) as connection:
        person = corp, user
        found, kafka = its.find(person), _look(connection, corp, user)
        if found is None and not kafka.has_record:
            hint = "" if kafka.problem is None else f"; the people topic could not be read: {kafka.problem}"
            raise OperatorError(
                f"{corp}/{user} is unknown: neither the task center's database nor the people topic has it{hint}"
            )
        if not yes:
            rows = ", ".join(f"{count} in {name}" for name, count in (found or {}).items()) or "no rows"
            progress(f"{corp}/{user}: {rows} will be deleted. This cannot be undone.")
            typer.confirm("Erase this person?", abort=True, err=True)
        erased = its.erase(person)
        if kafka.plan is not None:
            kafka = kafka.write_tombstone(connection)
    say(json_line(_as_json(person, erased, kafka)) if as_json else "\n".join(_lines(person, erased, kafka)))
    if kafka.problem is not None:
        raise OperatorError(
            f"the name may still be on {PEOPLE.name}, and would come back with a rebuild: run the command again when"
            f" Kafka answers ({kafka.problem})"
        )


class _Left(NamedTuple):
    topic: str
    until: datetime | None
    why: str

    @property
    def text(self) -> str:
        return self.why if self.until is None else f"until {self.until:%Y-%m-%d} ({self.why})"


class _Kafka(NamedTuple):
    key: bytes
    plan: Plan[PersonRecord] | None
    left: list[_Left]
    problem: str | None
    """Why the name may still be on the people topic."""

    @property
    def has_record(self) -> bool:
        return self.plan is not None and bool(self.plan.records)

    def write_tombstone(self, connection: Connection) -> _Kafka:
        from taskbridge.cli.topic_update import PEOPLE_TARGET, carry_out

        assert self.plan is not None
        # Also without a record: reconcile must not read the name of this person from DingTalk.
        tombstone = self.plan._replace(records={self.key: None})
        try:
            carry_out(connection, PEOPLE_TARGET, tombstone, progress)
        except OperatorError as error:
            return self._replace(problem=str(error))
        return self


def _look(connection: Connection, corp: str, user: str) -> _Kafka:
    from taskbridge.cli.topic_update import PEOPLE_TARGET, plan
    from taskbridge.runtime.topic_admin import describe_topics

    key = notification_key(corp, user)
    records = {key: PersonRecord(user)}
    planned = None
    try:
        with suppress(ConfigurationError):  # without the topic, there is no name on it
            planned = plan(connection, PEOPLE_TARGET, records, progress, delete=True)
        described = describe_topics(connection.admin(), [each.name for each in _LEFT_ON])
    except OperatorError as error:
        return _Kafka(key, None, [], str(error))
    now = datetime.now(UTC)
    return _Kafka(key, planned, [left_on(name, *its, now=now) for name, its in described.items()], None)


def left_on(topic: str, settings: Mapping[str, str | None] | None, problem: str | None, *, now: datetime) -> _Left:
    if settings is None:
        return _Left(topic, None, problem or "")
    retention_ms = int(settings.get("retention.ms") or -1)
    if "delete" not in (settings.get("cleanup.policy") or ""):
        return _Left(topic, None, _NEVER.get(topic, "until Kafka compacts the topic"))
    if retention_ms < 0:
        return _Left(topic, None, "for ever: its retention.ms is -1")
    # Kafka deletes files, not records: a file ends segment.ms after its first record, and is as old as its last one.
    retention, file = (timedelta(milliseconds=each) for each in (retention_ms, int(settings.get("segment.ms") or 0)))
    return _Left(topic, now + retention + file, f"kept {_days(retention)}, in files of up to {_days(file)}")


def _days(duration: timedelta) -> str:
    days = duration / timedelta(days=1)
    return f"{days:.3g} day{'' if days == 1 else 's'}"


def _lines(person: tuple[str, str], erased: Erased, kafka: _Kafka) -> list[str]:
    rows = ", ".join(f"{count} in {name}" for name, count in erased.deleted.items())
    number, sha256 = erased.entry.seq, erased.entry.sha256
    lines = [
        f"Erased {'/'.join(person)} from the task center's database: {rows}.",
        f"Entries of the audit trail that have only a pseudonym now: {erased.pseudonymous}.",
        f"Entry {number} records the erasure, with the hash {sha256}.",
    ]
    if kafka.has_record and kafka.problem is None:
        lines.append(f"The name is deleted from {PEOPLE.name}.")
    if kafka.left:
        lines.append("Records that may name the person stay in Kafka:")
        lines += [f"  {each.topic:36} {each.text}" for each in kafka.left]
    return lines


def _as_json(person: tuple[str, str], erased: Erased, kafka: _Kafka) -> dict[str, Any]:
    return {
        "corp_id": person[0],
        "user_id": person[1],
        "deleted": dict(erased.deleted),
        "audit": {"entry": erased.entry.seq, "sha256": erased.entry.sha256, "pseudonymous": erased.pseudonymous},
        "people_topic": "unknown" if kafka.problem is not None else "deleted" if kafka.has_record else "absent",
        "topics": [
            each._asdict() | {"until": each.until and each.until.isoformat(timespec="seconds")} for each in kafka.left
        ],
    }
