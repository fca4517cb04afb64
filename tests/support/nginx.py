"""nginx: the machine's, else the program of Debian's package, which is unpacked and not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from taskbridge.local.jvm.artifacts import cache_folder
from taskbridge.local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

NOT_THERE = "nginx is missing, and with it the proof that the documented proxy works: apt-get install nginx-light"
_START_S = 30


def nginx() -> str:
    """The program.

    Raises:
        AssertionError: there is none, and no package of it can be had.
    """
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    program = cache_folder(os.environ) / "nginx" / "usr" / "sbin" / "nginx"
    if found is None and not program.exists():
        folder = program.parents[2]
        folder.mkdir(parents=True, exist_ok=True)
        assert shutil.which("apt-get"), NOT_THERE
        downloaded = subprocess.run(["apt-get", "-qq", "download", "nginx"], cwd=folder, check=False, timeout=120)
        assert downloaded.returncode == 0, NOT_THERE
        package = next(folder.glob("nginx_*.deb"))
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=60)
        package.unlink()
    return found or str(program)


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
