"""Only people who signed in may act, from a page of the task center, and in their own name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.sign_in import SAME_SITE, Served, signing_in, tokens_file
from taskbridge.center.actions.targets import Endpoint, EndpointsFile
from taskbridge.runtime.settings import FileBroken
from taskbridge.runtime.standard_webhooks import new_secret
from taskbridge.runtime.tokens import new_token

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import httpx2

    from taskbridge.runtime.database import Database

TOKEN = new_token()
PATH = "/v1/corps/ours/users/{}/actions"
AGREE = {"action": "agree", "items": [{"instance_id": "I-ann", "task_id": "T-1"}]}


@pytest.fixture
def served(sqlite_database: Database, tmp_path: Path) -> Generator[Served]:
    tokens = tokens_file(tmp_path, all=TOKEN)
    with signing_in(sqlite_database, tmp_path, operators="ours/ann", api_tokens_file=tokens) as (found, _):
        # The rows of the tests are of Yida, whose tasks have numbers.
        found.endpoints["ours", "erp"] = Endpoint("http://127.0.0.1:9", b"key")
        yield found


def why_nothing(answer: httpx2.Response) -> str:
    shown = answer.json()
    assert shown["possible"] == []
    return shown["reason"]


def test_a_signed_in_person_acts_and_sees_what_becomes_of_it(served: Served) -> None:
    browser = served.signed_in()
    actions = ["agree", "refuse", "return", "hand_over", "withdraw"]
    of_erp = {"source": "erp", "app_type": None, "numeric_task_ids": False, "actions": actions}
    assert browser.get(PATH.format("ann")).json() == {"possible": [of_erp], "reason": None, "items": []}
    answer = browser.post(PATH.format("ann"), json=AGREE, headers=SAME_SITE)
    assert answer.status_code == 200
    [item] = answer.json()["items"]
    assert (item["status"], item["detail"], item["action_id"]) == ("REFUSED", "not-possible", None)
    assert served.wakes == [None]


def test_a_request_that_is_wrong_is_refused(served: Served) -> None:
    browser = served.signed_in()
    wrong: list[dict[str, Any]] = [
        {**AGREE, "action": "delete"},
        {**AGREE, "items": []},
        {**AGREE, "items": 101 * list(AGREE["items"])},
        {**AGREE, "remark": "x" * 1001},
        {"items": AGREE["items"]},
    ]
    for body in wrong:
        answer = browser.post(PATH.format("ann"), json=body, headers=SAME_SITE)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), body


def test_nobody_acts_for_others_from_elsewhere_or_by_a_token(served: Served) -> None:
    operator = served.signed_in()
    assert why_nothing(operator.get(PATH.format("bob"))) == "not-yours", "operators only look"
    assert operator.post(PATH.format("bob"), json=AGREE, headers=SAME_SITE).status_code == 403
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert operator.post(PATH.format("ann"), json=AGREE, headers=foreign).status_code == 403
    assert operator.post(PATH.format("ann"), json=AGREE).status_code == 403, "no browser says where it is from"
    program = {"Authorization": f"Bearer {TOKEN}"}
    anybody = served.browser()
    assert anybody.post(PATH.format("ann"), json=AGREE, headers=program).status_code == 403
    assert why_nothing(anybody.get(PATH.format("ann"), headers=program)) == "not-signed-in"
    assert anybody.post(PATH.format("ann"), json=AGREE, headers=SAME_SITE).status_code == 401
    assert served.wakes == []
    served.endpoints.clear()
    assert why_nothing(operator.get(PATH.format("ann"))) == "not-possible"


SECRET = new_secret()
CREDENTIALS = f"""
[[apps]]
app_type = "APP_1"
corp_id = "ding1"
system_tokens = ["the-token"]

[[sources]]
name = "erp"
corp_id = "ding1"
secrets = ["{SECRET}"]
action_url = "https://erp.example/actions"

[[sources]]
name = "hr"
corp_id = "ding1"
secret_files = ["hr.secret"]
action_url = "https://hr.example/actions"

[[sources]]
name = "silent"
corp_id = "ding1"
bearer_tokens = ["{"x" * 40}"]
"""


def test_other_systems_are_read_from_the_credentials_file_and_again_when_it_changes(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.toml"
    credentials.write_text(CREDENTIALS)
    (tmp_path / "hr.secret").write_text(f"{new_secret()}\n")
    file = EndpointsFile(credentials)
    assert set(file.current) == {("ding1", "erp"), ("ding1", "hr")}
    (tmp_path / "hr.secret").write_text("broken")
    assert file.refresh()
    assert file.problem is not None
    assert "secret of hr" in file.problem
    assert file.current.count == 2, "the old version is in use"
    assert SECRET not in repr(file.current)
    credentials.write_text(CREDENTIALS.replace('action_url = "https://hr', 'action_url = "ftp://hr'))
    with pytest.raises(FileBroken, match="action_url"):
        EndpointsFile(credentials)
    credentials.write_text(CREDENTIALS + 'action_url = "https://silent.example"\n')
    with pytest.raises(FileBroken, match="action_url requires secrets"):
        EndpointsFile(credentials)
