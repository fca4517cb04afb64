"""What was scraped during real outages fires the alerts named here and no other, and none before the outage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.alerts import ALERTS, FOLDER, Recording, complaints, samples
from support.nightly import one_of_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

RECORDED: dict[str, set[str]] = {
    "a-record-cannot-be-read": {"StreamsDeadLetters"},
    "a-spooled-record-is-refused": {"EdgeSpoolSetAside"},
    "a-store-is-damaged": {"StreamsStoreDamaged"},
    "a-token-was-rotated": {"EdgeCallbacksUnverified", "EdgeQuarantineGrows"},
    "a-worker-stalls": {"StreamsLagging", "StreamsStalled"},
    "all-workers-are-killed": {"StreamsDown", "StreamsPartitionsUnowned"},
    "an-edge-is-killed": {"EdgeDown"},
    "an-edge-knows-no-app": {"EdgeWithoutApps", "EdgeCallbacksUnverified", "EdgeQuarantineGrows"},
    "an-edge-starts-without-a-registry": {"EdgeRegistryUnknown"},
    "connections-are-held": {"EdgeConnectionsRefused"},
    "kafka-is-killed": {"EdgeKafkaDown", "EdgeSpoolNotDraining"},
    "kafka-is-slow": {"EdgeSlow"},
    "one-of-two-workers-is-killed": {"StreamsDown"},
    "the-connector-has-a-wrong-path": {"EdgeCallbacksNotTaken", "EdgeQuarantineGrows"},
    "the-credentials-are-broken": {"EdgeCredentialsBroken"},
    "the-disk-fails": {
        "EdgeCallbacksLost",
        "EdgeKafkaDown",
        "EdgeSpoolBroken",
        "EdgeSpoolFull",
        "EdgeSpoolUnopened",
    },
    "the-disk-is-full": {"EdgeCallbacksLost", "EdgeKafkaDown", "EdgeSpoolFull"},
    "the-events-are-recreated": {"StreamsPositionsLost"},
    "the-only-worker-is-frozen": {"StreamsDown", "StreamsPartitionsUnowned"},
    "the-spool-fills-up": {"EdgeCallbacksLost", "EdgeKafkaDown", "EdgeSpoolFillsUp", "EdgeSpoolFull"},
    "workers-keep-joining-and-leaving": {"StreamsRebalancing"},
}
"""By recording, all alerts that fire while the outage lasts. The file says how it was provoked."""

NOT_RECORDED = {
    **dict.fromkeys(
        (
            "ApprovalsNotReceived",
            "CenterDatabaseErrors",
            "CenterDown",
            "CenterFillingLong",
            "CenterLagging",
            "CenterNotFollowing",
            "CenterQueriesSlow",
            "CenterQueriesUnanswered",
            "CenterRecordsSkipped",
            "CenterRemindersBroken",
            "CenterRemindersNotSent",
            "CenterTokensBroken",
            "LandNotFollowing",
            "WebhooksDeliveriesLate",
            "WebhooksDown",
            "WebhooksEndpointDisabled",
            "WebhooksEndpointsBroken",
            "WebhooksGivenUp",
        ),
        "the recordings are of edges and workers",
    ),
    "EdgeCallbacksMissing": "three days of silence",
    "EdgePartitionsRefuse": "several brokers, of which too few are in sync: one alone takes all or nothing",
    "EdgeTokenUnused": "thirty days",
    "ReconcileAppSilent": "hours of passes over a DingTalk of which no callback comes",
    "StreamsRecoverySlow": "ten minutes of restoring: some hundred million records",
    "StreamsStandbyBehind": "a hundred thousand records that a standby does not read",
}
"""Only by values that ``test_alerts_fire.py`` sets, and why."""

_EVER_FIRED = 'max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[2h]))'


# In every run, test_alerts_fire.py has each alert fire on values that it sets, and one recording is replayed.
@pytest.mark.parametrize("name", one_of_each(RECORDED, lambda _: "a recording"))
def test_a_recorded_outage_fires_these_alerts_and_no_other(name: str, tmp_path: Path) -> None:
    recording = Recording.load(FOLDER / f"{name}.json")
    every = f"{recording.interval_s}s"
    test = {
        "interval": every,
        "input_series": [{"series": each, "values": values} for each, values in recording.series.items()],
        "promql_expr_test": [
            _ever_fired(recording, recording.begins - 1, ()),
            _ever_fired(recording, recording.scrapes - 1, RECORDED[name]),
        ],
    }
    assert complaints(test, tmp_path, every=every) == ""


def test_every_alert_was_recorded_or_it_is_said_why_not() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {*RECORDED}
    recorded = {alert for each in RECORDED.values() for alert in each}
    assert recorded | {*NOT_RECORDED} == ALERTS
    assert not recorded & {*NOT_RECORDED}


def _ever_fired(recording: Recording, scrapes: int, alerts: Iterable[str]) -> Mapping[str, object]:
    eval_time = f"{scrapes * recording.interval_s}s"
    return {"expr": _EVER_FIRED, "eval_time": eval_time, "exp_samples": samples(alerts)}
