"""Why the task center does not answer a query, in addition to ``taskbridge.runtime.refusals``."""

from __future__ import annotations

from taskbridge.runtime.refusals import NotNow, Refused, Unauthorized


class UnknownPerson(Refused, status=403, kind="unknown-person"):
    """The id of the signed-in person matches nobody, or several people."""


class TooManyQueries(Refused, status=429, kind="too-many-queries"):
    """The caller has exceeded its query rate."""


class SignInRequired(Unauthorized, status=401, kind="sign-in-required"):
    """Nobody is signed in. A browser may go to ``/sign-in``."""


class SignInRefused(Refused, status=403, kind="sign-in-refused"):
    """The identity provider refused, or its answer is not valid."""


class SignInExpired(Refused, status=400, kind="sign-in-expired"):
    """The sign-in is not under way in this browser."""


class ProviderUnavailable(NotNow, status=503, kind="provider-unavailable"):
    """The identity provider does not answer."""


class WebhooksFailed(Refused, status=502, kind="webhooks-failed"):
    """The webhooks service does not answer, or refuses."""


class EventsBehind(NotNow, status=503, kind="events-behind"):
    """The instance's state contains an event that is not read yet: its history would lack it."""


class Filling(NotNow, status=503, kind="filling"):
    """The lists are not complete yet, which may take minutes."""
