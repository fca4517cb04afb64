"""Charts rendered by Helm's own packages, built by Go; and what a NetworkPolicy lets through."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from support import toolchains
from taskbridge.local.artifacts import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_SOURCES = Path(__file__).parents[1] / "programs" / "helm"

Document = dict[str, Any]

_NO_LOOKUP = """\
package engine

import "context"

type ClientProvider any

type clientProviderFromConfig struct{ config any }

func newLookupFunction(context.Context, ClientProvider) any { return nil }
"""

_CLIENTS_OF_KUBERNETES = (
    ("internal/version/clientgo.go", r'^\t_ "k8s.io/client-go/kubernetes".*\n', ""),
    ("pkg/engine/engine.go", r'^\t"k8s.io/client-go/rest"\n', ""),
    ("pkg/engine/engine.go", r"\*rest\.Config", "any"),
    ("pkg/engine/lookup_func.go", r"(?s)^package engine\n.*\Z", _NO_LOOKUP),
)
"""Files of Helm's that import them, what is replaced there, and by what."""


def _without_clients(folder: Path) -> Path:
    """A go.mod by which Go builds a Helm that cannot connect to a cluster.

    Its clients of Kubernetes, which nothing here calls, would be a third of what is compiled.
    """
    fetched = json.loads(toolchains.run_go("helm", "mod", "download", "-json", "helm.sh/helm/v4"))
    helm = folder / "sources"
    # What Go fetches is read-only, folders too.
    subprocess.run(["cp", "-r", "--no-preserve=mode", fetched["Dir"], str(helm)], check=True)
    for name, pattern, replacement in _CLIENTS_OF_KUBERNETES:
        text, found = re.subn(pattern, replacement, (helm / name).read_text("utf-8"), flags=re.MULTILINE)
        assert found, f"{name} has no {pattern} any more: build it as it is"
        (helm / name).write_text(text, "utf-8")
    for name, more in (("go.mod", f"replace helm.sh/helm/v4 => {helm}\n"), ("go.sum", "")):
        (folder / name).write_text((_SOURCES / name).read_text("utf-8") + more, "utf-8")
    return folder / "go.mod"


@dataclass(frozen=True)
class Rendered:
    """What Helm makes of one set of values: documents, or an error."""

    documents: list[Document]
    error: str
    lint: list[str]

    def of(self, kind: str, **labels: str) -> list[Document]:
        """Those of a kind, of one part where ``component`` is given."""
        selector = {f"app.kubernetes.io/{name}": value for name, value in labels.items()}
        return [
            each
            for each in self.documents
            if each["kind"] == kind and selector.items() <= each["metadata"].get("labels", {}).items()
        ]

    def one(self, kind: str, component: str) -> Document:
        (found,) = self.of(kind, component=component)
        return found


class Helm:
    """Built once on a machine, until its sources change."""

    def __init__(self) -> None:
        sources = [each.read_bytes() for each in (Path(__file__), *sorted(_SOURCES.iterdir()))]
        self._program = cache_folder(os.environ) / f"helm-{hashlib.sha256(b''.join(sources)).hexdigest()[:12]}"
        if self._program.exists():
            return
        self._program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._program.parent) as folder:
            built = Path(folder, "helm")
            toolchains.run_go("helm", "build", f"-modfile={_without_clients(Path(folder))}", "-o", str(built), ".")
            built.rename(self._program)

    def render(self, chart: Path, *values: Mapping[str, Any], release: str = "taskbridge") -> list[Rendered]:
        requests = "".join(json.dumps({"release": release, "values": each}) + "\n" for each in values)
        done = subprocess.run(
            [str(self._program), str(chart)], input=requests, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return [_rendered(json.loads(line)) for line in done.stdout.splitlines()]


def _rendered(answer: Mapping[str, Any]) -> Rendered:
    files: dict[str, str] = answer["files"] or {}
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    documents = [each for text in texts for each in yaml.safe_load_all(text) if each is not None]
    return Rendered(documents, answer["error"], answer["lint"])


@dataclass(frozen=True)
class Peer:
    """Who connects, or is connected to: a pod by its labels, or an address outside."""

    labels: Mapping[str, str]
    namespace: str = "tasks"


OUTSIDE = None
"""Any address that is no pod's."""


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, "this reads no expressions"
    return selector.get("matchLabels", {}).items() <= labels.items()


def allows(rules: Iterable[Mapping[str, Any]], direction: str, peer: Peer | None, port: int, protocol: str) -> bool:
    """Whether one of a policy's rules lets it through; ``direction`` is ``from`` or ``to``."""
    return any(
        any(each["port"] == port and each.get("protocol", "TCP") == protocol for each in rule["ports"])
        and (direction not in rule or any(_is(each, peer) for each in rule[direction]))
        for rule in rules
    )


def _is(given: Mapping[str, Any], peer: Peer | None) -> bool:
    if peer is None or "ipBlock" in given:
        return peer is None and "ipBlock" in given
    named = {"kubernetes.io/metadata.name": peer.namespace}
    there = selects(given["namespaceSelector"], named) if "namespaceSelector" in given else peer.namespace == "tasks"
    return there and selects(given.get("podSelector", {}), peer.labels)
