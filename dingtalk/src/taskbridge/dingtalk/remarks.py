"""Comments on instances at Yida, for people who look at them. What is opened while others are read is one call."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.center.actions.systems import Busy
from taskbridge.dingtalk.api import IDS_PER_CALL
from taskbridge.dingtalk.times import span_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.dingtalk import wire
    from taskbridge.dingtalk.api import YidaApi

_AT_ONCE = 4
"""Calls of a corp: one that does not answer holds up no other corp, and nobody waits for it."""
_TOGETHER_S = 0.05

_Call = asyncio.Task[list["wire.Remark"]]


class _Batch(NamedTuple):
    ids: list[str]
    call: _Call


class Remarks:
    """Reads comments, with several instances of a form in one call."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, ...], _Batch] = {}
        self._under_way = Counter[str]()

    async def of(self, api: YidaApi, form_uuid: str, instance_id: str) -> list[wire.Remark]:
        """The comments on an instance, oldest first. May raise Busy, and what ``Calls.get`` raises."""
        key = api.app.corp_id, api.app.app_type, form_uuid
        batch = self._open.get(key)
        if batch is None or (len(batch.ids) >= IDS_PER_CALL and instance_id not in batch.ids):
            if self._under_way[key[0]] >= _AT_ONCE:
                raise Busy("too many comments are being read: try again")
            self._under_way[key[0]] += 1
            ids = list[str]()
            batch = self._open[key] = _Batch(ids, asyncio.create_task(self._read(api, key, ids)))
            batch.call.add_done_callback(_noticed)
        if instance_id not in batch.ids:
            batch.ids.append(instance_id)
        found = await asyncio.shield(batch.call)
        return sorted((each for each in found if each.form_inst_id == instance_id), key=written_at)

    async def _read(self, api: YidaApi, key: tuple[str, ...], ids: Sequence[str]) -> list[wire.Remark]:
        try:
            await asyncio.sleep(_TOGETHER_S)
            if (batch := self._open.get(key)) is not None and batch.ids is ids:
                del self._open[key]
            return await api.remarks(key[-1], ids)
        finally:
            self._under_way[key[0]] -= 1


def written_at(remark: wire.Remark) -> int:
    """In ms; 0 if that is not known."""
    span = span_of(remark.gmt_create)
    return 0 if span is None else span.first


def _noticed(call: _Call) -> None:
    """Its error is nobody's if all who waited have gone."""
    if not call.cancelled():
        call.exception()
