"""Archives whose bytes depend on the names and the contents of their files only."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from release.source import Source


def add(archive: tarfile.TarFile, folder: Path, prefix: str, *, time: int, owner: int = 0) -> None:
    """Add all files below ``folder``, in the order of their names, as files of ``owner``."""
    follow = bool(archive.dereference)
    found = [Path(at, name) for at, folders, names in os.walk(folder, followlinks=follow) for name in folders + names]
    for path in sorted(found):
        info = archive.gettarinfo(str(path), arcname=str(Path(prefix, path.relative_to(folder))))
        info.mtime, info.uid, info.gid, info.uname, info.gname = time, owner, owner, "", ""
        if not info.mode & stat.S_ISVTX:  # /tmp is everybody's
            info.mode = 0o755 if info.isdir() or info.mode & stat.S_IXUSR else 0o644
        if info.isreg() or info.islnk():
            # Links between equal files depend on how the folder was filled.
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(info, content)
        else:
            archive.addfile(info)


def packed(out: Path, source: Source, folders: Iterable[tuple[Path, str]]) -> Path:
    """A ``.tar.gz`` of folders with their prefixes. What a symbolic link points to is stored in its place."""
    with (
        out.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=source.time) as zipped,
        tarfile.open(fileobj=zipped, mode="w", dereference=True) as archive,
    ):
        for folder, prefix in folders:
            add(archive, folder, prefix, time=source.time)
    return out


def chart(source: Source, out: Path) -> Path:
    """The Helm chart as ``helm package`` makes it, without the time of the build."""
    return packed(out / f"{source.name}.tgz", source, [(source.tree / "deploy" / "chart", "taskbridge")])


def deployment(source: Source, out: Path) -> Path:
    """What else is installed without a checkout: Compose, systemd, Strimzi, alerts and dashboards."""
    kinds = ("alerts", "compose", "dashboards", "strimzi", "systemd")
    folders = [(source.tree / "deploy" / kind, f"{source.name}/{kind}") for kind in kinds]
    return packed(out / f"{source.name}-deploy.tar.gz", source, folders)
