"""nginx: the machine's, else the program of Debian's package, which is unpacked and not installed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prerequisites import which
from support import needs
from taskbridge.local.artifacts import cache_folder
from taskbridge.local.host import free_port

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


_START_S = 60


def nginx() -> str:
    """Return the program. Where none can be had the test is skipped, or fails under ``CI=true``."""
    needs.program("nginx")
    program = cache_folder(os.environ) / "nginx" / "usr" / "sbin" / "nginx"
    if (found := which("nginx")) is not None:
        return found
    if not program.exists():
        folder = program.parents[2]
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_downloaded(folder):
            # A new machine has no lists of packages yet.
            subprocess.run(["apt-get", "-qq", "update"], check=False, timeout=120)
            if not _is_downloaded(folder):
                needs.leave_out("nginx", "apt-get cannot download its package")
        package = next(folder.glob("nginx_*.deb"))
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=60)
        package.unlink()
    return str(program)


def _is_downloaded(folder: Path) -> bool:
    done = subprocess.run(["apt-get", "-qq", "download", "nginx"], cwd=folder, check=False, timeout=120)
    return done.returncode == 0


@contextmanager
def proxying(folder: Path, *, http: str, server: str) -> Generator[str]:
    """A server with this configuration on a free port, with everything that it writes in the folder."""
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}\n{http}\nserver {{\nlisten 127.0.0.1:{port};\n{server}\n}}\n}}\n"
    )
    process = subprocess.Popen([nginx(), "-c", str(config), "-e", str(folder / "error.log")])
    try:
        deadline = time.monotonic() + _START_S
        while not _listens(port):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_START_S)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
