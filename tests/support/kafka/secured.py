"""Kafka as a company has it: three brokers with TLS, passwords, OAuth and ACLs, and a guarded registry."""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import ipaddress
import json
import ssl
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import urlsplit

from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import RSAKey

from support.kafka.brokers import BROKERS, KafkaCluster
from support.kafka.stack import change_properties
from taskbridge.local.host import LOOPBACK, free_ports
from taskbridge.runtime.kafka import admin_client

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType
    from typing import Self


PASSWORD = "a password, with = and spaces"


def self_signed() -> tuple[bytes, bytes]:
    """A key and a certificate for this machine's loopback, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "taskbridge test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=7))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


SCRAM, OAUTH, PLAIN = "SCRAM-SHA-512", "OAUTHBEARER", "PLAIN"

_SECURITY = "org.apache.kafka.common.security"
_AUDIENCE = "kafka"
_LIFETIME_S = 600


class SecuredCluster(KafkaCluster):
    """``servers`` need no authentication, for checks from outside; ``secured_servers`` need TLS, SASL and ACLs."""

    def __init__(self, folder: Path, *, registry_url: str, users: Collection[str]) -> None:
        super().__init__(folder)
        self._folder = folder
        self._users = users
        key, certificate = self_signed()
        self.ca_path, self._pem_path = folder / "ca.pem", folder / "server.pem"
        self.ca_path.write_bytes(certificate)
        self._pem_path.write_bytes(key + certificate)
        self._issuer, self._registry = _Issuer(self._tls()), _Registry(registry_url, self._tls())
        self.registry_url: str = self._registry.url
        ports = free_ports(len(BROKERS))
        self.secured_servers = ",".join(f"{LOOPBACK}:{port}" for port in ports)
        for broker, port in zip(BROKERS, ports, strict=True):
            self._secure(broker, folder / f"broker-{broker}", port)

    def __enter__(self) -> Self:
        self._issuer.start()
        self._registry.start()
        super().__enter__()
        admin = admin_client(self.servers)  # a name, or it would be gone before its answers come
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        passwords: list[Any] = [UserScramCredentialUpsertion(user, info, PASSWORD.encode()) for user in self._users]
        for each in cast("dict[str, Future[None]]", admin.alter_user_scram_credentials(passwords)).values():
            each.result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._issuer.stop()
        self._registry.stop()

    def properties(self, user: str, mechanism: str = SCRAM, *, password: str = PASSWORD) -> dict[str, str]:
        """Of every client of this user's, for Kafka and the registry."""
        who = (
            {"sasl.username": user, "sasl.password": password}
            if mechanism != OAUTH
            else {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": f"{self._issuer.url}/token",
                "sasl.oauthbearer.client.id": user,
                "sasl.oauthbearer.client.secret": password,
                "https.ca.location": str(self.ca_path),
            }
        )
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.ca_path),
            "sasl.mechanism": mechanism,
            **who,
            "schema.registry.ssl.ca.location": str(self.ca_path),
            "schema.registry.basic.auth.user.info": f"{user}:{password}",
        }

    def config_file(self, user: str, mechanism: str = SCRAM, *, password: str = PASSWORD) -> str:
        """The same as a file, as an operator writes it for ``EDGE_KAFKA_CONFIG_FILE``."""
        path = self._folder / f"{user}-{mechanism}-{len(list(self._folder.iterdir()))}.properties"
        lines = self.properties(user, mechanism, password=password)
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return str(path)

    def _secure(self, broker: int, data_dir: Path, port: int) -> None:
        jwks = f"{self._issuer.keys_url}/keys"
        passwords = " ".join(f'user_{user}="{PASSWORD}"' for user in self._users)
        change_properties(
            data_dir / "taskbridge-kafka.properties",
            {
                "listeners": f"CLIENT://{LOOPBACK}:{port}",
                "advertised.listeners": f"CLIENT://{LOOPBACK}:{port}",
                "listener.security.protocol.map": "CLIENT:SASL_SSL",
            },
            {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # Clients of the listener without authentication: brokers, and tests that look from outside.
                "super.users": "User:ANONYMOUS",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self._pem_path),
                "sasl.enabled.mechanisms": f"{SCRAM},{OAUTH},{PLAIN}",
                "listener.name.client.scram-sha-512.sasl.jaas.config": f"{_SECURITY}.scram.ScramLoginModule required;",
                "listener.name.client.plain.sasl.jaas.config": (
                    f"{_SECURITY}.plain.PlainLoginModule required {passwords};"
                ),
                "listener.name.client.oauthbearer.sasl.jaas.config": (
                    f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule required;"
                ),
                "listener.name.client.oauthbearer.sasl.server.callback.handler.class": (
                    f"{_SECURITY}.oauthbearer.OAuthBearerValidatorCallbackHandler"
                ),
                "listener.name.client.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": jwks,
                "listener.name.client.oauthbearer.sasl.oauthbearer.expected.audience": _AUDIENCE,
            },
        )
        spec = self._specs[broker]
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks}"
        self._specs[broker] = replace(spec, argv=[spec.argv[0], allowed, *spec.argv[1:]])

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pem_path)
        return context


class _Server:
    """Answers on loopback until it is stopped."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://{LOOPBACK}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def credentials(self) -> tuple[str, str]:
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return (user, password) if kind == "Basic" else ("", "")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's own name
        pass


class _Issuer(_Server):
    """Issues tokens to users with the password; brokers read its keys without TLS."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        key = RSAKey.generate_key(2048, {"kid": "of-the-test", "use": "sig", "alg": "RS256"})

        class Keys(_Answering):
            def do_GET(self) -> None:
                self.answer(200, json.dumps({"keys": [key.as_dict(private=False)]}).encode())

        class Tokens(_Answering):
            def do_POST(self) -> None:
                form, (user, password) = self.body(), self.credentials()
                if password != PASSWORD or b"grant_type=client_credentials" not in form:
                    self.answer(401, b'{"error": "invalid_client"}')
                    return
                now = int(time.time())
                claims: dict[str, Any] = {"sub": user, "aud": _AUDIENCE, "iat": now, "exp": now + _LIFETIME_S}
                token = jwt.encode({"alg": "RS256", "kid": "of-the-test"}, claims, key)
                answer = {"access_token": token, "token_type": "Bearer", "expires_in": _LIFETIME_S}
                self.answer(200, json.dumps(answer).encode())

        super().__init__(Tokens, tls)
        self._keys = _Server(Keys)
        self.keys_url = self._keys.url

    def start(self) -> None:
        super().start()
        self._keys.start()

    def stop(self) -> None:
        super().stop()
        self._keys.stop()


class _Registry(_Server):
    """A proxy before the registry: TLS, and one password for all."""

    def __init__(self, behind: str, tls: ssl.SSLContext) -> None:
        found = urlsplit(behind)

        class Guard(_Answering):
            passed: ClassVar[Mapping[str, str]] = {"Content-Type": "application/vnd.schemaregistry.v1+json"}

            def do_GET(self) -> None:
                body = self.body()
                if self.credentials()[1] != PASSWORD:
                    self.answer(401, b'{"error_code": 401, "message": "who are you"}', WWW_Authenticate="Basic")
                    return
                connection = http.client.HTTPConnection(found.netloc, timeout=30)
                connection.request(self.command, self.path, body or None, self.passed)
                answer = connection.getresponse()
                self.answer(answer.status, answer.read())
                connection.close()

            do_POST = do_PUT = do_GET  # noqa: N815 - the library's own names

        super().__init__(Guard, tls)
        self.url += found.path
