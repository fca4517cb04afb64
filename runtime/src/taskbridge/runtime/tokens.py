"""The API tokens and the corps that each may see: a TOML file of digests, read again when it changes."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Annotated

from pydantic import AfterValidator

from taskbridge.runtime.settings import FileBroken, FileModel, NotBlank, ReloadedFile, parse_toml

ALL_CORPS = "*"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREFIX = "tb_"


def _digest(text: str) -> str:
    lowered = text.lower()
    if not _DIGEST.fullmatch(lowered):
        raise ValueError("must be the SHA-256 of the token, 64 hex digits: `taskbridge token new` prints it")
    if lowered == digest_of(""):
        raise ValueError("is the digest of an empty token")
    return lowered


def _corps(corps: tuple[str, ...]) -> tuple[str, ...]:
    if not corps or not all(corp.strip() for corp in corps):
        raise ValueError('must name at least one corp, and no empty one; ["*"] allows all')
    if ALL_CORPS in corps and len(corps) > 1:
        raise ValueError('"*" allows all corps and must be the only entry')
    return corps


class ApiToken(FileModel):
    """One token of the file. The token itself is not stored here."""

    name: NotBlank
    sha256: Annotated[str, AfterValidator(_digest)]
    corps: Annotated[tuple[str, ...], AfterValidator(_corps)]


class _File(FileModel):
    tokens: tuple[ApiToken, ...] = ()


class ApiTokens:
    def __init__(self, tokens: tuple[ApiToken, ...]) -> None:
        self._by_digest = {each.sha256: each for each in tokens}
        self.count = len(tokens)

    def find(self, token: str) -> ApiToken | None:
        return self.with_digest(digest_of(token))

    def with_digest(self, sha256: str) -> ApiToken | None:
        """The present entry of a token that was accepted before; None once it was revoked."""
        return self._by_digest.get(sha256)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A token that nobody guesses: 256 bits of chance. The prefix lets scanners of leaked secrets know it."""
    return _PREFIX + secrets.token_urlsafe(32)


def parse_tokens(text: str) -> ApiTokens:
    """The tokens in a TOML text, one at least. Raises FileBroken."""
    tokens = parse_toml(text, _File).tokens
    if not tokens:
        raise FileBroken("no tokens")
    for what, values in (("name", [each.name for each in tokens]), ("sha256", [each.sha256 for each in tokens])):
        if len(set(values)) < len(values):
            raise FileBroken(f"tokens: a {what} occurs twice")
    return ApiTokens(tokens)


class TokensFile(ReloadedFile[ApiTokens]):
    title = "API tokens file"
    log_events = "api_tokens_reloaded", "api_tokens_broken"

    def parse(self, text: str) -> ApiTokens:
        return parse_tokens(text)
