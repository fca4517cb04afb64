"""Why a record is not folded; each says for which reason it is parked."""

from __future__ import annotations

from enum import Enum

from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import MAX_ID_CHARACTERS


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
    """With this event, its instance's state or notification would be larger than a Kafka record may be."""

    dlq_reason = DlqReason.TOO_LARGE


class Refusal(Enum):
    """Whatever keeps an event that can be read from being folded: the error, and its words.

    The native core answers with a place among these, and with what the words are about: ``native/src/refusal.rs``.
    """

    IMPOSSIBLE_ID = (
        OutsideContract,
        f"the instance_id is not a text of 1 to {MAX_ID_CHARACTERS} characters without control characters",
    )
    IMPOSSIBLE_MOMENT = OutsideContract, "{}, {}, is not a time in the years 1 to 9999"
    MISPLACED_KEY = MisplacedKey, "the record's key is not the event's instance_id"
    UNKNOWN_ACTION = UnknownAction, "this version does not know the event's action"
    ANOTHER_CORP = AnotherCorp, "the instance belongs to {}, the event to {}"
    ANOTHER_APP = AnotherApp, "the instance belongs to {}, the event to {}"
    TOO_LARGE = TooLarge, "its instance's state or notification would be larger than a Kafka record may be"

    def error(self, *about: object) -> RecordError:
        kind, words = self.value
        return kind(words.format(*about))
