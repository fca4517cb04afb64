"""What autoscalers read: a server of the cluster's API ``metrics.k8s.io``, on this machine."""

from __future__ import annotations

import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from support.deployment.kubernetes import HOST, Cluster
from support.kafka.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_GROUP, _VERSION = "metrics.k8s.io", "v1beta1"
_API = {"apiVersion": f"{_GROUP}/{_VERSION}"}


class MetricsServer:
    """Every pod of the namespace uses as much of a processor as ``cpu`` says."""

    cpu = "100m"

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self._cluster, self._namespace = cluster, namespace
        key, certificate = Authority("metrics").issue("metrics", HOST)
        (folder / "metrics.pem").write_bytes(key + certificate)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "metrics.pem")
        answers = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = json.dumps(_API | answers(self.path)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - of the library

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _answer(self, path: str) -> dict[str, Any]:
        asked = urlsplit(path)
        if not asked.path.endswith("/pods"):
            pods = {
                "name": "pods",
                "kind": "PodMetrics",
                "singularName": "",
                "namespaced": True,
                "verbs": ["get", "list"],
            }
            return {"kind": "APIResourceList", "groupVersion": _API["apiVersion"], "resources": [pods]}
        (selector,) = parse_qs(asked.query)["labelSelector"]
        found = self._cluster.get("pods", "--namespace", self._namespace, "--selector", selector)["items"]
        used = {"containers": [{"name": "all", "usage": {"cpu": self.cpu, "memory": "64Mi"}}], "window": "1s"}
        measured = used | {"timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        return {
            "kind": "PodMetricsList",
            "metadata": {},
            "items": [measured | {"metadata": each["metadata"]} for each in found],
        }

    def __enter__(self) -> Self:
        self._thread.start()
        meta = {"name": "metrics", "namespace": self._namespace}
        service = {"type": "ExternalName", "externalName": HOST}
        place = {"service": {**meta, "port": self._server.server_address[1]}, "insecureSkipTLSVerify": True}
        spec = {"group": _GROUP, "version": _VERSION, "groupPriorityMinimum": 100, "versionPriority": 100, **place}
        name = {"name": f"{_VERSION}.{_GROUP}"}
        self._cluster.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": name, "spec": spec},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
