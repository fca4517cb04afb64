"""Checks of the machine: host names, disks, ports, limits, the clock."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from taskbridge.cli.doctor.findings import failed, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.cli.doctor.findings import Finding

_SYNCS = 20
_SLOW_SYNC_S = 0.05
_SYNC_BYTES = 4096
_VOLATILE = {"tmpfs", "ramfs"}
_SHARED = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"}
_SKEW_WARNING_S, _SKEW_S = 5, 60
_OTHER_FILES = 256
_TIMEOUT_S = 3


def names(addresses: str, *, setting: str) -> Iterator[Finding]:
    """Check that the hosts of ``host:port``, comma-separated, resolve."""
    for address in (each.strip() for each in addresses.split(",")):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            yield failed("names", f"{address!r} is not host:port", f"correct {setting}")
            continue
        try:
            socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            yield failed("names", f"{host} does not resolve: {error.strerror}", f"correct {setting}, or DNS")
        else:
            yield ok("names", f"{host} resolves")


def folder(path: Path, *, setting: str, needs_bytes: int) -> Iterator[Finding]:
    """Check that data is safe in this folder, and how long an fsync takes."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    kind = _filesystem(there)
    if kind in _VOLATILE:
        yield failed(
            "disk",
            f"{path} is in memory ({kind}): a restart of the machine deletes its contents",
            f"set {setting} to a disk",
        )
    elif kind in _SHARED:
        yield warning(
            "disk",
            f"{path} is on a shared file system ({kind}), whose locks and fsync may be unreliable",
            f"set {setting} to a local disk",
        )
    free = shutil.disk_usage(there).free
    if free < needs_bytes:
        yield failed(
            "space",
            f"{path} has {free >> 20} MiB free, but may need {needs_bytes >> 20} MiB",
            f"free space, or set {setting} to a larger disk",
        )
    else:
        yield ok("space", f"{path} has {free >> 20} MiB free")
    try:
        slowest = sync_seconds(there)
    except OSError as error:
        yield failed(
            "writable", f"cannot write to {path}: {error.strerror}", f"give this user write access, or change {setting}"
        )
        return
    if slowest > _SLOW_SYNC_S:
        yield warning(
            "fsync",
            f"an fsync in {path} took up to {slowest * 1000:.0f} ms: callbacks wait for it while Kafka is down",
            "use a faster disk, or a dedicated one",
        )
    else:
        yield ok("fsync", f"an fsync in {path} takes up to {slowest * 1000:.1f} ms")


def sync_seconds(path: Path) -> float:
    """The longest of several small writes with fsync to an unnamed file in this folder."""
    slowest = 0.0
    with tempfile.TemporaryFile(dir=path) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            file.write(bytes(_SYNC_BYTES))
            file.flush()
            os.fsync(file.fileno())
            slowest = max(slowest, time.perf_counter() - started)
    return slowest


def port(host: str, number: int, *, service: str, setting: str) -> Iterator[Finding]:
    """Check that a service can listen on its port, or already does."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, number))
    except OSError as error:
        if _is_ours(host, number):
            yield ok("port", f"{service} answers on port {number}")
        else:
            yield failed(
                "port",
                f"{service} cannot listen on {host}:{number}: {error.strerror}",
                f"stop the program that uses it, or change {setting}",
            )
    else:
        yield ok("port", f"port {number} is free for {service}")


def open_files(connections: int) -> Iterator[Finding]:
    """Check that a process may open a file for each connection that it accepts."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if most < wanted:
        yield failed(
            "open-files",
            f"the limit is {most} open files, but {connections} connections need {wanted}",
            "raise the limit (ulimit -n, LimitNOFILE=), or lower EDGE_MAX_CONNECTIONS",
        )
    else:
        yield ok("open-files", f"the limit is {most} open files")


def clock(url: str) -> Iterator[Finding]:
    """Compare this clock with that of the server at ``url``; skipped if it sends no date."""
    try:
        before = time.time()
        said = httpx2.get(url, timeout=_TIMEOUT_S, trust_env=False).headers.get("date")
        here = datetime.fromtimestamp((before + time.time()) / 2, UTC)
        there = parsedate_to_datetime(said) if said else None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return
    if there is None:
        return
    skew = abs((here - there).total_seconds())
    who = urlsplit(url).netloc
    do = "synchronize both clocks (chrony, systemd-timesyncd)"
    if skew > _SKEW_S:
        yield failed(
            "clock",
            f"this clock and that of {who} are {skew:.0f} s apart: signed messages are rejected as untimely",
            do,
        )
    elif skew > _SKEW_WARNING_S:
        yield warning("clock", f"this clock and that of {who} are {skew:.0f} s apart", do)
    else:
        yield ok("clock", f"this clock and that of {who} agree")


def _filesystem(path: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return ""
    real = path.resolve()
    over = [(len(where), kind) for _, where, kind, *_ in mounts if real.is_relative_to(where)]
    return max(over, default=(0, ""))[1]


def _is_ours(host: str, number: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    try:
        answer = httpx2.get(f"http://{shown}:{number}/healthz", timeout=_TIMEOUT_S, trust_env=False)
        return answer.is_success and isinstance(answer.json(), dict)
    except (httpx2.HTTPError, ValueError):
        return False
