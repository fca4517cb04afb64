"""The apps that are known here and their tokens: a TOML file that is read again when it changes."""

from __future__ import annotations

import asyncio
import tomllib
from typing import TYPE_CHECKING, Annotated

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationError

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

POLL_S = 1.0

_log = structlog.stdlib.get_logger(__name__)

type_version = tuple[int, ...] | None


class CredentialsBroken(ConfigurationError):
    """The credentials file cannot be used; the message names the place and none of the tokens."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _tokens(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    # What an empty token verifies, anybody can sign.
    if not tokens or not all(token.get_secret_value().strip() for token in tokens):
        raise ValueError("must hold at least one token, and none that is blank")
    return tokens


_Name = Annotated[str, AfterValidator(_not_blank)]


class App(BaseModel):
    """One app, and the tokens that it may sign with at present. A repr shows no token."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_type: _Name
    corp_id: _Name | None = None
    system_tokens: Annotated[tuple[SecretStr, ...], AfterValidator(_tokens)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    apps: tuple[App, ...] = ()


class Credentials:
    """The apps by type; one app type may stand with several organisations."""

    def __init__(self, apps: Sequence[App]) -> None:
        self._apps: dict[str, list[App]] = {}
        for app in apps:
            self._apps.setdefault(app.app_type, []).append(app)
        self.count = len(apps)

    def apps(self, app_type: str) -> Sequence[App]:
        return self._apps.get(app_type, ())


def parse_credentials(text: str) -> Credentials:
    """The credentials in a TOML text.

    Raises:
        CredentialsBroken: not TOML, or not what the file should hold.
    """
    try:
        apps = _File.model_validate(tomllib.loads(text)).apps
    except tomllib.TOMLDecodeError as error:
        raise CredentialsBroken(f"not TOML: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False))
        raise CredentialsBroken("; ".join(problems)) from None
    seen = {(app.app_type, app.corp_id) for app in apps}
    if len(seen) < len(apps):
        raise CredentialsBroken("apps: the same app_type stands twice with the same corp_id")
    return Credentials(apps)


class CredentialsFile:
    """The credentials in force: those of the newest version of the file that was right."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            CredentialsBroken: it cannot be read, or is not right. A file without apps is right at this time only.
        """
        self._path = path
        self._version = _version(path)
        self.current = self._read(may_be_empty=True)
        self.broken: str | None = None
        """Why the newest version of the file is not in force; None when it is."""

    async def watch(self) -> None:
        """Keep up with the file until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.reload_if_changed)

    def reload_if_changed(self) -> None:
        """Put a new version of the file in force; a broken one is reported, and the old one stays."""
        version = _version(self._path)
        if version == self._version:
            return
        # Before it is read: should it change meanwhile, it is read once more.
        self._version = version
        try:
            credentials = self._read(may_be_empty=False)
        except CredentialsBroken as error:
            self.broken = str(error)
            _log.error("credentials_broken", problem=self.broken, apps_in_force=self.current.count)
            return
        self.current, self.broken = credentials, None
        _log.info("credentials_reloaded", apps=credentials.count)

    def _read(self, *, may_be_empty: bool) -> Credentials:
        try:
            credentials = parse_credentials(self._path.read_text("utf-8"))
        except CredentialsBroken as error:
            raise CredentialsBroken(f"credentials file {self._path}: {error}") from error
        except UnicodeDecodeError as error:
            raise CredentialsBroken(f"credentials file {self._path}: not UTF-8") from error
        except OSError as error:
            raise CredentialsBroken(f"credentials file {self._path}: {error.strerror}") from error
        if not credentials.count and not may_be_empty:
            raise CredentialsBroken(f"credentials file {self._path}: no apps")
        return credentials


def _version(path: Path) -> type_version:
    """What differs whenever the file was written, replaced, or had its permissions mended."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
