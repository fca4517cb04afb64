"""The page of what each Kafka user needs, from the list that ``taskbridge topics acls`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_pages.markdown import code, listed, page
from taskbridge.cli.acls import roles
from taskbridge.streams.contract.start import EXTRAS

if TYPE_CHECKING:
    from taskbridge.runtime.kafka import Acl

_INTRODUCTION = """\
The permissions that each Kafka user needs, and no more. `taskbridge topics acls` prints them as lines for
`kafka-acls.sh`; with `--apply` it [creates them](../how-to/run-on-your-kafka.md#permissions). A name that ends in `*`
is a prefix. Read, Write, Delete and Alter imply Describe."""

_DESCRIPTIONS = {
    "edge": (
        "`taskbridge edge`. Without one of the first two, callbacks get 200 and wait in the spool, and "
        "`/readyz` and the log say `this Kafka user lacks Write on topic …`."
    ),
    "streams": (
        "`taskbridge streams`. A worker that lacks one waits, and names it in the log (`startup_waiting`) and among "
        "the `problems` of `/readyz`. Without one that is marked with a + it works, and names it in the log "
        "(`not_allowed`, `topic_not_checked`) and among the `topics` of `/readyz`."
    ),
    "center": (
        "`taskbridge center`. A replica that lacks one reports it in the log and among the `problems` of `/readyz`, "
        "and tries again."
    ),
    "webhooks": (
        "`taskbridge webhooks`. A replica that lacks one reports it in the log and among the `problems` of `/readyz`, "
        "and tries again."
    ),
    "land": (
        "`taskbridge land`. A process that lacks one reports it in the log and among the `problems` of `/readyz`, and "
        "tries again."
    ),
    "subscriber": (
        "Programs that use `taskbridge-client`, and any other consumer. Their groups begin with the user's name; an "
        "`Inbox` joins none."
    ),
    "operator": (
        "`taskbridge topics`, `tail`, `set-aside`, `people`, `forms`. The command ends with `this Kafka user lacks …`."
    ),
    "rebuild": (
        "`taskbridge streams --rebuild` and `--republish`. The command ends with Kafka's own words "
        "(`… authorization failed`), and can be started again."
    ),
    "reconcile": (
        "`taskbridge reconcile`, `taskbridge backfill`. The command ends with `this Kafka user lacks …`; the "
        "service reports it in its log and at `/readyz`, and tries again."
    ),
}


def acls_page() -> str:
    found = roles("subscriber")
    sections = [_section(role, acls, found["operator"] if role == "rebuild" else ()) for role, acls in found.items()]
    return page("Permissions on Kafka", _INTRODUCTION, *sections)


def _section(role: str, acls: tuple[Acl, ...], operators: tuple[Acl, ...]) -> str:
    """Without the permissions that the role shares with operators."""
    rows = [(f"{_operation(acl)} on {acl.resource} {_name(acl)}", acl.why) for acl in acls if acl not in operators]
    permissions = listed(rows)
    shared = ["All permissions of [operator](#operator), and:"] if {*operators} & {*acls} else []
    return "\n\n".join([f"## {role}", _DESCRIPTIONS[role], *shared, permissions])


def _operation(acl: Acl) -> str:
    return f"{acl.operation} +" if acl in EXTRAS else acl.operation


def _name(acl: Acl) -> str:
    return code(f"{acl.name}{'*' if acl.prefixed else ''}")
