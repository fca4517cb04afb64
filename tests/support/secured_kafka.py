"""A Kafka of a test's own that asks for TLS and a password at one listener, as one outside of this machine would."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, cast

from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from jvm_artifacts import artifacts, change_properties
from taskbridge.local.jvm.kafka import kafka_service
from taskbridge.local.ports import LOOPBACK, free_ports
from taskbridge.local.processes.supervisor import Supervisor
from taskbridge.runtime.kafka import admin_client

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType
    from typing import Self

USER = "taskbridge"
PASSWORD = "a password, with = and spaces"

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


class SecuredKafka:
    """``open_servers`` ask for nothing, and are there to look from outside; ``servers`` want TLS and SASL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        port, controller_port, secured_port = free_ports(3)
        self.open_servers = f"{LOOPBACK}:{port}"
        self.servers = f"{LOOPBACK}:{secured_port}"
        self.ca_path = folder / "ca.pem"
        self._supervisor = Supervisor(on_event=print)
        data_dir = folder / "kafka"
        self._spec = kafka_service(
            jars=artifacts().kafka_jars, data_dir=data_dir, port=port, controller_port=controller_port
        )
        key, certificate = self_signed()
        self.ca_path.write_bytes(certificate)
        (data_dir / "broker.pem").write_bytes(key + certificate)
        change_properties(
            data_dir / "server.properties",
            {
                "listeners": f"CLIENT://{LOOPBACK}:{secured_port}",
                "advertised.listeners": f"CLIENT://{LOOPBACK}:{secured_port}",
                "listener.security.protocol.map": "CLIENT:SASL_SSL",
            },
            {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": "broker.pem",
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                "listener.name.client.plain.sasl.jaas.config": f'{_PLAIN} required user_{USER}="{PASSWORD}";',
                "listener.name.client.scram-sha-256.sasl.jaas.config": f"{_SCRAM} required;",
                "listener.name.client.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
            },
        )

    def __enter__(self) -> Self:
        self._supervisor.start(self._spec)
        admin = admin_client(self.open_servers)  # a name, or it would be gone before its answers come
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # one user a request
            password = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for each in cast("dict[str, Future[None]]", admin.alter_user_scram_credentials([password])).values():
                each.result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.stop("kafka")

    def config_file(self, mechanism: str, *, password: str = PASSWORD) -> Path:
        """Properties of a client, as an operator writes them for ``EDGE_KAFKA_CONFIG_FILE``."""
        path = self._folder / f"{mechanism}-{len(list(self._folder.iterdir()))}.properties"
        lines = {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.ca_path),
            "sasl.mechanism": mechanism,
            "sasl.username": USER,
            "sasl.password": password,
        }
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return path


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
