"""Verifies callbacks of Yida: bearer token, app, signature and corp.

The signature is MD5 over the values, in the order of the keys that Java's String.CASE_INSENSITIVE_ORDER gives.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from msgspec import Struct

from taskbridge.edge.errors import Unverified

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taskbridge.edge.verification.credentials import Credentials, Token

SIGN = "sign"
"""The signature, which is the only parameter that is not signed."""


def fold(key: str) -> str:
    """The form of ``key`` that Java compares: keys with equal folds are equal ignoring case.

    Java maps each character by toUpperCase and then toLowerCase, one to one; Python's own methods may give several
    characters for one. This equals Java 17 and 25 on every code point that both sides' Unicode tables know.
    """
    return key.lower() if key.isascii() else "".join(map(_fold_character, key))


def are_distinct(keys: Iterable[str]) -> bool:
    """Whether no two of the keys are equal ignoring case: such keys would have no defined order."""
    folds = list(map(fold, keys))
    return len(set(folds)) == len(folds)


def canonical_order(parameters: Iterable[str]) -> list[str]:
    """The signed keys, in the order in which their values are signed.

    By code point, as Java does from version 16 on. Keys that are equal ignoring case have no defined order.
    """
    return sorted((key for key in parameters if key != SIGN), key=fold)


def canonical_string(parameters: Mapping[str, str]) -> str:
    """The signed text, without the token at its end."""
    return "".join([parameters[key] for key in canonical_order(parameters)])


def sign(parameters: Mapping[str, str], *, system_token: str) -> str:
    """Yida's signature in lower-case hex."""
    signed = canonical_string(parameters) + system_token
    return hashlib.md5(signed.encode(), usedforsecurity=False).hexdigest()


def matching(parameters: Mapping[str, str], *, system_tokens: Iterable[str], sign: str) -> list[bool]:
    """For each token, whether it signed these parameters. They are hashed once for all tokens.

    Yida's documentation does not specify the hex case, so both are accepted.
    """
    signed = hashlib.md5(canonical_string(parameters).encode(), usedforsecurity=False)
    given = sign.lower().encode("utf-8", "surrogatepass")
    found: list[bool] = []
    for token in system_tokens:
        digest = signed.copy()
        digest.update(token.encode())
        # Every token is compared, so that the time does not show which one matched.
        found.append(hmac.compare_digest(digest.hexdigest().encode(), given))
    return found


def _fold_character(character: str) -> str:
    upper = character.upper()
    if len(upper) > 1:
        # Where the upper case is several characters, the one-to-one mapping is the title case, or there is none.
        upper = character.title()
        if len(upper) > 1:
            upper = character
    # U+0130 is the only character whose lower case is two in Python and one in Java.
    return "i" if upper == "\u0130" else upper.lower()


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """What a callback claims about its sender. It is not verified."""

    app_type: str
    corp_ids: Sequence[str]
    """The corps that are named, best first."""
    sign: str | None
    other_scheme: bool
    """It has the signature of another feature of Yida."""
    extra_keys: frozenset[str]
    """Keys of a deletion that Yida does not document: a captured complete with renamed keys would pass as one."""

    @property
    def corp_id(self) -> str | None:
        return self.corp_ids[0] if self.corp_ids else None


def verify(
    callback: Claim, signed: Mapping[str, str], *, credentials: Credentials, delete_extra_keys: Iterable[str] = ()
) -> Token:
    """Check that the callback's app signed these parameters; returns the token that it signed with.

    Raises Unverified if it did not. ``reason`` names the failed check, the message does not.
    """
    signers = credentials.signers(callback.app_type)
    if not signers:
        raise _unverified("unknown-app", callback)
    if callback.sign is None:
        raise _unverified("no-sign", callback)
    secrets = [token.secret.get_secret_value() for _, token in signers]
    found = matching(signed, system_tokens=secrets, sign=callback.sign)
    for (app, token), is_signer in zip(signers, found, strict=True):
        if is_signer and (callback.corp_id is None or app.corp_id in (None, callback.corp_id)):
            if callback.extra_keys.difference(delete_extra_keys):
                raise _unverified("delete-extra-key", callback)
            return token
    raise _unverified("other-corp" if sum(found) else "wrong-sign", callback)


def check_bearer(authorization: str | None, accepted: Sequence[str], callback: Claim) -> None:
    """Check that the sender has one of the accepted tokens; without configured tokens, nothing is required.

    Raises Unverified if there is no token, or another one.
    """
    fault = bearer_fault(authorization, accepted)
    if fault is not None:
        raise _unverified(fault, callback)


def bearer_fault(authorization: str | None, accepted: Sequence[str]) -> str | None:
    """Why the header is rejected; None if it has an accepted token, or none is required."""
    if not accepted:
        return None
    given = _bearer(authorization)
    if given is None:
        return "no-bearer"
    # Every token is compared, so that the time does not show which one matched.
    return None if sum(hmac.compare_digest(given, each.encode()) for each in accepted) else "wrong-bearer"


def bearer_digest(authorization: str | None) -> str | None:
    """SHA-256 in hex of the bearer token in the header: enough to compare, and useless to a reader."""
    given = _bearer(authorization)
    return None if given is None else hashlib.sha256(given).hexdigest()


def _bearer(authorization: str | None) -> bytes | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" else None


def _unverified(reason: str, callback: Claim) -> Unverified:
    return Unverified(reason, other_scheme=callback.other_scheme)
