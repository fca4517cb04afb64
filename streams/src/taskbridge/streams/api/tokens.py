"""The API tokens and the corps that each may see: a TOML file of digests, read again when it changes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import tomllib
from typing import TYPE_CHECKING, Annotated

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from taskbridge.runtime.file_version import POLL_S, Version, version_of
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

ALL_CORPS = "*"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREFIX = "tb_"


class TokensBroken(ConfigurationError):
    """The tokens file cannot be used; the message names the place and no digest."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _digest(text: str) -> str:
    lowered = text.lower()
    if not _DIGEST.fullmatch(lowered):
        raise ValueError("must be the SHA-256 of the token, 64 hex digits: `taskbridge token new` prints it")
    if lowered == digest_of(""):
        raise ValueError("is the digest of an empty token")
    return lowered


def _corps(corps: tuple[str, ...]) -> tuple[str, ...]:
    if not corps or not all(corp.strip() for corp in corps):
        raise ValueError('must name at least one corp, and none that is blank; ["*"] is for all')
    if ALL_CORPS in corps and len(corps) > 1:
        raise ValueError('"*" stands for all corps, and stands alone')
    return corps


class ApiToken(BaseModel):
    """One token as it stands in the file. The token itself stands nowhere here."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_not_blank)]
    sha256: Annotated[str, AfterValidator(_digest)]
    corps: Annotated[tuple[str, ...], AfterValidator(_corps)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tokens: tuple[ApiToken, ...] = ()


class ApiTokens:
    """The tokens of one version of the file."""

    def __init__(self, tokens: tuple[ApiToken, ...]) -> None:
        self._tokens = [(bytes.fromhex(each.sha256), each) for each in tokens]
        self._by_digest = {each.sha256: each for each in tokens}

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, token: str) -> ApiToken | None:
        """The entry of this token; takes as long for any token that is not known as for one that is."""
        presented = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found: ApiToken | None = None
        for digest, entry in self._tokens:
            if hmac.compare_digest(presented, digest):
                found = entry
        return found

    def with_digest(self, sha256: str) -> ApiToken | None:
        """The entry that stands for a token which was let in before; None once it was taken back."""
        return self._by_digest.get(sha256)


def digest_of(token: str) -> str:
    """What the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A token that nobody guesses: 256 bits of chance. The prefix lets scanners of leaked secrets know it."""
    return _PREFIX + secrets.token_urlsafe(32)


def parse_tokens(text: str) -> ApiTokens:
    """The tokens in a TOML text.

    Raises:
        TokensBroken: not TOML, or not what the file should hold, or without any token.
    """
    try:
        tokens = _File.model_validate(tomllib.loads(text)).tokens
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TokensBroken(f"not TOML: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False))
        raise TokensBroken("; ".join(problems)) from None
    if not tokens:
        raise TokensBroken("no tokens")
    for what, values in (("name", [each.name for each in tokens]), ("sha256", [each.sha256 for each in tokens])):
        if len(set(values)) < len(values):
            raise TokensBroken(f"tokens: the same {what} stands twice")
    return ApiTokens(tokens)


class TokensFile:
    """The tokens in force: those of the newest version of the file that was right."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            TokensBroken: it cannot be read, or is not right.
        """
        self._path = path
        self._version: Version = None
        self.current = self._read()
        self.broken: str | None = None
        """Why the newest version of the file is not in force; None when it is."""

    async def watch(self) -> None:
        """Keep up with the file until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.reload_if_changed)

    def reload_if_changed(self) -> None:
        """Put a new version of the file in force; a broken one is reported, and the old one stays."""
        if version_of(self._path) == self._version:
            return
        try:
            tokens = self._read()
        except TokensBroken as error:
            self.broken = str(error)
            # The message says it all, and a trace would only be read as a fault of the program.
            log.error(  # noqa: TRY400
                "api_tokens_broken", problem=self.broken, tokens_in_force=len(self.current)
            )
            return
        self.current, self.broken = tokens, None
        log.info("api_tokens_reloaded", tokens=len(tokens))

    def _read(self) -> ApiTokens:
        # Looked at before it is read: should it change meanwhile, it is read once more.
        self._version = version_of(self._path)
        try:
            return parse_tokens(self._path.read_bytes().decode())
        except UnicodeDecodeError as error:
            raise TokensBroken(f"API tokens file {self._path}: not UTF-8") from error
        except OSError as error:
            raise TokensBroken(f"API tokens file {self._path}: {error.strerror}") from error
        except TokensBroken as error:
            raise TokensBroken(f"API tokens file {self._path}: {error}") from error
