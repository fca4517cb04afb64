"""What a worker is made of, and how its parts are put together; ``streams.worker`` runs them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_notification_codec, task_state_codec
from taskbridge.streams.cores.native import choose_core
from taskbridge.streams.engine.app import APP_ID, build_faust_app
from taskbridge.streams.engine.parts import consumer_of, tables_of
from taskbridge.streams.engine.producing.joint_producer import JointProducer
from taskbridge.streams.monitoring.progress import Ends, Progress
from taskbridge.streams.monitoring.watchdog import LoopGuard, TimesStuck, Watchdog
from taskbridge.streams.positions.changelog_topic import reader_config
from taskbridge.streams.processing.retention import Retention
from taskbridge.streams.processing.task_agent import TaskAgent
from taskbridge.streams.processing.telling import Telling, UntoldInstances
from taskbridge.streams.tables.recovery import Recovery
from taskbridge.streams.task_center import InstancesTable, Upstream
from taskbridge.streams.topology import chunks_of, instances_table
from taskbridge.streams.transactions.group_commit import GroupCommit, claimed
from taskbridge.streams.transactions.takeover import Takeover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import faust

    from taskbridge.runtime.otel import Tracing
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.contract.start import Prepared
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.monitoring.progress import Health
    from taskbridge.streams.positions.offsets import Offsets
    from taskbridge.streams.settings import StreamsSettings
    from taskbridge.streams.task_center import TaskCenter


class Surroundings(NamedTuple):
    """What there is before the worker, and outlives it."""

    settings: StreamsSettings
    center: TaskCenter
    health: Health
    metrics: Metrics
    tracing: Tracing | None = None


class Parts(NamedTuple):
    """Of a worker that is put together."""

    app: faust.App
    group_commit: GroupCommit
    retention: Retention
    telling: Telling
    progress: Progress


def put_together(
    surroundings: Surroundings,
    prepared: Prepared,
    registry: Registry,
    offsets: Offsets,
    kafka_properties: Mapping[str, str],
    *,
    admit: Callable[[], None],
    most_notification_bytes: int,
) -> Parts:
    settings, center, health, metrics, tracing = surroundings
    partitions, version = prepared.partitions, prepared.version
    app = build_faust_app(settings, partitions=partitions, kafka_properties=kafka_properties)
    consumer = consumer_config(settings.kafka_bootstrap_servers, APP_ID, kafka_properties)
    producing = producer_config(settings.kafka_bootstrap_servers, kafka_properties)
    group_commit, takeover = _group_commit(app, offsets, producing, prepared, metrics)
    recovery = Recovery(
        app,
        reader_config(consumer, buffer_bytes=settings.restore_buffer_bytes),
        takeover,
        # Asked again, once the group has this worker as a member: a switch begins when it has none.
        admit=admit,
        known=prepared.known,
        on_emptied=metrics.store_emptied,
    )
    tables_of(app).recover_by(recovery)
    store, changelog = instances_table(app, partitions=partitions, version=version)
    states, notifications = task_state_codec(registry), task_notification_codec(registry)
    core = choose_core(registry, cached_instances=settings.live_instances, form_fields=settings.form_fields)
    agent = TaskAgent(
        app,
        store=store,
        changelog=changelog,
        partitions=partitions,
        core=core,
        group_commit=group_commit,
        untold=UntoldInstances(states, notifications, version),
        notification_bytes=most_notification_bytes,
        metrics=metrics,
        tracing=tracing,
    )
    app.agent(chunks_of(app, topics.TASK_EVENTS), name="tasks")(agent.run)
    actives = partial(_actives, app, recovery, changelog)
    if settings.task_center:
        center.open(
            app,
            InstancesTable(store, changelog, partitions, actives),
            Upstream(consumer, offsets, registry),
            group_commit,
            metrics,
            told=prepared.republished_to,
            tracing=tracing,
        )
    metrics.partitions.set(partitions)
    progress = Progress(
        app,
        recovery,
        changelog=changelog,
        ends=Ends(offsets),
        inbox_ends=Ends(offsets, topics.TASK_NOTIFICATIONS.name) if settings.task_center else None,
        metrics=metrics,
        watchdog=Watchdog(settings.watchdog_s),
        guard=LoopGuard(settings.watchdog_s, TimesStuck(settings.data_dir)),
    )
    health.follow(app, progress, core=core.name)
    center.operations.follow(progress, lambda: health.is_ready)
    retention = Retention(
        agent,
        store,
        states,
        notifications,
        changelog=changelog,
        # Else what is still to be told of an instance would go with it.
        actives=lambda: actives() & agent.untold.told,
        days=settings.retention_days,
    )
    return Parts(app, group_commit, retention, Telling(agent, store, changelog, actives), progress)


def _group_commit(
    app: faust.App, offsets: Offsets, producing: Mapping[str, object], prepared: Prepared, metrics: Metrics
) -> tuple[GroupCommit, Takeover]:
    """What writes for this worker, and what makes sure at a takeover that nobody else does any more."""
    producing = {**producing, "linger.ms": 0}
    name = app.conf.consumer_group_instance_id
    group_commit = GroupCommit(
        producing,
        group=APP_ID,
        name=name,
        membership=lambda: consumer_of(app).membership,
        grounds=prepared.grounds,
        make=partial(JointProducer, credentials=app.conf.broker_credentials),
    )
    takeover = Takeover(
        offsets, group_commit, group=APP_ID, name=name, claim=partial(claimed, producing), note=metrics.position_lost
    )
    return group_commit, takeover


def _actives(app: faust.App, recovery: Recovery, changelog: str) -> frozenset[int]:
    """The partitions whose instances this worker changes now; none while they are being sorted out."""
    if app.rebalancing or not app.tables.actives_ready or changelog not in recovery.wanted:
        return frozenset()
    return recovery.wanted[changelog].actives
