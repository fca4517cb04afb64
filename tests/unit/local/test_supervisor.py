"""Services are restarted, their deaths are reported, and none outlives the supervisor. Uses real processes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.process_state import is_running
from taskbridge.local.supervisor import Backoff, Phase, ServiceEvent, ServiceSpec, Supervisor
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
FAST = Backoff(first_s=0.1, max_s=0.4, healthy_after_s=60)

# Reports readiness by one file, and the time of its stop by another.
OBEDIENT = """
import pathlib, signal, sys, time
ready, stopped = map(pathlib.Path, sys.argv[1:])
def stop(*_):
    stopped.write_text(str(time.monotonic()))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("hello", flush=True)
ready.touch()
while True:
    time.sleep(0.05)
"""
STUBBORN = OBEDIENT.replace("sys.exit(0)", "pass")
# Ends once the supervisor has reported that it is ready: `may_end_when_ready`.
CRASHES_WHEN_READY = """
import pathlib, sys, time
ready = pathlib.Path(sys.argv[1])
ready.touch()
may_end = ready.with_suffix(".may-end")
while not may_end.exists():
    time.sleep(0.01)
may_end.unlink()
sys.exit(7)
"""


def service(folder: Path, script: str, *, name: str = "service", **options: float) -> ServiceSpec:
    ready, stopped = folder / f"{name}.ready", folder / f"{name}.stopped"

    def is_ready() -> bool:
        found = ready.exists()
        ready.unlink(missing_ok=True)
        return found

    argv = [sys.executable, "-c", script, str(ready), str(stopped)]
    return ServiceSpec(name=name, argv=argv, log_path=folder / f"{name}.log", ready=is_ready, **options)  # pyright: ignore[reportArgumentType]  numbers only


def may_end_when_ready(folder: Path, events: list[ServiceEvent]) -> Callable[[ServiceEvent], None]:
    def report(event: ServiceEvent) -> None:
        events.append(event)
        if event.phase is Phase.READY:
            (folder / f"{event.service}.may-end").touch()

    return report


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_start_returns_when_ready_and_stop_ends_it(tmp_path: Path) -> None:
    events: list[ServiceEvent] = []
    supervisor = Supervisor(on_event=events.append)

    supervisor.start(service(tmp_path, OBEDIENT))
    pid = supervisor.pid("service")
    assert pid is not None
    assert is_running(pid)
    supervisor.stop()

    assert not is_running(pid)
    assert (tmp_path / "service.stopped").exists()
    assert [event.phase for event in events] == [Phase.STARTING, Phase.READY, Phase.STOPPED]
    supervisor.stop()  # a second time does nothing


def test_a_death_is_reported_and_the_service_started_again(tmp_path: Path) -> None:
    events: list[ServiceEvent] = []
    with Supervisor(on_event=events.append, backoff=FAST) as supervisor:
        supervisor.start(service(tmp_path, OBEDIENT))
        first = supervisor.pid("service")
        assert first is not None

        os.kill(first, signal.SIGKILL)

        wait_until(lambda: [event.phase for event in events].count(Phase.READY) == 2)
        assert supervisor.pid("service") not in (None, first)
    death = next(event for event in events if event.phase is Phase.DIED)
    assert death.exit_status == -signal.SIGKILL
    assert str(death) == "service died (killed by SIGKILL): hello"


def test_restarts_back_off(tmp_path: Path) -> None:
    events: list[ServiceEvent] = []
    with Supervisor(on_event=may_end_when_ready(tmp_path, events), backoff=FAST) as supervisor:
        supervisor.start(service(tmp_path, CRASHES_WHEN_READY))
        wait_until(lambda: [event.phase for event in events].count(Phase.RESTARTING) >= 4)

    pauses = [event.detail for event in events if event.phase is Phase.RESTARTING][:4]
    assert pauses == [f"restarts in {pause} s" for pause in ("0.1", "0.2", "0.4", "0.4")]
    assert all(event.exit_status == 7 for event in events if event.phase is Phase.DIED)


def test_a_death_before_readiness_is_an_error_with_the_last_output(tmp_path: Path) -> None:
    supervisor = Supervisor(on_event=lambda _: None)
    spec = service(tmp_path, "import sys; print('no such luck'); sys.exit(3)")

    with pytest.raises(
        ConfigurationError, match=r"^service died \(exit status 3\): no such luck; its log: .*service.log$"
    ):
        supervisor.start(spec)

    supervisor.stop()


def test_a_missing_program_is_an_error(tmp_path: Path) -> None:
    spec = ServiceSpec(
        name="ghost", argv=[str(tmp_path / "ghost")], log_path=tmp_path / "ghost.log", ready=lambda: False
    )

    with pytest.raises(ConfigurationError, match=r"cannot run .*ghost: No such file"):
        Supervisor(on_event=lambda _: None).start(spec)


def test_a_service_that_never_gets_ready_is_stopped(tmp_path: Path) -> None:
    supervisor = Supervisor(on_event=lambda _: None)

    def never_ready() -> bool:
        wait_until(lambda: "hello" in (tmp_path / "service.log").read_text())
        return False

    spec = dataclasses.replace(service(tmp_path, OBEDIENT, ready_timeout_s=0.5), ready=never_ready)
    with pytest.raises(ConfigurationError, match=r"was not ready within 0\.5 s: hello"):
        supervisor.start(spec)

    assert (tmp_path / "service.stopped").exists()


def test_services_start_in_parallel(tmp_path: Path) -> None:
    def ready_after(name: str, other: str) -> ServiceSpec:
        """Ready only once the other runs."""
        announce = (
            "ready.with_suffix('.runs').touch()\nwhile not ready.with_name('OTHER.runs').exists(): time.sleep(0.01)\n"
        )
        script = OBEDIENT.replace("ready.touch()", announce.replace("OTHER", other) + "ready.touch()")
        return service(tmp_path, script, name=name, ready_timeout_s=60)

    with Supervisor(on_event=lambda _: None) as supervisor:
        supervisor.start(ready_after("first", "second"), ready_after("second", "first"))


def test_all_services_of_a_start_are_stopped_when_one_fails(tmp_path: Path) -> None:
    with Supervisor(on_event=lambda _: None) as supervisor:
        with pytest.raises(ConfigurationError, match=r"^second died \(exit status 3\)"):
            supervisor.start(
                service(tmp_path, OBEDIENT, name="first"), service(tmp_path, "raise SystemExit(3)", name="second")
            )

        assert (tmp_path / "first.stopped").exists()
        supervisor.start(service(tmp_path, OBEDIENT, name="first"))


def test_services_stop_in_the_reverse_order_of_their_start(tmp_path: Path) -> None:
    supervisor = Supervisor(on_event=lambda _: None)
    names = ["first", "second", "third"]
    for name in names:
        supervisor.start(service(tmp_path, OBEDIENT, name=name))

    supervisor.stop()

    stopped_at = [float((tmp_path / f"{name}.stopped").read_text()) for name in names]
    assert all(earlier > later for earlier, later in itertools.pairwise(stopped_at))


def test_a_service_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    supervisor = Supervisor(on_event=lambda _: None)
    supervisor.start(service(tmp_path, STUBBORN, stop_timeout_s=0.3))
    pid = supervisor.pid("service")
    assert pid is not None

    supervisor.stop()

    assert not is_running(pid)


class Interrupted(BaseException):
    """Raised by a signal handler."""


def test_a_signal_during_a_start_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_once_the_service_runs(thread: threading.Thread) -> None:
        start(thread)
        wait_until((tmp_path / "service.ready").exists)
        raise Interrupted

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", interrupted_once_the_service_runs)
    supervisor = Supervisor(on_event=lambda _: None)
    spec = dataclasses.replace(service(tmp_path, OBEDIENT), ready=lambda: False)
    with pytest.raises(Interrupted), supervisor:
        supervisor.start(spec)

    assert (tmp_path / "service.stopped").exists()


def test_children_of_a_dead_service_are_killed(tmp_path: Path) -> None:
    # A worker that outlives its dead parent would keep the parent's port, and no restart would succeed.
    script = """
import pathlib, subprocess, sys, time
worker = subprocess.Popen(["sleep", "100"])
pathlib.Path(sys.argv[2]).write_text(str(worker.pid))
pathlib.Path(sys.argv[1]).touch()
time.sleep(100)
"""
    with Supervisor(on_event=lambda _: None, backoff=Backoff(first_s=60, max_s=60)) as supervisor:
        supervisor.start(service(tmp_path, script))
        worker = int((tmp_path / "service.stopped").read_text())
        assert is_running(worker)
        pid = supervisor.pid("service")
        assert pid is not None

        os.kill(pid, signal.SIGKILL)

        wait_until(lambda: not is_running(worker))


def test_a_service_gives_way_to_others_also_where_each_session_has_its_own_share(tmp_path: Path) -> None:
    # On Linux a niceness counts within a session, unless the session's own group has it as well: sched(7), autogroup.
    with Supervisor(on_event=lambda _: None) as supervisor:
        specs = [service(tmp_path, OBEDIENT, name=f"service-{number}", niceness=5) for number in range(3)]
        supervisor.start(*specs, service(tmp_path, OBEDIENT, name="first"))
        pids = [supervisor.pid(each.name) or 0 for each in specs]
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert [os.getpriority(os.PRIO_PROCESS, each) for each in pids] == [own + 5] * 3
        assert os.getpriority(os.PRIO_PROCESS, supervisor.pid("first") or 0) == own
        groups = [group for each in pids if (group := Path(f"/proc/{each}/autogroup")).exists()]
        assert [each.read_text().split()[-1] for each in groups] == ["5"] * len(groups)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ties children to their parent")
@pytest.mark.parametrize("end", ["killed", "ended without stop"])
def test_no_service_outlives_its_supervisor(end: str, tmp_path: Path) -> None:
    script = f"""
import pathlib, sys, time
from taskbridge.local.supervisor import ServiceSpec, Supervisor
ready = pathlib.Path({str(tmp_path)!r}, "service.ready")
supervisor = Supervisor(on_event=lambda _: None)
supervisor.start(ServiceSpec(
    name="service",
    argv=[sys.executable, "-c", {STUBBORN!r}, str(ready), "/dev/null"],
    log_path=ready.with_name("service.log"),
    ready=ready.exists,
))
print(supervisor.pid("service"), flush=True)
time.sleep({100 if end == "killed" else 0})
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if end == "killed":
            # It lived on its own so far, so what ends it now is the end of its parent.
            time.sleep(0.3)
            assert is_running(child)
            parent.kill()
        parent.wait()

    wait_until(lambda: not is_running(child))


TAKES_ONE_CONNECTION = """
import os, pathlib, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid())
listening = socket.socket(fileno=3)
pathlib.Path(sys.argv[1]).touch()
connection, _ = listening.accept()
connection.sendall(f"{os.environ['LISTEN_FDS']} {os.getpid()}".encode())
"""


def test_connections_wait_while_a_service_is_down(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, Supervisor(on_event=lambda _: None) as supervisor:
        spec = service(tmp_path, TAKES_ONE_CONNECTION)
        supervisor.start(dataclasses.replace(spec, sockets=[listening]))
        answers: list[str] = []
        for _ in range(3):  # it ends after each, and comes back at once: it had ended well
            with socket.create_connection(listening.getsockname(), timeout=60) as connection:
                answers.append(connection.recv(99).decode())
    assert [each.split()[0] for each in answers] == ["1"] * 3
    assert len(set(answers)) == 3
