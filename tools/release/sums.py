"""What a user verifies: sums, where the files come from, and signatures."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

    from release.source import Source

SUMS = "SHA256SUMS"
BUILD_TYPE = "urn:taskbridge:make-release:v1"


def files(out: Path) -> dict[str, str]:
    """Name → SHA-256 of each artifact."""
    found = (each for each in sorted(out.iterdir()) if each.suffix != ".sig" and each.name != SUMS)
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in found}


def write_provenance(source: Source, out: Path) -> None:
    """An in-toto statement with SLSA's provenance: which commit and which command made each file."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in files(out).items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"command": "make release", "version": source.version},
                "resolvedDependencies": [{"name": "taskbridge", "digest": {"gitCommit": source.commit}}],
            },
            "runDetails": {"builder": {"id": f"{BUILD_TYPE}:releaser"}},
        },
    }
    text = json.dumps(statement, indent=1, sort_keys=True) + "\n"
    (out / f"{source.name}-provenance.json").write_text(text, "utf-8")


def write_sums(out: Path) -> None:
    """In the form that ``sha256sum --check`` reads."""
    (out / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in files(out).items()), "utf-8")


def load(key: Path, password: bytes | None) -> ec.EllipticCurvePrivateKey:
    """The key that signs, read before anything is built: a wrong one ends the release at once."""
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password)
    except (OSError, TypeError, ValueError) as error:
        msg = f"{key} cannot be read with the password in TASKBRIDGE_RELEASE_PASSWORD, or without one: {error}"
        raise SystemExit(msg) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        msg = f"{key} is not a key of the curve P-256: openssl ecparam -name prime256v1 -genkey -noout"
        raise SystemExit(msg)
    return private


def sign(out: Path, private: ec.EllipticCurvePrivateKey) -> None:
    """Write ``FILE.sig`` for each file, as ``cosign verify-blob --key`` and ``openssl dgst -verify`` expect it.

    Signatures are deterministic (RFC 6979): the same key signs the same file with the same bytes.
    """
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    for name in (*files(out), SUMS):
        signature = private.sign((out / name).read_bytes(), algorithm)
        (out / f"{name}.sig").write_bytes(base64.b64encode(signature) + b"\n")
