"""Decides whether a callback comes from an app that is known here: bearer token, app, signature, organisation."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from edge.errors import Unverified
from edge.proof import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from edge.callbacks import Callback
    from edge.proof.credentials import App, Credentials, Token


def verify(
    callback: Callback,
    readings: Sequence[Mapping[str, str]],
    *,
    credentials: Credentials,
    delete_extra_keys: Iterable[str] = (),
    used: Callable[[Token], None] | None = None,
) -> Mapping[str, str]:
    """Prove that the callback's app signed it; returns the reading of its parameters that is signed.

    ``used`` is told which token signed it.

    Raises:
        Unverified: it did not. ``reason`` says which check failed, the message does not.
    """
    apps = credentials.apps(callback.app_type)
    if not apps:
        raise _unverified("unknown-app", callback)
    if callback.sign is None:
        raise _unverified("no-sign", callback)
    signed = False
    for app in apps:
        found = _signed_reading(callback.sign, readings, app)
        if found is not None:
            signed = True
            reading, token = found
            if callback.corp_id is None or app.corp_id in (None, callback.corp_id):
                if callback.extra_keys(delete_extra_keys):
                    raise _unverified("delete-extra-key", callback)
                if used is not None:
                    used(token)
                return reading
    raise _unverified("other-corp" if signed else "wrong-sign", callback)


def check_bearer(authorization: str | None, accepted: Sequence[str], callback: Callback) -> None:
    """Prove that the sender holds one of the accepted tokens; where none is configured, nothing is asked for.

    Raises:
        Unverified: no token, or another.
    """
    fault = bearer_fault(authorization, accepted)
    if fault is not None:
        raise _unverified(fault, callback)


def bearer_fault(authorization: str | None, accepted: Sequence[str]) -> str | None:
    """What is wrong with the header, as a reason; None where it holds an accepted token, or none is asked for."""
    if not accepted:
        return None
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        return "no-bearer"
    given = token.strip().encode("latin-1")  # the bytes as they came
    # Every token is compared: how long it takes shall not tell which one matched.
    return None if sum(hmac.compare_digest(given, each.encode()) for each in accepted) else "wrong-bearer"


def _signed_reading(
    sign: str, readings: Sequence[Mapping[str, str]], app: App
) -> tuple[Mapping[str, str], Token] | None:
    system_tokens = [token.secret.get_secret_value() for token in app.tokens]
    for reading in readings:
        try:
            matched = signature.verify(reading, system_tokens=system_tokens, sign=sign)
        except signature.SignatureMismatch:
            continue
        return reading, app.tokens[matched]
    return None


def _unverified(reason: str, callback: Callback) -> Unverified:
    return Unverified(reason, other_scheme=callback.other_scheme)
