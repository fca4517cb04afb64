"""The image of all services as an archive, without Docker: Debian's Python, and on it what pip would install."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import image as docker_image
from release import archives, sbom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from release.source import Source

MIRROR = "http://deb.debian.org"
SUITES = (
    f"deb {MIRROR}/debian bookworm main",
    f"deb {MIRROR}/debian bookworm-updates main",
    f"deb {MIRROR}/debian-security bookworm-security main",
)
PACKAGES = ("ca-certificates", "libpython3-stdlib", "libstdc++6", "python3-minimal")
PLATFORM = ("--python-platform", "x86_64-manylinux_2_36")
"""The C library of that Debian: this machine may have a newer one."""
USER = 10001
_APP, _DATA = "opt/taskbridge", "var/lib/taskbridge"

_NOT_NEEDED = ("dev", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt", "var/log")
_OF_THIS_MACHINE = ("etc/hostname", "etc/resolv.conf", "etc/apt", "etc/fstab")

_COMPILE = """\
import sys, compileall, py_compile
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
compileall.compile_dir(sys.argv[1], quiet=2, force=True, invalidation_mode=mode)
"""

_OCI = "application/vnd.oci.image"


def missing() -> str | None:
    """Why the image cannot be built here, None if it can."""
    if shutil.which("mmdebstrap") is None:
        return "there is no mmdebstrap"
    if os.uname().machine != "x86_64":
        return "it is for x86-64"
    return None if os.geteuid() == 0 else "it needs root"


def build(source: Source, wheels: Path, out: Path) -> Path:
    """Write the archive, which ``docker load`` and ``ctr images import`` read, and its bill of materials."""
    tree = source.tree / "build" / "root"
    tree.mkdir(parents=True)
    debian = _base(source, tree)
    _compile(source, tree, "/usr/lib/python3.11")
    layers = [_layer(source, tree, "base", owner=0)]
    app = tree / _APP
    docker_image.install(app, wheels=wheels, checkout=source.tree, options=PLATFORM)
    _remove_traces(app)
    _compile(source, tree, f"/{_APP}")
    layers.append(_layer(source, app, _APP, owner=0))
    (tree / _DATA).mkdir(parents=True)
    layers.append(_layer(source, tree / _DATA, _DATA, owner=USER))
    packages = debian | sbom.installed(app) | sbom.crates(source.tree / "native" / "Cargo.lock")
    sbom.write(out / f"{source.name}-image.cdx.json", source, packages)
    return archive(source, out / f"{source.name}-image.tar", layers)


def _remove_traces(app: Path) -> None:
    """Scripts name this machine's Python in their first line, and uv notes when a wheel was built."""
    shutil.rmtree(app / "bin")
    for each in app.glob("*.dist-info/uv_cache.json"):
        each.unlink()
    for record in app.glob("*.dist-info/RECORD"):
        lines = record.read_text("utf-8").splitlines(keepends=True)
        stay = (each for each in lines if not re.match(r"(\.\./)*bin/|[^,]*/uv_cache\.json,", each))
        record.write_text("".join(stay), "utf-8")


def _base(source: Source, tree: Path) -> sbom.Packages:
    """Debian's packages, unpacked and not set up: no package manager runs in the image."""
    names = source.tree / "build" / "debian"
    source.run(
        *("mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}"),
        f'--extract-hook=ls "$1"/var/cache/apt/archives > {names}',
        *("bookworm", tree, *SUITES),
    )
    for each in (*_NOT_NEEDED, *_OF_THIS_MACHINE):
        path = tree / each
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for each in (path for path in (tree / "usr/share/doc").rglob("*") if path.is_file() and path.name != "copyright"):
        each.unlink()
    # What the packages' own scripts would write.
    (tree / "etc/passwd").write_text(f"root:x:0:0::/:/\ntaskbridge:x:{USER}:{USER}::/{_DATA}:/\n")
    (tree / "etc/group").write_text(f"root:x:0:\ntaskbridge:x:{USER}:\n")
    authorities = sorted((tree / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = tree / "etc/ssl/certs/ca-certificates.crt"
    bundle.write_text("".join(each.read_text("ascii") for each in authorities), "ascii")
    return sbom.debian(names.read_text().split())


def _compile(source: Source, tree: Path, folder: str) -> None:
    """By the image's own Python, in one process: bytecode is then the same each time."""
    # Some packages have files for other Pythons: what cannot be compiled is left as it is.
    source.run("chroot", tree, "/usr/bin/python3", "-c", _COMPILE, folder)


@dataclass(frozen=True)
class Layer:
    path: Path
    content: str
    """The digest of the archive before it was compressed."""


def _layer(source: Source, folder: Path, name: str, *, owner: int) -> Layer:
    """All files of a folder, below the place that it has in the image."""
    prefix = "" if name == "base" else name
    path = source.tree / "build" / f"{name.replace('/', '-')}.tar"
    with tarfile.open(path, "w") as archive:
        if prefix:
            info = tarfile.TarInfo(prefix)
            info.type, info.mode, info.mtime, info.uid, info.gid = tarfile.DIRTYPE, 0o755, source.time, owner, owner
            archive.addfile(info)
        archives.add(archive, folder, prefix, time=source.time, owner=owner)
    digest = _digest(path)
    zipped = path.with_suffix(".tar.gz")
    with path.open("rb") as plain, zipped.open("wb") as file, gzip.GzipFile("", "wb", 6, file, source.time) as to:
        shutil.copyfileobj(plain, to)
    path.unlink()
    return Layer(zipped, digest)


def archive(source: Source, path: Path, layers: Sequence[Layer]) -> Path:
    """An OCI layout that also has what Docker before version 25 reads."""
    blobs: dict[str, bytes | Path] = {}

    def blob(kind: str, content: Any) -> dict[str, Any]:
        data = content if isinstance(content, Path) else json.dumps(content, sort_keys=True).encode()
        digest = _digest(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": size}

    platform = {"architecture": "amd64", "os": "linux"}
    described = [blob("layer.v1.tar+gzip", each.path) for each in layers]
    config = blob(
        "config.v1+json",
        {
            **platform,
            "created": datetime.fromtimestamp(source.time, UTC).isoformat(),
            "config": configuration((source.tree / "deploy/image/Dockerfile").read_text("utf-8"), source),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each.content}" for each in layers]},
        },
    )
    kind = "manifest.v1+json"
    manifest = blob(kind, {"schemaVersion": 2, "mediaType": f"{_OCI}.{kind}", "config": config, "layers": described})
    tags = [f"taskbridge:{each}" for each in (source.version, "latest")]
    named = [
        {
            "io.containerd.image.name": f"docker.io/library/{each}",
            "org.opencontainers.image.ref.name": each.removeprefix("taskbridge:"),
        }
        for each in tags
    ]
    entries = [{**manifest, "annotations": each, "platform": platform} for each in named]  # one name each
    index = {"schemaVersion": 2, "manifests": entries}
    files = [f"blobs/sha256/{each['digest'].removeprefix('sha256:')}" for each in (config, *described)]
    docker = [{"Config": files[0], "RepoTags": tags, "Layers": files[1:]}]
    with tarfile.open(path, "w") as to:

        def add(name: str, data: bytes | Path) -> None:
            info = tarfile.TarInfo(name)
            info.mtime, info.size = source.time, data.stat().st_size if isinstance(data, Path) else len(data)
            with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as content:
                to.addfile(info, content)

        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add("index.json", json.dumps(index, sort_keys=True).encode())
        add("manifest.json", json.dumps(docker, sort_keys=True).encode())
        for digest, data in blobs.items():
            add(f"blobs/sha256/{digest}", data)
    return path


def configuration(dockerfile: str, source: Source) -> dict[str, Any]:
    """How a container runs, as the Dockerfile says."""
    lines = re.sub(r"\\\n\s*", "", dockerfile).splitlines()
    said = {kind: rest for kind, _, rest in (line.partition(" ") for line in lines)}
    return {
        "Env": [f"PATH={os.defpath}", *said["ENV"].split()],
        "User": said["USER"],
        "Volumes": {said["VOLUME"]: {}},
        "ExposedPorts": {f"{port}/tcp": {} for port in said["EXPOSE"].split()},
        "Entrypoint": json.loads(said["ENTRYPOINT"]),
        "Cmd": json.loads(said["CMD"]),
        "Labels": {
            "org.opencontainers.image.version": source.version,
            "org.opencontainers.image.revision": source.commit,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
