"""The apps file (TOML): apps of Yida, and the credentials of their corps for DingTalk's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from pydantic import Field, SecretStr, model_validator

from taskbridge.runtime.settings import FileBroken, FileModel, NotBlank, Senders, parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class _Corp(FileModel):
    corp_id: NotBlank
    app_key: NotBlank
    app_secret: SecretStr | None = None
    app_secret_file: NotBlank | None = None
    user_id: NotBlank

    @model_validator(mode="after")
    def _has_secret(self) -> _Corp:
        if (self.app_secret is None) == (self.app_secret_file is None):
            raise ValueError("exactly one of app_secret and app_secret_file is required")
        return self


class _App(FileModel):
    app_type: NotBlank
    corp_id: NotBlank | None = None
    system_token: SecretStr | None = None
    system_token_file: NotBlank | None = None
    user_id: NotBlank | None = None
    forms: tuple[NotBlank, ...] = ()
    url: Annotated[str, Field(pattern=r"^https?://.*\{instance_id\}")] | None = None


class _File(FileModel):
    corps: tuple[_Corp, ...]
    apps: tuple[_App, ...]


@dataclass(frozen=True, slots=True)
class Corp:
    """A corp, with the credentials of its DingTalk application. The repr does not show the secret."""

    corp_id: str
    app_key: str
    app_secret: SecretStr


@dataclass(frozen=True, slots=True)
class App:
    """An app of Yida."""

    corp: Corp
    app_type: str
    system_token: SecretStr
    user_id: str
    """A user who may see all data of the app."""
    forms: tuple[str, ...]
    """The forms to read. Empty: all that start a process."""
    url: str | None = None
    """The URL of an instance's page, with `{instance_id}` for its id: DingTalk's API does not return it."""

    @property
    def corp_id(self) -> str:
        return self.corp.corp_id

    def url_of(self, instance_id: str) -> str | None:
        return None if self.url is None else self.url.replace("{instance_id}", quote(instance_id, safe=""))


def read_apps(path: Path, credentials: Path | None = None) -> tuple[App, ...]:
    """The apps of the file. An app without a system token uses its token from the edge's credentials file.

    Raises:
        FileBroken: A file cannot be read or is wrong. The message contains no secret.
    """
    try:
        return parse_apps(_text(path), path, credentials, read=_text)
    except FileBroken as error:
        raise FileBroken(f"apps file {path}: {error}") from None


def parse_apps(text: str, path: Path, credentials: Path | None, *, read: Callable[[Path], str]) -> tuple[App, ...]:
    """As ``read_apps``, of the text of the file at this path. ``read`` returns the text of any other file."""
    file = parse_toml(text, _File)
    corps = {each.corp_id: Corp(each.corp_id, each.app_key, _app_secret(each, path, read)) for each in file.corps}
    if len(corps) < len(file.corps):
        raise FileBroken("corps: a corp_id occurs twice")
    users = {each.corp_id: each.user_id for each in file.corps}
    found: dict[tuple[str, str], App] = {}
    for at, each in enumerate(file.apps):
        corp_id = each.corp_id or (next(iter(corps)) if len(corps) == 1 else None)
        if corp_id not in corps:
            raise FileBroken(f"apps.{at}: corp_id must be the corp_id of one of [[corps]]")
        token = _system_token(each, corp_id, path, credentials, read)
        if token is None or not token.get_secret_value().strip():
            raise FileBroken(f"apps.{at}: system_token is required, unless the app is in the edge's credentials file")
        if (corp_id, each.app_type) in found:
            raise FileBroken(f"apps.{at}: an app_type occurs twice with the same corp_id")
        found[corp_id, each.app_type] = App(
            corps[corp_id], each.app_type, token, each.user_id or users[corp_id], each.forms, each.url
        )
    return tuple(found.values())


def _app_secret(corp: _Corp, path: Path, read: Callable[[Path], str]) -> SecretStr:
    secret = corp.app_secret or secret_in(path, corp.app_secret_file or "", read)
    if not secret.get_secret_value().strip():
        raise FileBroken("corps: an app_secret is empty")
    return secret


def _system_token(
    app: _App, corp_id: str, path: Path, credentials: Path | None, read: Callable[[Path], str]
) -> SecretStr | None:
    if app.system_token is not None:
        return app.system_token
    if app.system_token_file is not None:
        return secret_in(path, app.system_token_file, read)
    if credentials is None:
        return None
    try:
        entries = parse_toml(read(credentials), Senders).apps
    except FileBroken as error:
        raise FileBroken(f"credentials file {credentials}: {error}") from None
    for known in entries:
        if known.app_type == app.app_type and known.corp_id in (None, corp_id):
            # The first is current; the others are previous or future ones.
            if known.system_tokens:
                return known.system_tokens[0]
            if known.system_token_files:
                return secret_in(credentials, known.system_token_files[0], read)
    return None


def secret_in(base: Path, name: str, read: Callable[[Path], str]) -> SecretStr:
    """The secret in a file that another file names."""
    return SecretStr(read(base.parent / name).removesuffix("\n").removesuffix("\r"))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise FileBroken(f"{path.name}: not UTF-8") from None
    except (OSError, ValueError) as error:
        raise FileBroken(f"{path.name}: {getattr(error, 'strerror', None) or 'not a file name'}") from None
