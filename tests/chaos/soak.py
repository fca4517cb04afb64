"""An outage of minutes at a steady rate: is memory flat, does all of it drain, and does latency recover?

    PYTHONPATH=tests uv run python tests/chaos/soak.py --outage-s 180 --rate 200

Runs its own Kafka, registry and edge; the broker is frozen for the outage.
Prints a line a step, and the figures as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from support.edge.fakes import SYSTEM_TOKEN, parameters_of
from support.edge.process import OwnStack, RunningEdge, wait_until
from taskbridge.edge.sender import encode_callback, signed

_CALM_S = 15.0


class Load:
    """Callbacks at a steady rate, even when answers are slow."""

    def __init__(self, url: str, rate: float) -> None:
        self.latencies: list[tuple[float, float, str]] = []
        """When it was sent, how long the answer took, what it was."""
        self._url = url
        self._rate = rate
        self._stopping = False

    async def run(self) -> None:
        limits = httpx2.Limits(max_connections=500, max_keepalive_connections=500)
        async with httpx2.AsyncClient(base_url=self._url, timeout=15, trust_env=False, limits=limits) as client:
            under_way: set[asyncio.Task[None]] = set()
            started, number = time.monotonic(), 0
            while not self._stopping:
                number += 1
                task = asyncio.create_task(self._send(client, number))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                await asyncio.sleep(max(0.0, started + number / self._rate - time.monotonic()))
            await asyncio.gather(*under_way)

    def stop(self) -> None:
        self._stopping = True

    async def _send(self, client: httpx2.AsyncClient, number: int) -> None:
        plain = parameters_of("create", instance_id=f"inst-{number % 1000}", task_id=f"task-{number}")
        encoded = encode_callback(signed(plain, system_token=SYSTEM_TOKEN), "json")
        sent = time.monotonic()
        outcome = "error"
        with contextlib.suppress(httpx2.HTTPError):
            answer = await client.post("/yida/tasks/create", content=encoded.body, headers=dict(encoded.headers))
            outcome = answer.json().get("durability", str(answer.status_code))
        self.latencies.append((sent, time.monotonic() - sent, outcome))

    def between(self, start: float, end: float) -> dict[str, Any]:
        found = sorted(latency for sent, latency, _ in self.latencies if start <= sent < end)
        outcomes = [outcome for sent, _, outcome in self.latencies if start <= sent < end]
        return {
            "callbacks": len(found),
            "p50_ms": round(found[len(found) // 2] * 1000, 1) if found else None,
            "p99_ms": round(found[len(found) * 99 // 100] * 1000, 1) if found else None,
            "outcomes": {each: outcomes.count(each) for each in sorted(set(outcomes))},
        }


def _rss_mb(edge: RunningEdge) -> float:
    assert edge.process is not None
    status = Path(f"/proc/{edge.process.pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


async def _soak(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    stack = OwnStack(folder / "stack")
    edge = RunningEdge(
        folder,
        bootstrap_servers=stack.endpoints.bootstrap_servers,
        registry_url=stack.endpoints.registry_url,
    )
    load = Load(edge.url, arguments.rate)
    found: dict[str, Any] = {"rate": arguments.rate, "outage_s": arguments.outage_s}
    try:
        edge.start()
        wait_until(edge.is_whole)
        sending = asyncio.create_task(load.run())
        begin = time.monotonic()
        await asyncio.sleep(_CALM_S)
        found["rss_mb_before"] = _rss_mb(edge)
        stack.signal("kafka", signal.SIGSTOP)
        frozen = time.monotonic()
        found["rss_mb_during"] = []
        while time.monotonic() - frozen < arguments.outage_s:
            await asyncio.sleep(min(15.0, arguments.outage_s / 4))
            found["rss_mb_during"].append(_rss_mb(edge))
            depth = await asyncio.to_thread(edge.metric, "taskbridge_edge_spool_depth")
            sys.stderr.write(f"{time.monotonic() - frozen:6.0f} s  depth {depth}  rss {_rss_mb(edge)} MB\n")
        found["depth"] = await asyncio.to_thread(edge.metric, "taskbridge_edge_spool_depth")
        found["spool_bytes"] = await asyncio.to_thread(edge.metric, "taskbridge_edge_spool_bytes")
        found["files_bytes"] = sum(each.stat().st_size for each in (edge.data_dir / "spool").iterdir())
        stack.signal("kafka", signal.SIGCONT)
        back = time.monotonic()
        while not await asyncio.to_thread(edge.has_drained):  # noqa: ASYNC110 - what operators see is waited for
            await asyncio.sleep(0.2)
        drained = time.monotonic()
        found["drain_s"] = round(drained - back, 1)
        sys.stderr.write(f"drained in {found['drain_s']} s\n")
        await asyncio.sleep(_CALM_S)
        end = time.monotonic()
        load.stop()
        await sending
        found["rss_mb_after"] = _rss_mb(edge)
        found["before"] = load.between(begin, frozen)
        found["first_2s_of_outage"] = load.between(frozen, frozen + 2)
        found["during"] = load.between(frozen + 2, back)
        found["while_draining"] = load.between(back, drained)
        found["after"] = load.between(drained + 1, end)
        found["files_bytes_after"] = sum(each.stat().st_size for each in (edge.data_dir / "spool").iterdir())
    finally:
        edge.kill()
        stack.stop()
    return found


def main() -> None:
    """Print the figures as one JSON object."""
    parser = argparse.ArgumentParser(description="Measure the edge over an outage of Kafka.")
    parser.add_argument("--outage-s", type=float, default=180)
    parser.add_argument("--rate", type=float, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taskbridge-soak-") as folder:
        found = asyncio.run(_soak(arguments, Path(folder)))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
