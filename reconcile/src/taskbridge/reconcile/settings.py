"""The settings of reconcile, from the environment. The apps are in a file: see ``apps``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from taskbridge.runtime.settings import FileOrNone, Port, ServiceSettings, Url


class ReconcileSettings(ServiceSettings):
    """Each field is read from ``RECONCILE_`` plus its name in capitals. The reference quotes its text."""

    model_config = SettingsConfigDict(env_prefix="RECONCILE_")

    apps_file: Path
    """TOML file with the apps to reconcile, and the credentials of their corps for DingTalk's API."""

    credentials_file: FileOrNone = None
    """The edge's credentials file. An app without a system token in the apps file uses its token from here. If a corp
    has a corp token, its apps are written into this file."""
    port: Port = 8600
    """Port on which health and metrics are served."""
    data_dir: Path = Path("reconcile-data")
    """Folder for this month's call counts, the progress of each form and the missing instances. Put it on a disk that
    survives restarts."""
    api_url: Url = "https://api.dingtalk.com"
    """URL of DingTalk's API."""
    calls_per_day: Annotated[int, Field(ge=1)] | None = None
    """Maximum calls per day for one corp. Days begin at midnight in China. Default: a tenth of the month's."""
    calls_per_month: Annotated[int, Field(ge=1)] = 2_500
    """Maximum calls per month for one corp, in China's time. DingTalk's standard edition includes 5,000, the
    professional one 200,000 or more. All apps and integrations of the corp share them: set half of them."""
    settle_minutes: Annotated[float, Field(ge=1, le=1440)] = 15.0
    """Instances that changed in DingTalk within this time are left for the next pass, because their callbacks may still
    arrive."""
    every_minutes: Annotated[float, Field(ge=1, le=10_080)] = 1440.0
    """Minutes between two passes, also across restarts. A pass makes at least one call per form, and one for every 100
    instances."""
    read_back_quiet: Annotated[float, Field(ge=0, le=604_800)] = 0.0
    """Seconds without a callback after which the service reads an instance whose callbacks left its assignees, outcome
    or result open. It makes three calls between passes, while half of the day's calls are left. At least
    `RECONCILE_SETTLE_MINUTES`. `0`: never."""
    outcomes: bool = True
    """Whether to read instances of which only the outcome or the result is missing, once they ended or did not change
    for half a day. Each takes a call. `false`: read only those whose open tasks may differ."""
    remarks: bool = False
    """Whether events and states contain the remarks that people leave with a decision. Everyone who may read states can
    read them."""
    copies: bool = False
    """Whether records that DingTalk calls `carbon` mean that a person was copied in; no document of DingTalk says so.
    If `true`, these people see the instance."""
    form_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds for which events are collected before the values of their instances are read and published, 50 instances
    by a call, while more than 60 % of the day's calls are left; each is read once more two minutes later. Start with
    `10`, once the topic of form data exists and `omit_fields` names the fields that nobody may see. `0`: no values are
    read and published."""
    form_scan_hours: Annotated[float, Field(ge=1, le=8760)] = 24.0
    """Hours between two scans for changed values that no event announced. A pass does the work for forms with a
    process."""
    form_since_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How many days back the first scan of a form goes."""
    form_deletion_days: Annotated[float, Field(ge=1, le=3650)] = 7.0
    """Days after which an instance whose values were not read is looked up, because nobody may have announced its
    deletion: a call for 50 instances, while more than 85 % of the day's calls are left."""
    hash_key_file: FileOrNone = None
    """File with the secret key of the hashes of `hash_fields` in the apps file: 16 bytes or more. Without it, these
    fields are left out. With another key, all hashes change."""
    names: bool = True
    """Whether the service reads the names of people and the labels of forms that occur in tasks. It does so while half
    of the day's calls are left: one call for 50 people or for a form, again after a day if they occur again."""
