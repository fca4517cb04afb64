"""Asks any worker what there is to know of the whole system."""

from __future__ import annotations

from typing import Any

import httpx2

from taskbridge.schemas.errors import OperatorError

_TIMEOUT_S = 10
_WHO_MAY_ASK = (401, 403)


def ask(streams_url: str, api_token: str | None) -> dict[str, Any]:
    """The answer of ``/v1/ops/overview``.

    Raises:
        OperatorError: no worker there, or it does not tell this caller.
    """
    address = f"{streams_url.rstrip('/')}/v1/ops/overview"
    headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
    try:
        answer = httpx2.get(address, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
        found: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise OperatorError(
            f"no worker answers at {streams_url} ({error}): --streams-url says where one is, 'taskbridge doctor' why"
        ) from error
    if not answer.is_success or "workers" not in found:
        do = (
            "a token for all corps is needed (TASKBRIDGE_API_TOKEN)"
            if answer.status_code in _WHO_MAY_ASK
            else "is it a worker?"
        )
        raise OperatorError(f"{address} answered {answer.status_code}: {do}")
    return found
