"""Any worker answers for anybody: it asks the owner, with the caller's authorisation, and never in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from support.served_apps import serving
from support.streams.api_context import PARTITIONS, URL, AnsweringWorker, notification
from taskbridge.local.host import free_port
from taskbridge.streams.api.access import Access
from taskbridge.streams.api.forwarding import FORWARDED_HEADER
from taskbridge.streams.api.owners import Owners, OwnerUnknown
from taskbridge.streams.api.sso import IdentitySeal, SingleSignOn
from taskbridge.streams.api.tokens import ApiTokens, digest_of, new_token, parse_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/v1/corps/corp/users/%E7%8E%8B%20ann/tasks?view=pending&q=%E8%AF%B7%E5%81%87%26"
"""With a user and a search that would change if they were encoded again."""


def submit(asked: AnsweringWorker, url: str) -> None:
    """Everything is another worker's."""
    asked.actives = set()
    asked.distribution = {url: {"changelog": list(range(PARTITIONS))}, URL: {"changelog": []}}


def test_the_owners_answer_is_the_answer(make_context: Callable[[Access], AnsweringWorker]) -> None:
    asked, owner = make_context(Access(tokens=None)), make_context(Access(tokens=None))
    owner.apply([notification(user="王 ann", title="请假&", instance_id="I-1")])
    with serving(owner.http()) as url, TestClient(asked.http()) as client:
        submit(asked, url)
        answer = client.get(PATH)
        assert [item["title"] for item in answer.json()["items"]] == ["请假&"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        assert client.get("/v1/instances/I-unknown").status_code == 404
        assert client.get(f"{PATH}&cursor=wrong").status_code == 400


def test_the_callers_own_token_goes_along(make_context: Callable[[Access], AnsweringWorker]) -> None:
    ours, theirs = new_token(), new_token()

    def tokens() -> ApiTokens:
        return parse_tokens(
            f'[[tokens]]\nname = "a"\nsha256 = "{digest_of(ours)}"\ncorps = ["corp"]\n'
            f'[[tokens]]\nname = "b"\nsha256 = "{digest_of(theirs)}"\ncorps = ["other"]\n'
        )

    class File:
        current = tokens()

    asked, owner = make_context(Access(tokens=File())), make_context(Access(tokens=File()))  # pyright: ignore[reportArgumentType]
    with serving(owner.http()) as url, TestClient(asked.http()) as client:
        submit(asked, url)
        assert client.get(PATH, headers={"Authorization": f"Bearer {ours}"}).status_code == 200
        assert client.get(PATH, headers={"Authorization": f"Bearer {theirs}"}).status_code == 403
        assert client.get(PATH).status_code == 401
        # An instance is refused by its owner, which alone knows whose it is.
        assert client.get("/v1/instances/I-1", headers={"Authorization": f"Bearer {theirs}"}).status_code == 404


@pytest.mark.parametrize("secret", [None, "shared by all workers"])
def test_a_signed_in_person_is_the_same_at_the_owner(
    make_context: Callable[[Access], AnsweringWorker], secret: str | None
) -> None:
    import ipaddress  # noqa: PLC0415

    def access() -> Access:
        sso = SingleSignOn((ipaddress.ip_network("10.0.0.0/8"),), "x-forwarded-user", None, "corp")
        return Access(tokens=None, sso=sso, seal=None if secret is None else IdentitySeal(secret))

    asked, owner = make_context(access()), make_context(access())
    owner.apply([notification(user="ann")])
    # The owner is asked from 127.0.0.1, which is no proxy.
    with serving(owner.http()) as url, TestClient(asked.http(), client=("10.0.0.1", 1)) as client:
        submit(asked, url)
        answers = [
            client.get(f"/v1/corps/corp/users/{user}/counts", headers={"X-Forwarded-User": "ann"}).status_code
            for user in ("ann", "bob")
        ]
    assert answers == ([503, 403] if secret is None else [200, 403])


def test_two_that_take_each_other_for_the_owner_answer_neither(
    make_context: Callable[[Access], AnsweringWorker],
) -> None:
    first, second = make_context(Access(tokens=None)), make_context(Access(tokens=None))
    with serving(first.http()) as url, serving(second.http()) as other, TestClient(first.http()) as client:
        submit(first, other)
        submit(second, url)
        answer = client.get(PATH)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"


def test_nobody_is_asked_while_the_owner_is_unknown_restoring_or_dead(context: AnsweringWorker) -> None:
    with TestClient(context.http()) as client:
        for distribution in (
            {},
            {URL: {"changelog": list(range(PARTITIONS))}},
            {f"http://127.0.0.1:{free_port()}": {"changelog": list(range(PARTITIONS))}},
        ):
            context.actives, context.distribution = set(), distribution
            for path in (PATH, "/v1/corps/corp/users/ann/counts", "/v1/instances/I-1", "/v1/instances/I-1/history"):
                answer = client.get(path)
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) >= 1


def test_a_forwarded_query_is_answered_by_the_owner_itself(context: AnsweringWorker) -> None:
    with TestClient(context.http()) as client:
        assert client.get(PATH, headers={FORWARDED_HEADER: "1"}).status_code == 200


def test_a_worker_that_is_starting_knows_no_owner() -> None:
    with pytest.raises(OwnerUnknown):
        Owners(URL).of_user("corp", "ann")
