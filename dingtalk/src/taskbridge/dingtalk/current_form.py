"""Forms of Yida as they are now, who changed them, and the steps to come, within the calls of a day."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from taskbridge.center.actions.systems import FormRead, LoggedChange, Step
from taskbridge.dingtalk import wire
from taskbridge.dingtalk.calls import Absent, NotOffered
from taskbridge.dingtalk.daily import passing
from taskbridge.dingtalk.times import span_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.dingtalk.api import YidaApi

_WHEN = ("operateTimeGMT", "operateTime", "gmtCreate", "createTimeGMT", "createTime", "modifiedTimeGMT", "gmtModified")
_WHO = ("operatorUserId", "operatorId", "operator", "userId", "creator", "modifier")
"""Names of fields in a record, most likely first: no document names them."""
_DEPTH = 4
_RECORDS = 500
_STEPS = 100


class YidaForms:
    """The forms of an app: a ``FormReader``. What DingTalk lacks or does not say is left out."""

    def __init__(self, api: YidaApi, calls_per_day: int) -> None:
        self._api, self.calls_per_day = api, calls_per_day

    async def read(self, instance_id: str) -> FormRead | None:
        try:
            with passing():
                found = await self._api.instance(instance_id)
        except Absent:
            return None
        return FormRead(found.texts(), found.instance_status == wire.RUNNING, found)

    async def changes(self, instance_id: str, read: FormRead, fields: Sequence[str]) -> Mapping[str, LoggedChange]:
        instance = cast("wire.Instance", read.about)
        if instance.form_uuid is None:
            return {}
        try:
            logged = await self._api.operation_logs(instance.form_uuid, instance_id)
        except (NotOffered, Absent):
            return {}
        return logged_changes(logged, fields)

    async def steps(self, instance_id: str, read: FormRead, here: Sequence[str]) -> Sequence[Step]:
        """Of the instance's originator with its values, as the process is published now."""
        instance = cast("wire.Instance", read.about)
        if instance.form_uuid is None or instance.originator is None or instance.originator.user_id is None:
            return []
        user_id = str(instance.originator.user_id)
        with suppress(NotOffered, Absent):
            if not here:
                here = [each.activity_id for each in await self._api.running_tasks(instance_id) if each.activity_id]
            previewed = await self._api.previewed_steps(
                instance.form_uuid, instance.data or {}, process_code=instance.process_code, user_id=user_id
            )
            return steps_after(previewed, here)
        return []


def logged_changes(logged: object, fields: Sequence[str]) -> dict[str, LoggedChange]:
    """The latest record that names each of these fields. Records of any shape raise nothing."""
    found: dict[str, LoggedChange] = {}
    for record in _records(logged):
        named = {*_texts(record, _DEPTH)} & {*fields}
        change = LoggedChange(_who(record), _when(record))
        for field in named:
            if field not in found or (change.at or 0) >= (found[field].at or 0):
                found[field] = change
    return found


def steps_after(previewed: Sequence[wire.PreviewedStep], here: Sequence[str]) -> list[Step]:
    """The steps after the last one of ``here``, each once with its people; none if the preview has none of these."""
    at = max((number for number, each in enumerate(previewed) if each.activity_id in here), default=None)
    found: dict[str, Step] = {}
    later = previewed[len(previewed) if at is None else at + 1 :]
    for each in later[:_STEPS]:
        if not each.show_name:
            continue
        key = each.activity_id or each.show_name
        people = [*found[key].people] if key in found else []
        if each.operator_user_id:
            people.append((str(each.operator_user_id), each.operator_display_name))
        found[key] = Step(each.show_name, people)
    return [*found.values()]


def _records(logged: object) -> list[dict[str, Any]]:
    given = cast("list[Any]", logged) if isinstance(logged, list) else [logged]
    return [each for each in given[:_RECORDS] if isinstance(each, dict)]


def _texts(value: object, depth: int) -> Iterator[str]:
    """The keys and texts in it, where ids of fields may be."""
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            yield name
            yield from _texts(inner, depth - 1)
    elif depth and isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _texts(inner, depth - 1)


def _who(record: Mapping[str, Any]) -> str | None:
    for name in _WHO:
        given = record.get(name)
        if isinstance(given, dict):
            given = cast("dict[str, object]", given).get("userId")
        if isinstance(given, str) and given:
            return given
    return None


def _when(record: Mapping[str, Any]) -> int | None:
    for name in _WHEN:
        given = record.get(name)
        span = span_of(given) if isinstance(given, str | int) else None
        if span is not None:
            return span.first
    return None
