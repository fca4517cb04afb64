"""What the identity providers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog

from taskbridge.center.access.refusals import ProviderUnavailable
from taskbridge.runtime.access import on_loopback
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from taskbridge.center.access.sessions import SignIn
    from taskbridge.center.access.sso import UsersOf
    from taskbridge.center.tables import Person

    SignInExtension = Callable[[Any, UsersOf], "Provider | None"]
    """What an entry point of the group ``taskbridge.sign_in`` names.

    It gets the task center's settings with those of extensions, and what finds people by another id. It returns None if
    the settings do not ask for it, and raises ConfigurationError if they are incomplete or unsafe.
    """

log = structlog.get_logger(__name__)

CALLBACK = "/sign-in/callback"
ANSWER_S = 10.0
"""How long a provider may take to answer."""


class SignedIn(NamedTuple):
    person: Person
    groups: Sequence[object] = ()
    """As the provider has named them."""


class Page(NamedTuple):
    """A page that signs in by a script, inside an app of the vendor where a redirect makes no sense."""

    attributes: str
    """Of the script's element, escaped."""
    script: str
    library: str
    """The URL of a script of the vendor, before ours."""


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

    def page(self, user_agent: str, state: str, return_to: str) -> Page | None:  # noqa: ARG002 - of those that have one
        """The page for this user agent; None if it is redirected as any browser."""
        return None

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
