"""A settings file in force: the newest version of it that was right, read again when it changes."""

from __future__ import annotations

import asyncio
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

_POLL_S = 1.0
"""How often a file that may change is looked at."""


class FileBroken(ConfigurationError):
    """The file cannot be used; the message is one line that names the place and no secret."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
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
        raise FileBroken(f"not TOML: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise FileBroken("; ".join(problems)) from None


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

    async def watch(self) -> None:
        """Keep up with the files until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            await asyncio.to_thread(self.reload_if_changed)

    def reload_if_changed(self) -> None:
        """Put a new version in force; a broken one is reported, and the old one stays."""
        if all(_version_of(path) == version for path, version in self._versions.items()):
            return
        reloaded, broken = self.log_events
        try:
            self.current, self.broken = self._read(), None
            _log.info(reloaded, in_force=self.current.count)
        except FileBroken as error:
            self.broken = str(error)
            _log.error(broken, problem=self.broken, in_force=self.current.count)

    def _read(self) -> T:
        self._versions: dict[Path, tuple[int, ...] | None] = {}
        try:
            return self.parse(self.text_of(self.path))
        except FileBroken as error:
            raise FileBroken(f"{self.title} {self.path}: {error}") from error


def _version_of(path: Path) -> tuple[int, ...] | None:
    """What differs whenever the file was written, replaced, or its permissions mended; None where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
