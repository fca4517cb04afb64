"""Fetch the overview of the whole system from any worker."""

from __future__ import annotations

from typing import Any

import httpx2

from taskbridge.schemas.errors import OperatorError

_TIMEOUT_S = 10
_UNAUTHORIZED = (401, 403)


def fetch_overview(streams_url: str, api_token: str | None) -> dict[str, Any]:
    """The response of ``/v1/ops/overview``.

    Raises:
        OperatorError: no worker answers, or it refuses this caller.
    """
    address = f"{streams_url.rstrip('/')}/v1/ops/overview"
    headers = {"Authorization": f"Bearer {api_token}"} if api_token else {}
    try:
        answer = httpx2.get(address, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
        found: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise OperatorError(
            f"no worker answers at {streams_url} ({error}): set --streams-url, or run 'taskbridge doctor'"
        ) from error
    if not answer.is_success or "workers" not in found:
        do = (
            "set TASKBRIDGE_API_TOKEN to a token for all corps"
            if answer.status_code in _UNAUTHORIZED
            else "check that --streams-url is a worker"
        )
        raise OperatorError(f"{address} answered {answer.status_code}: {do}")
    return found
