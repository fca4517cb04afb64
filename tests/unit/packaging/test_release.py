"""The steps of ``make release``: archives of the same bytes, notes, sums and signatures that others verify."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from release import __main__, archives, image, packages, sums
from release.source import Source, export
from support import needs
from support.wheels import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = Source(ROOT, "0" * 40, 1_700_000_000)


def program(name: str) -> str:
    """Of every Debian and every CI."""
    return shutil.which(name) or pytest.skip(f"{name} is missing")


def chart(folder: Path, *, mode: int, time: int) -> bytes:
    """A small chart, packed: its files are written in either order, with other rights and times."""
    place = folder / "deploy" / "chart"
    (place / "templates").mkdir(parents=True)
    (folder / "rules").mkdir()
    (folder / "rules" / "alert.yml").write_text("groups: []\n")
    files = {"Chart.yaml": "name: x\n", "templates/a.yaml": "a: 1\n"}
    for name in sorted(files, reverse=mode == 0o600):
        (place / name).write_text(files[name])
        (place / name).chmod(mode)
        os.utime(place / name, (time, time))
    (place / "rules").symlink_to("../../rules")
    packed = archives.packed(folder / "chart.tgz", SOURCE, [(place, "taskbridge")])
    return packed.read_bytes()


def test_an_archive_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    first = chart(tmp_path / "a", mode=0o644, time=1)
    assert first == chart(tmp_path / "b", mode=0o664, time=2)
    with tarfile.open(tmp_path / "a" / "chart.tgz") as archive:
        members = archive.getmembers()
        assert [each.name for each in members if each.isfile()] == [
            "taskbridge/Chart.yaml",
            "taskbridge/rules/alert.yml",
            "taskbridge/templates/a.yaml",
        ], "what a link points to is there in its place"
        assert {(each.uid, each.gid, each.mtime) for each in members} == {(0, 0, SOURCE.time)}


def test_the_chart_is_packed_as_helm_reads_it(tmp_path: Path) -> None:
    with tarfile.open(archives.chart(SOURCE, tmp_path)) as archive:
        names = archive.getnames()
    assert {"taskbridge/Chart.yaml", "taskbridge/values.schema.json", "taskbridge/files/dashboards"} <= {*names}
    rules = [name for name in names if re.fullmatch(r"taskbridge/files/alerts/.*\.yml", name)]
    assert len(rules) == len([*(ROOT / "deploy" / "alerts").iterdir()])
    assert gzip.decompress((tmp_path / f"{SOURCE.name}.tgz").read_bytes())


def test_the_image_has_both_names_for_each_program_that_loads_it(tmp_path: Path) -> None:
    with tarfile.open(image.archive(SOURCE, tmp_path / "image.tar", [])) as archive:
        index, docker = (
            json.load(archive.extractfile(name) or io.BytesIO()) for name in ("index.json", "manifest.json")
        )
    tags = [f"taskbridge:{SOURCE.version}", "taskbridge:latest"]
    found = [each["annotations"]["io.containerd.image.name"] for each in index["manifests"]]
    assert found == [f"docker.io/library/{tag}" for tag in tags]
    assert len({each["digest"] for each in index["manifests"]}) == 1
    assert docker[0]["RepoTags"] == tags


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    out = tmp_path / "dist"
    out.mkdir()
    (out / "b.whl").write_bytes(b"b")
    (out / "a.tgz").write_bytes(b"a")
    sums.write_provenance(SOURCE, out)
    sums.write_sums(out)
    return out


def test_the_sums_are_checked_by_sha256sum(artifacts: Path) -> None:
    command = [program("sha256sum"), "--check", sums.SUMS]
    checked = subprocess.run(command, cwd=artifacts, capture_output=True, text=True, check=False)
    provenance = f"{SOURCE.name}-provenance.json"
    assert checked.stdout == f"a.tgz: OK\nb.whl: OK\n{provenance}: OK\n"
    statement = json.loads((artifacts / provenance).read_text())
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    assert [each["name"] for each in statement["subject"]] == ["a.tgz", "b.whl"]
    (built_of,) = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert built_of["digest"] == {"gitCommit": SOURCE.commit}


@pytest.mark.parametrize("password", [None, b"secret"])
def test_openssl_verifies_a_signature_and_refuses_another_file(artifacts: Path, password: bytes | None) -> None:
    openssl = program("openssl")
    private, folder = ec.generate_private_key(ec.SECP256R1()), artifacts.parent
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    (folder / "key.pem").write_bytes(private.private_bytes(*form))
    public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "key.pub").write_bytes(private.public_key().public_bytes(*public))
    sums.sign(artifacts, sums.load(folder / "key.pem", password))
    signatures = {each.name: each.read_bytes() for each in artifacts.glob("*.sig")}
    assert {*signatures} == {f"{name}.sig" for name in (*sums.files(artifacts), sums.SUMS)}

    def verified(name: str, signature: str) -> bool:
        (folder / "signature").write_bytes(base64.b64decode(signatures[signature]))
        command = [openssl, "dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", artifacts / name]
        return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0

    assert verified("a.tgz", "a.tgz.sig")
    assert verified(sums.SUMS, f"{sums.SUMS}.sig")
    assert not verified("b.whl", "a.tgz.sig")
    sums.sign(artifacts, sums.load(folder / "key.pem", password))
    assert signatures == {each.name: each.read_bytes() for each in artifacts.glob("*.sig")}, "the same, each time"


def test_a_release_that_fails_leaves_the_one_before_and_its_builders_know_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "dist"
    out.mkdir()
    (out / f"{SOURCE.name}.tgz").write_text("of the release before")
    (out / sums.SUMS).write_text("")
    (tmp_path / ".dist-of_a_kil" / "dist").mkdir(parents=True)
    monkeypatch.setenv("TASKBRIDGE_RELEASE_PASSWORD", "secret")

    def exported(_: Path, **given: object) -> Source:
        assert given == {"signed": False, "commit": "HEAD"}
        return SOURCE

    monkeypatch.setattr(__main__, "export", exported)
    monkeypatch.setattr(__main__, "COMPARE", ["true"])

    def fails(_: Source, folder: Path) -> None:
        assert "TASKBRIDGE_RELEASE_PASSWORD" not in os.environ
        (folder / "taskbridge_cli.whl").touch()
        raise SystemExit("no network")

    monkeypatch.setattr(packages, "build", fails)
    with pytest.raises(SystemExit, match="no network"):
        __main__.main(["--out", str(out)])
    assert [*tmp_path.iterdir()] == [out]
    assert {each.name for each in out.iterdir()} == {f"{SOURCE.name}.tgz", sums.SUMS}


def test_a_release_is_signed_only_with_what_the_next_one_must_not_break(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def exported(_: Path, **given: object) -> Source:
        assert given["commit"] == "HEAD"
        return SOURCE

    def fails(_: Source, folder: Path) -> None:
        raise SystemExit(f"it builds in {folder.name}")

    monkeypatch.setattr(__main__, "export", exported)
    monkeypatch.setattr(packages, "build", fails)
    monkeypatch.setattr(__main__, "COMPARE", [sys.executable, "-c", "exit('of 0.1.0')"])
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*form))
    given = ["--out", str(tmp_path / "dist")]
    line = "tools/release/surface.json: of 0.1.0: see RELEASING.md, step 1"
    with pytest.raises(SystemExit, match=re.escape(line)):
        __main__.main([*given, "--key", str(tmp_path / "key.pem")])
    with pytest.raises(SystemExit, match="it builds"):
        __main__.main(given)
    assert line in capfd.readouterr().err


def test_a_release_needs_a_commit_and_signs_no_changed_checkout(tmp_path: Path) -> None:
    checkout, tree = tmp_path / "checkout", tmp_path / "tree"
    (checkout / "inner").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"a release is built from a commit: git .*not a git repository"):
        export(tree, signed=False, root=checkout)
    git = [needs.program("git"), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    (checkout / "file").touch()
    for command in (["init", "--quiet"], ["add", "file"], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *command], cwd=checkout, check=True)
    with pytest.raises(SystemExit, match="is a folder of another checkout"):
        export(tree, signed=False, root=checkout / "inner")
    first = export(tree, signed=True, root=checkout).commit
    assert len(first) == 40
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "y"], cwd=checkout, check=True)
    assert export(tree, signed=False, commit="HEAD~1", root=checkout).commit == first
    subprocess.run([*git, "tag", "v1"], cwd=checkout, check=True)
    assert export(tmp_path / "tagged", signed=True, commit="v1", root=checkout).commit != first
    with pytest.raises(SystemExit, match="of another commit"):
        export(tree, signed=True, commit="HEAD~1", root=checkout)
    with pytest.raises(SystemExit, match="a release is built from a commit: git log"):
        export(tree, signed=False, commit="v0", root=checkout)
    (checkout / "changed").touch()
    with pytest.raises(SystemExit, match="it signs nothing"):
        export(tree, signed=True, root=checkout)
    assert export(tree, signed=False, root=checkout).tree == tree
