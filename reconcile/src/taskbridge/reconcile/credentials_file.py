"""Edits the edge's credentials file: tokens of single apps change, everything else stays byte for byte."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import tomlkit

from taskbridge.dingtalk.apps import secret_in
from taskbridge.runtime.settings import FileBroken, parse_senders
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.runtime.settings import AppEntry, Senders

_HEADER = re.compile(r"^(?=[ \t]*\[)", re.MULTILINE)
_APP = re.compile(r"[ \t]*\[\[[ \t]*apps[ \t]*\]\]")


class NewEntry(NamedTuple):
    app_type: str
    corp_id: str
    system_token: str
    name: str | None
    """Of the app, for people: written as a comment."""


class CredentialsText:
    """The file as it was read."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            FileBroken: It cannot be read or is invalid.
        """
        self._path = path
        try:
            self._content = path.read_bytes()
            self._text = self._content.decode()
            self.senders: Senders = parse_senders(self._text)
        except FileBroken as error:
            raise self._broken(str(error)) from None
        except UnicodeDecodeError:
            raise self._broken("not UTF-8") from None
        except OSError as error:
            raise self._broken(error.strerror or "cannot be read") from None

    def tokens_of(self, entry: AppEntry) -> tuple[list[str], list[str]]:
        """The tokens in the text, and those in files that the entry names.

        Raises:
            FileBroken: A file cannot be read.
        """
        names = entry.system_token_files or ()
        try:
            named = [secret_in(self._path, each, _text_of).get_secret_value() for each in names]
        except (OSError, UnicodeDecodeError):
            raise self._broken(f"a token file of {entry.app_type} cannot be read") from None
        return [each.get_secret_value() for each in entry.system_tokens or ()], named

    def edited(self, tokens: Mapping[int, Sequence[str]], new: Sequence[NewEntry]) -> str:
        """The text with other ``system_tokens`` in the entries at these places, and with new entries at its end.

        Raises:
            FileBroken: The text cannot be edited so that nothing else changes.
        """
        expected: dict[str, Any] = tomllib.loads(self._text)
        parts = _HEADER.split(self._text)
        places = [at for at, part in enumerate(parts) if _APP.match(part)]
        if len(places) != len(self.senders.apps):
            raise self._broken("write each app as [[apps]], so that its tokens can be changed")
        for at, of_app in tokens.items():
            expected["apps"][at]["system_tokens"] = [*of_app]
            parts[places[at]] = _with_tokens(parts[places[at]], of_app)
        text = "".join(parts)
        for each in new:
            fields = {"app_type": each.app_type, "corp_id": each.corp_id, "system_tokens": [each.system_token]}
            expected.setdefault("apps", []).append(fields)
            name = "".join(filter(str.isprintable, each.name or ""))
            lines = [f"[[apps]]  # {name}" if name else "[[apps]]"]
            lines += [f"{key} = {tomlkit.item(value).as_string()}" for key, value in fields.items()]
            gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
            text += gap + "\n".join(lines) + "\n"
        try:
            parse_senders(text)
            is_right = tomllib.loads(text) == expected
        except FileBroken as error:
            raise self._broken(f"with the apps of DingTalk it would be invalid: {error}") from None
        if not is_right:
            raise self._broken("it is written in a way that cannot be edited; write each app as [[apps]]")
        return text

    def replace(self, text: str) -> None:
        """Write the new text. The file's owner and mode stay, and a reader sees the old or the new file whole.

        Raises:
            OperatorError: It cannot be written, or somebody changed it meanwhile. The old file stays.
        """
        path = self._path.resolve()
        try:
            found = path.stat()
            # Only its owner may read it until it has the mode of the old file.
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                    file.write(text.encode())
                    file.flush()
                    # Not the process's group: a folder may give its own to new files.
                    made = os.fstat(descriptor)
                    if (found.st_uid, found.st_gid) != (made.st_uid, made.st_gid):
                        os.fchown(descriptor, found.st_uid, found.st_gid)
                    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
                    os.fsync(descriptor)
                self._check_unchanged(path)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            problem = f"credentials file {self._path} cannot be replaced: {error.strerror}; the old file stays"
            raise OperatorError(problem) from None

    def _check_unchanged(self, path: Path) -> None:
        if path.read_bytes() != self._content:
            raise OperatorError(f"credentials file {self._path} was changed meanwhile: try again")

    def _broken(self, why: str) -> FileBroken:
        return FileBroken(f"credentials file {self._path}: {why}")


def _text_of(path: Path) -> str:
    return path.read_bytes().decode()


def _with_tokens(part: str, tokens: Sequence[str]) -> str:
    """The part of the text with one entry, with these tokens; comments and layout stay."""
    document = tomlkit.parse(part)
    entry = cast("Any", document)["apps"][0]
    if "system_tokens" not in entry:
        entry["system_tokens"] = [*tokens]
        return tomlkit.dumps(document)  # pyright: ignore[reportUnknownMemberType] - of any mapping
    listed = entry["system_tokens"]
    for each in [*listed]:
        if each not in tokens or each == tokens[0]:
            listed.remove(each)
    listed.insert(0, tokens[0])
    return tomlkit.dumps(document)  # pyright: ignore[reportUnknownMemberType] - of any mapping
