"""Decides whether a callback comes from an app that is known here: bearer token, app, signature, organisation."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.edge.errors import Unverified
from taskbridge.edge.verification import signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taskbridge.edge.verification.credentials import Credentials, Token


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """What a callback says of who sent it. Nothing of it is verified."""

    app_type: str
    corp_ids: Sequence[str]
    """The corps that are named, best first."""
    sign: str | None
    other_scheme: bool
    """It is signed as another feature of Yida signs."""
    extra_keys: frozenset[str]
    """Keys of a deletion that no deletion of Yida's has: a captured complete with renamed keys would sign as one."""

    @property
    def corp_id(self) -> str | None:
        return self.corp_ids[0] if self.corp_ids else None


def verify(
    callback: Claim,
    signed: Mapping[str, str],
    *,
    credentials: Credentials,
    delete_extra_keys: Iterable[str] = (),
) -> Token:
    """Prove that the callback's app signed these parameters; returns the token that it signed with.

    Raises:
        Unverified: it did not. ``reason`` says which check failed, the message does not.
    """
    signers = credentials.signers(callback.app_type)
    if not signers:
        raise _unverified("unknown-app", callback)
    if callback.sign is None:
        raise _unverified("no-sign", callback)
    secrets = [token.secret.get_secret_value() for _, token in signers]
    found = signature.matching(signed, system_tokens=secrets, sign=callback.sign)
    for (app, token), is_signer in zip(signers, found, strict=True):
        if is_signer and (callback.corp_id is None or app.corp_id in (None, callback.corp_id)):
            if callback.extra_keys.difference(delete_extra_keys):
                raise _unverified("delete-extra-key", callback)
            return token
    raise _unverified("other-corp" if sum(found) else "wrong-sign", callback)


def check_bearer(authorization: str | None, accepted: Sequence[str], callback: Claim) -> None:
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
    given = _bearer(authorization)
    if given is None:
        return "no-bearer"
    # Every token is compared: how long it takes shall not tell which one matched.
    return None if sum(hmac.compare_digest(given, each.encode()) for each in accepted) else "wrong-bearer"


def bearer_digest(authorization: str | None) -> str | None:
    """SHA-256 in hex of the bearer token in the header: as good as it for comparing, and of no use to who reads it."""
    given = _bearer(authorization)
    return None if given is None else hashlib.sha256(given).hexdigest()


def _bearer(authorization: str | None) -> bytes | None:
    """The token as its bytes came; None where the header has none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" else None


def _unverified(reason: str, callback: Claim) -> Unverified:
    return Unverified(reason, other_scheme=callback.other_scheme)
