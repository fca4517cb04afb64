"""Why a record is not folded; each says for which reason it is parked."""

from __future__ import annotations

from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.schemas.errors import RecordError


class OutsideContract(RecordError):
    """The record can be read, but says what no event may say."""

    dlq_reason = DlqReason.OUTSIDE_CONTRACT


class MisplacedKey(RecordError):
    """The record's key is not its event's instance id, so its instance may live on another partition."""

    dlq_reason = DlqReason.MISPLACED_KEY


class UnknownAction(RecordError):
    """The event's action belongs to a newer schema; this program cannot tell what it does."""

    dlq_reason = DlqReason.UNKNOWN_ACTION


class AnotherCorp(RecordError):
    """The event names another organisation than the instance's. Ids are UUIDs, so it is forged or a mistake."""

    dlq_reason = DlqReason.ANOTHER_CORP


class AnotherApp(RecordError):
    """The event names another app than the instance's: whoever holds one app's token may not touch another's."""

    dlq_reason = DlqReason.ANOTHER_APP


class TooLarge(RecordError):
    """With this event, what is kept or told of its instance would be larger than a record may be."""

    dlq_reason = DlqReason.TOO_LARGE
