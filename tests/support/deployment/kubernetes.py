"""A real Kubernetes of one node in namespaces of its own, from Go modules and programs of Debian's packages.

It needs root. The machine's firewall, mounts and settings stay as they are; one cluster runs at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import needs
from support.cached import cached, digest_of
from support.edge.process import wait_until
from taskbridge.local.child import tethered

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

VERSION = "1.34.4"
HOST, NODE = "192.168.241.1", "192.168.241.2"
"""Addresses of this machine and of the node, on a link of their own."""
PODS, SERVICES = "10.244.0.0/24", "10.96.0.0/16"

_SOURCES = Path(__file__).parents[1] / "programs" / "kubernetes"
_PROGRAMS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
    *("dns", "policies"),
)
"""Names of one binary, of which each is a program."""
_DEBIAN = (
    *("containerd", "runc", "containernetworking-plugins", "nftables", "libnftables1", "libnftnl11", "libmnl0"),
    *("libseccomp2", "libjansson4", "iptables", "libxtables12", "libip4tc2", "libip6tc2", "libnetfilter-conntrack3"),
    *("libnfnetlink0", "ipset", "libipset13"),
)
_LINK = "k8s0"
_VOLUMES = 9
_START_S = 300
_BUILD_S = 3600


class Programs:
    """Built and unpacked once on a machine, until their sources change."""

    def __init__(self) -> None:
        needs.program("ip")
        sources = [*sorted(_SOURCES.rglob("*.go")), _SOURCES / "go.sum"]
        folder = cached(f"kubernetes-{VERSION}-{digest_of(sources, VERSION)}", _make)
        self.bin, self.debian, self.pause = folder / "bin", folder / "debian", folder / "pause.tar"


def _make(folder: Path) -> None:
    _unpack_debian(folder / "debian")
    _build(folder / "bin")
    _pack_pause(folder / "bin" / "pause", folder / "pause.tar")


def _unpack_debian(tree: Path) -> None:
    """Unpacked, not installed: no other program of this machine behaves in another way."""
    packages = tree.with_name("packages")
    for each in (tree, packages):
        each.mkdir(parents=True)
    download = ["apt-get", "-qq", "download", *_DEBIAN]
    if subprocess.run(download, cwd=packages, capture_output=True, check=False).returncode != 0:
        # A new machine has no lists of packages yet.
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        subprocess.run(download, cwd=packages, check=True)
    for each in packages.iterdir():
        subprocess.run(["dpkg-deb", "--extract", each, tree], check=True)
    shutil.rmtree(packages)
    for name in ("iptables", "iptables-save", "iptables-restore"):
        link = tree / "usr" / "sbin" / name
        link.unlink(missing_ok=True)
        link.symlink_to("xtables-nft-multi")


def _build(folder: Path) -> None:
    # Charts with a kubeVersion read the version of the API server.
    _, minor, _ = VERSION.split(".")
    named = {"gitVersion": f"v{VERSION}", "gitMajor": "1", "gitMinor": minor}
    stamp = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in named.items())
    go = [Path(sys.executable).parent / "go", "build", "-trimpath", "-ldflags", f"-s -w {stamp}", "-o"]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    folder.mkdir()
    for name, package in (("pause", "./pause"), ("kubernetes", "."), ("helm", "helm.sh/helm/v3/cmd/helm")):
        subprocess.run([*go, folder / name, package], cwd=_SOURCES, env=environment, check=True, timeout=_BUILD_S)
    for each in _PROGRAMS:
        (folder / each).symlink_to("kubernetes")


def _pack_pause(program: Path, archive: Path) -> None:
    """An image of this one program, which no machine of the cluster could pull."""
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        info = tarfile.TarInfo("pause")
        info.mode, info.size = 0o755, program.stat().st_size
        with program.open("rb") as content:
            files.addfile(info, content)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as files:
        for name, data in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            files.addfile(info, BytesIO(data))


class Cluster:
    """Runs while its context is open. ``folder`` must be on a disk, for containerd cannot stack other file systems."""

    def __init__(self, folder: Path) -> None:
        self._programs = Programs()
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        programs = [self._programs.bin, *(self._programs.debian / "usr" / each for each in ("bin", "sbin"))]
        self._environment = {
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "HOME": str(folder),
            "KUBECONFIG": str(self.kubeconfig),
            "CONTAINERD_NAMESPACE": "k8s.io",
            "FOLDER": str(folder),
            "DEBIAN": str(self._programs.debian),
            "PAUSE": str(self._programs.pause),
            "NODE": NODE,
            "PODS": PODS,
            "SERVICES": SERVICES,
        }

    def __enter__(self) -> Self:
        for each in ("log", "var-lib", *(f"volumes/{number}" for number in range(_VOLUMES))):
            (self.folder / each).mkdir(parents=True)
        self._write_credentials()
        unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        argv = [*unshare, "--propagation", "slave", "bash", str(_SOURCES / "node.sh")]
        self._process = subprocess.Popen(
            tethered(argv, orphan_signal=signal.SIGKILL), env=self._environment, stdin=subprocess.DEVNULL
        )
        try:
            self._pid = wait_until(self._first_process, what="the node has namespaces")
            self._connect()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def wait(self) -> None:
        """Until pods may start; others reach this machine at its address of the link before."""
        wait_until(self._is_ready, _START_S, what="the node is ready")
        self.apply(*_volumes(self.folder / "volumes"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stdout.write(self._state())
        self._process.kill()
        self._process.wait()
        subprocess.run(["ip", "link", "delete", _LINK], check=False, capture_output=True)
        wait_until(_without_cgroups, what="the cgroups of the pods are removed")

    def _write_credentials(self) -> None:
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        subprocess.run(
            ["openssl", "genrsa", "-out", self.folder / "accounts.key", "2048"], check=True, capture_output=True
        )
        server = {"server": f"https://{NODE}:6443", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(json.dumps(config))

    def _first_process(self) -> int | None:
        assert self._process.poll() is None, self._log("node")
        with suppress(OSError):
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for each in map(int, children):
                if Path(f"/proc/{each}/ns/net").readlink() != Path("/proc/self/ns/net").readlink():
                    return each
        return None

    def _connect(self) -> None:
        ip = [needs.program("ip")]
        for arguments in (
            ["link", "add", _LINK, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid)],
            ["address", "add", f"{HOST}/24", "dev", _LINK],
            ["link", "set", _LINK, "up"],
            *(["route", "add", network, "via", NODE] for network in (PODS, SERVICES)),
        ):
            subprocess.run([*ip, *arguments], check=True)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log("node")
        ready = ["kubectl", "wait", "--for=condition=Ready", "node/node1", "--timeout=10s"]
        account = ["kubectl", "get", "serviceaccount", "default"]
        return all(self.done(*each).returncode == 0 for each in (ready, account))

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """What it prints.

        Raises:
            AssertionError: it failed.
        """
        return self._run("kubectl", *arguments, given=given)

    def helm(self, *arguments: str) -> str:
        """The same, of Helm."""
        return self._run("helm", *arguments)

    def fails(self, *command: str, given: str | None = None) -> str:
        """What a command of ``kubectl`` or ``helm`` that must fail says."""
        done = self.done(*command, given=given)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def get(self, *arguments: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *documents: dict[str, Any]) -> None:
        self.kubectl(
            "apply",
            "--server-side",
            "--filename=-",
            given=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}),
        )

    def load_image(self, archive: Path) -> None:
        self._inside("ctr", "images", "import", str(archive))

    def tag_image(self, name: str, other: str) -> None:
        self._inside("ctr", "images", "tag", name, other)

    def _inside(self, *command: str) -> None:
        self._run("nsenter", "--target", str(self._pid), "--mount", "--net", "--pid", "--uts", *command)

    def _run(self, *command: str, given: str | None = None) -> str:
        done = self.done(*command, given=given)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def done(self, *command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end, however it ends."""
        return subprocess.run(command, env=self._environment, input=given, capture_output=True, text=True, check=False)

    def _state(self) -> str:
        """For a failed test."""
        commands = (["get", "pods", "-A", "-o", "wide"], ["get", "events", "-A", "--sort-by=.lastTimestamp"])
        shown = [self.done("kubectl", *each).stdout[-6000:] for each in commands]
        return "\n".join([*shown, *(f"== {name}\n{self._log(name)}" for name in ("node", "kubelet"))])

    def _log(self, name: str) -> str:
        path = self.folder / "log" / name
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""


def _without_cgroups() -> bool:
    """Remove those of pods; false while a process is still in one."""
    groups = [Path("/sys/fs/cgroup/kubepods"), *Path("/sys/fs/cgroup").glob("*/kubepods")]
    for root in groups:
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
    return not any(each.exists() for each in groups)


def _volumes(folder: Path) -> list[dict[str, Any]]:
    """Local ones, which no driver provides: their owner is the pod's group, unlike that of a ``hostPath``."""
    terms = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}]}
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"local-{number}"},
            "spec": {
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local",
                "local": {"path": str(folder / str(number))},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [terms]}},
            },
        }
        for number in range(_VOLUMES)
    ]
    return [storage, *volumes]
