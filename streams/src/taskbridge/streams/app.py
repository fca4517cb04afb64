"""The composition root of the streams service: settings, signals, the HTTP side and one worker."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import structlog

from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.operation import end_within, listen, make_server, operation_app, stop_on_signal
from taskbridge.runtime.process import only_one_in, switch_threads_sooner
from taskbridge.runtime.settings import load_settings, run_program
from taskbridge.runtime.topic_admin import partitions_setting
from taskbridge.runtime.tracing import tracing_from_environment
from taskbridge.streams.contract.live_version import AnotherVersion
from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.streams.monitoring.progress import Health
from taskbridge.streams.monitoring.watchdog import TimesStuck
from taskbridge.streams.settings import StreamsSettings
from taskbridge.streams.worker import Service, work

if TYPE_CHECKING:
    from collections.abc import Mapping

_END_S = 6.0
"""For its libraries, whose threads may wait for Kafka."""

log = structlog.get_logger(__name__)


def run(environment: Mapping[str, str] = os.environ) -> None:
    """Run the service until SIGTERM or SIGINT. If another version of the instances becomes live, restart with that.

    Raises:
        ConfigurationError: before anything is started; also if another worker uses the data directory.
        OperatorError: processing cannot continue; a supervisor should restart the service.
    """
    switch_threads_sooner()
    settings = load_settings(StreamsSettings, environment)
    with only_one_in(settings.data_dir, "worker.lock", setting="STREAMS_DATA_DIR"):
        configure_logs(settings.log_format, settings.log_level)
        asyncio.run(_serve(settings, partitions_setting(environment)))


async def _serve(settings: StreamsSettings, partitions: int) -> None:
    stop = stop_on_signal()
    tracing = tracing_from_environment(os.environ, "taskbridge-streams")
    metrics = Metrics(times_stuck=TimesStuck(settings.data_dir).count())
    service = Service(settings, Health(), metrics, tracing)
    ready = "Ready when tables are restored and events are processed"
    http = operation_app("streams", readiness=service.health.readiness, ready=ready, registry=metrics.registry)
    server = make_server(http)
    serving = asyncio.create_task(server.serve([listen(settings.host, settings.port, prefix="STREAMS")]))
    switched: AnotherVersion | None = None
    try:
        await work(service, partitions=partitions, stop=stop)
    except AnotherVersion as error:
        switched = error
    finally:
        failure = sys.exception()
        if switched is None:  # otherwise the process restarts itself, however long that takes
            end_within(_END_S, 0 if failure is None else f"taskbridge streams: {failure}")
        server.should_exit = True
        await serving
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
    if switched is not None and not stop.is_set():
        log.info("streams_restarting", because=str(switched))
        # In the same process, so that it is back at once, under any supervisor and back-off.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


def main() -> None:
    run_program("streams", run, does="Run the streams service")


if __name__ == "__main__":
    main()
