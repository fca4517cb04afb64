"""A settings file in force: the newest version of it that was right, read again when it changes."""

from __future__ import annotations

import asyncio
import re
import tomllib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, Protocol, TypeVar

import structlog
from pydantic import AfterValidator, BaseModel, ValidationError

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class _Entries(Protocol):
    @property
    def count(self) -> int: ...


T = TypeVar("T", bound=_Entries)
M = TypeVar("M", bound=BaseModel)

_log = structlog.stdlib.get_logger(__name__)

POLL_S = 1.0
"""How often a file that may change is looked at."""


_PLACE = re.compile(r"(\w+)(?:\.(\d+))?(?:\.([a-z]\w*))?[\w.]*: ")
"""As messages begin: ``apps.1.corp_id: ``."""
_NOTICED_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
"""As tomllib's messages end."""


class FileBroken(ConfigurationError):
    """The file cannot be used; the message is one line that names the place and no secret."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


NotBlank = Annotated[str, AfterValidator(_not_blank)]


def parse_toml(text: str, model: type[M]) -> M:
    """What a TOML text says, as ``model``, which hides its input in errors.

    Raises:
        FileBroken: not TOML, or not what the file should hold.
    """
    try:
        return model.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileBroken(f"{_broken_line(text, error)}not TOML: {_NOTICED_AT.sub('', str(error))}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise FileBroken("; ".join(problems)) from None


def _broken_line(text: str, error: Exception) -> str:
    """Where the statement begins that is not TOML: tomllib names the place where it notices, perhaps lines later."""
    statement, begins = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement += f"{line}\n"
        try:
            tomllib.loads(statement)
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        statement, begins = "", number + 1
    if statement:
        return f"line {begins}: "
    # Each statement alone is right: the second of two that exclude each other is where tomllib notices it.
    noticed = _NOTICED_AT.search(str(error))
    return f"line {noticed[1]}: " if noticed is not None and noticed[1] else ""


def _with_line(text: str, problem: str) -> str:
    """The problem after the line that its place leads to, where it leads to one."""
    place = _PLACE.match(problem)
    if place is None:
        return problem
    table, entry, key = place.groups()
    lines = text.split("\n")
    heads = [at for at, line in enumerate(lines) if re.match(rf"\s*\[*\s*{table}\b", line)]
    if (entry is None and len(heads) != 1) or int(entry or 0) >= len(heads):
        return problem
    found = heads[int(entry or 0)]
    for at in range(found + 1, len(lines)):
        if lines[at].lstrip().startswith("["):
            break
        if key is not None and re.match(rf"\s*{key}\b", lines[at]):
            found = at
    return f"line {found + 1}: {problem}"


class ReloadedFile(ABC, Generic[T]):
    """What the newest version of a file says that was right, of those it names too."""

    title: ClassVar[str]
    """How messages call the file."""
    log_events: ClassVar[tuple[str, str]]
    """What is logged when a new version of it is in force, and when it is not."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            FileBroken: it cannot be read, or is not right.
        """
        self.path = path
        self.is_in_force = False
        self.broken: str | None = None
        """Why the newest version of the file is not in force; None when it is."""
        self.current: T = self._read()
        self.is_in_force = True

    @abstractmethod
    def parse(self, text: str) -> T:
        """What the file says.

        Raises:
            FileBroken: it is not right.
        """

    def text_of(self, path: Path) -> str:
        """The text of this file, or of one that it names: all is read again when one of them changes.

        Raises:
            FileBroken: it cannot be read.
        """
        # Looked at before it is read: should it change meanwhile, it is read once more.
        self._versions[path] = _version_of(path)
        try:
            return path.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise FileBroken("not UTF-8") from error
        except OSError as error:
            raise FileBroken(f"{error.strerror}") from error

    @property
    def problem(self) -> str | None:
        """Why the last change is not in force, as readiness and the terminal of ``up`` say it; None when it is."""
        return None if self.broken is None else f"the last change is invalid and not in use: {self.broken}"

    async def watch(self) -> None:
        """Keep up with the files until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.reload_if_changed)

    def reload_if_changed(self) -> None:
        """Put a new version in force; a broken one is logged, and the old one stays."""
        if not self.refresh():
            return
        reloaded, broken = self.log_events
        if self.broken is None:
            _log.info(reloaded, in_force=self.current.count)
        else:
            _log.error(broken, problem=self.broken, in_force=self.current.count)

    def refresh(self) -> bool:
        """The same without a log: whether there was a new version."""
        if all(_version_of(path) == version for path, version in self._versions.items()):
            return False
        try:
            self.current, self.broken = self._read(), None
        except FileBroken as error:
            self.broken = str(error)
        return True

    def _read(self) -> T:
        self._versions: dict[Path, tuple[int, ...] | None] = {}
        text = ""
        try:
            text = self.text_of(self.path)
            return self.parse(text)
        except FileBroken as error:
            raise FileBroken(f"{self.title} {self.path}: {_with_line(text, str(error))}") from error


def _version_of(path: Path) -> tuple[int, ...] | None:
    """What differs whenever the file was written, replaced, or its permissions mended; None where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
