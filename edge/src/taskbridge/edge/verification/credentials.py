"""The known senders and their secrets, from a TOML file that is reloaded, and when each secret was last used."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from taskbridge.runtime.settings import FileBroken, ReloadedFile, fingerprint, parse_senders
from taskbridge.runtime.standard_webhooks import key_of
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from taskbridge.runtime.settings import SourceEntry


_BEARER = re.compile(r"[A-Za-z0-9._~+/=-]{32,}")
"""RFC 6750's characters, and too many of them to guess."""


@dataclass(frozen=True, slots=True)
class Token:
    """One secret with its public properties. A repr does not show it."""

    secret: SecretStr
    app_type: str
    """The app, or the other system, that signs with it."""
    place: str
    """``apps.0.system_tokens.1`` of the TOML file, or the name of its own file."""
    fingerprint: str
    """Names the token in logs, metrics and commands without revealing it."""


@dataclass(frozen=True, slots=True)
class App:
    """One app, and the tokens that it may sign with now."""

    app_type: str
    corp_id: str | None
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One other system, its corp, and its present secrets."""

    name: str
    corp_id: str
    format: str
    secrets: tuple[Token, ...]
    """It signs with one of these,"""
    bearers: tuple[Token, ...]
    """or sends one of these if it cannot sign."""
    keys: tuple[bytes, ...] = field(repr=False)
    """The keys of its secrets."""
    bearer_digests: tuple[str, ...]

    @property
    def tokens(self) -> tuple[Token, ...]:
        return self.secrets + self.bearers


class Credentials:
    """The apps by type, each perhaps with several corps, and the other systems by name."""

    def __init__(self, apps: Sequence[App], sources: Sequence[Source] = ()) -> None:
        self._apps: dict[str, list[App]] = {}
        for app in apps:
            self._apps.setdefault(app.app_type, []).append(app)
        self._signers = {
            app_type: [(app, token) for app in known for token in app.tokens] for app_type, known in self._apps.items()
        }
        self._sources = {source.name: source for source in sources}
        self.count = len(apps) + len(sources)
        self.tokens: Sequence[Token] = [token for sender in (*apps, *sources) for token in sender.tokens]

    @property
    def app_types(self) -> Iterable[str]:
        return self._apps

    def apps(self, app_type: str) -> Sequence[App]:
        return self._apps.get(app_type, ())

    def signers(self, app_type: str) -> Sequence[tuple[App, Token]]:
        """Each token of the app, with its corp."""
        return self._signers.get(app_type, ())

    def source(self, name: str) -> Source | None:
        return self._sources.get(name)


def parse_credentials(text: str, *, read_token: Callable[[str], str] | None = None) -> Credentials:
    """The credentials in a TOML text; ``read_token`` reads the token in a file that the text names.

    Raises FileBroken if it is not TOML, or not what the file should contain.
    """
    file = parse_senders(text)

    def held(
        owner: str, place: str, here: Sequence[SecretStr] | None, files: Sequence[str] | None
    ) -> tuple[Token, ...]:
        """The secrets in the text, then those in files."""
        found = [(f"{place}.{number}", secret) for number, secret in enumerate(here or ())]
        for name in files or ():
            if read_token is None:
                raise FileBroken(f"{place.rpartition('.')[2].removesuffix('s')}_files cannot be read here")
            found.append((name, SecretStr(read_token(name))))
        return tuple(
            Token(secret, owner, where, fingerprint(owner, secret.get_secret_value())) for where, secret in found
        )

    return Credentials(
        [
            App(
                app.app_type,
                app.corp_id,
                held(app.app_type, f"apps.{at}.system_tokens", app.system_tokens, app.system_token_files),
            )
            for at, app in enumerate(file.apps)
        ],
        [
            _source(
                source,
                held(source.name, f"sources.{at}.secrets", source.secrets, source.secret_files),
                held(source.name, f"sources.{at}.bearer_tokens", source.bearer_tokens, source.bearer_token_files),
            )
            for at, source in enumerate(file.sources)
        ],
    )


def _source(source: SourceEntry, secrets: tuple[Token, ...], bearers: tuple[Token, ...]) -> Source:
    keys: list[bytes] = []
    for each in secrets:
        try:
            keys.append(key_of(each.secret.get_secret_value()))
        except ValueError as error:
            raise FileBroken(f"{each.place}: {error}") from None
    for each in bearers:
        if not _BEARER.fullmatch(each.secret.get_secret_value()):
            raise FileBroken(f"{each.place}: must be at least 32 letters, digits and -._~+/=")
    digests = tuple(hashlib.sha256(each.secret.get_secret_value().encode()).hexdigest() for each in bearers)
    return Source(source.name, source.corp_id, source.format, secrets, bearers, tuple(keys), digests)


class CredentialsFile(ReloadedFile[Credentials]):
    """The credentials in use. A file without apps is valid only at the start."""

    title = "credentials file"
    log_events = "credentials_reloaded", "credentials_broken"

    def parse(self, text: str) -> Credentials:
        credentials = parse_credentials(text, read_token=self._token)
        if self.is_in_force and not credentials.count:
            raise FileBroken("no apps")
        return credentials

    def _token(self, name: str) -> str:
        # Relative to the folder in which the TOML is mounted; its name there may be a link.
        try:
            token = self.text_of(self.path.parent / name).removesuffix("\n").removesuffix("\r")
        except FileBroken as error:
            raise FileBroken(f"token file {name}: {error}") from error
        if not token.strip():
            raise FileBroken(f"token file {name}: is empty")
        return token


FLUSH_S = 5.0

_SINCE = "since"
_NS = 1e9

_log = structlog.stdlib.get_logger(__name__)


class UseUnknown(ConfigurationError):
    """The record of token use is missing or cannot be read."""


@dataclass(frozen=True, slots=True)
class Use:
    """The recorded use of tokens. Times are seconds since 1970."""

    since: float
    """The beginning of the record: "never" means not since then."""
    last: Mapping[str, float]
    """Fingerprint → the last use."""


def use_folder(data_dir: Path) -> Path:
    return data_dir / "token-use"


def read_use(data_dir: Path) -> Use:
    """The record of all edges of the folder. Raises UseUnknown if there is none, or it cannot be read."""
    folder = use_folder(data_dir)
    try:
        found = {path.name: path.stat().st_mtime_ns / _NS for path in folder.iterdir()}
        return Use(found.pop(_SINCE), found)
    except (FileNotFoundError, NotADirectoryError, KeyError):
        problem = f"no token usage in {folder}; check that it is the data folder of an edge that has run"
        raise UseUnknown(problem) from None
    except OSError as error:
        raise UseUnknown(f"the token usage file cannot be read: {folder}: {error.strerror}") from error


class TokenUse:
    """Records when each token was last used, so that unused ones can be retired; the record survives restarts.

    All edges of a data folder share a folder in it with an empty file per token, named by its fingerprint and modified
    when the token was last used. The file ``since`` was modified when the record began.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._since = time.time_ns()
        self._last: dict[str, int] = {}
        self._changed = True
        self._failed = False

    def note(self, token: Token) -> None:
        self._last[token.fingerprint] = time.time_ns()
        self._changed = True

    def last(self) -> Mapping[str, float]:
        """The last use of each token by any edge; that of others may be up to FLUSH_S old."""
        try:
            recorded = read_use(self._data_dir).last
        except UseUnknown:
            recorded = dict[str, float]()
        return {**recorded, **{name: max(at / _NS, recorded.get(name, 0)) for name, at in self._last.items()}}

    async def flush_regularly(self) -> None:
        """Write new uses to disk every few seconds, until cancelled."""
        while True:
            await asyncio.to_thread(self.flush)
            await asyncio.sleep(FLUSH_S)

    def flush(self) -> None:
        """Write new uses to disk. A failure is logged once, and retried the next time."""
        if not self._changed:
            return
        self._changed = False
        folder = use_folder(self._data_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / _SINCE).exists():
                _write(folder / _SINCE, self._since)
            for name, at in dict(self._last).items():
                # A later use by another edge stays, unless its clock was ahead.
                if not (folder / name).exists() or not at <= (folder / name).stat().st_mtime_ns <= time.time_ns():
                    _write(folder / name, at)
        except OSError as error:
            self._changed = True
            if not self._failed:
                _log.error("token_use_not_stored", problem=error.strerror)
            self._failed = True
        else:
            self._failed = False


def _write(path: Path, at: int) -> None:
    path.touch()
    os.utime(path, ns=(at, at))
