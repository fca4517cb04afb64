"""HTTP clients for our own services, and for others that an operator names: no proxy of the environment, no redirects.

Calls of vendors and to addresses from outside have clients of their own: see ``bounded_http`` and webhooks'
``delivery_client``.
"""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx2

from taskbridge.runtime.bounded_http import BoundedAsyncClient, certificates

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_ANSWER = (httpx2.HTTPError, httpx2.InvalidURL)
"""What a request raises that gets no answer."""


def inside_client(*, timeout_s: float, answer_s: float | None = None, **options: Any) -> httpx2.Client:
    """A client for a thread. ``answer_s`` is the time for reading, if it differs."""
    timeout = httpx2.Timeout(timeout_s, read=timeout_s if answer_s is None else answer_s)
    return httpx2.Client(timeout=timeout, trust_env=False, verify=certificates(trust_env=False), **options)


def inside_async_client(*, timeout_s: float) -> BoundedAsyncClient:
    """A client for an event loop, whose calls end within the time.

    It keeps no cookies: that of a balancer would lead every call to the same process.
    """
    none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return BoundedAsyncClient(timeout_s=timeout_s, trust_env=False, cookies=none)


def bearer(token: str | None) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
