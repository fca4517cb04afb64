"""What the identity providers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog

from taskbridge.center.access.refusals import ProviderUnavailable
from taskbridge.runtime.access import on_loopback
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from taskbridge.center.access.sessions import SignIn
    from taskbridge.center.tables import Person

log = structlog.get_logger(__name__)

CALLBACK = "/sign-in/callback"
ANSWER_S = 10.0
"""How long a provider may take to answer."""


class SignedIn(NamedTuple):
    person: Person
    groups: Sequence[object] = ()
    """As the provider has named them."""


class Provider(Protocol):
    """Where people sign in. It is not contacted before somebody does."""

    async def authorize(self, return_to: str) -> tuple[str, str, SignIn]:
        """The address at the provider, the state in it, and the sign-in to store. Raises ProviderUnavailable."""
        ...

    async def redeem(self, answer: Mapping[str, str], sign_in: SignIn) -> SignedIn:
        """The person of whom the provider sent the browser back with these parameters.

        Raises ProviderUnavailable, SignInRefused, UnknownPerson, or NotNow while the people are not complete.
        """
        ...

    async def sign_out_url(self) -> str:
        """Where the browser signs out of the provider too, if the provider supports it; otherwise the task center."""
        ...


def read_secret(path: Path, setting: str) -> str:
    """The client's secret. Read each time: it may have been replaced."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        log.warning("client_secret_unreadable", problem=str(error))
        raise ProviderUnavailable(f"{setting} cannot be read") from error


def checked_url(name: str, url: str) -> str:
    """The URL without a slash at its end; ConfigurationError if secrets would cross a network in clear text."""
    if urlsplit(url).scheme != "https" and not on_loopback(urlsplit(url).hostname or ""):
        raise ConfigurationError(f"{name} must begin with https:// (http:// is accepted on this machine only)")
    return url.rstrip("/")
