"""Who connects at once is spread over the workers: each takes one, and looks after those that it has."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import pytest
from uvicorn.config import Config

from taskbridge.edge.server.connections.accepting import AcceptingLoop, HeldSocketsLoop, Listener, SharingLoop
from taskbridge.edge.server.serving import loop_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.edge.server.protocol import EdgeProtocol

WAITING = 10


class Roomy(asyncio.Protocol):
    def room(self, _arriving: int) -> bool:
        return True


@pytest.mark.parametrize(("loop", "accepted"), [(AcceptingLoop, WAITING), (SharingLoop, 1)])
def test_one_of_several_workers_leaves_the_next_connection_to_whoever_is_free(
    loop: type[AcceptingLoop], accepted: int
) -> None:
    async def scenario() -> None:
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=WAITING))
            listening.setblocking(False)  # noqa: FBT003 - socket's own signature
            for _ in range(WAITING):
                stack.enter_context(socket.create_connection(listening.getsockname()))
            arriving: set[asyncio.Task[None]] = set()
            make = cast("Callable[[], EdgeProtocol]", Roomy)
            running = asyncio.get_running_loop()
            listener = Listener(running, make, listening, arriving, outlives_us=True, in_a_row=loop.accepted_in_a_row)
            listener._accept()  # pyright: ignore[reportPrivateUsage]
            assert len(arriving) == accepted
            await asyncio.gather(*arriving)

    asyncio.run(scenario())


@pytest.mark.parametrize("are_held", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_loop_is_the_one_for_the_sockets_and_for_the_number_of_workers(are_held: bool, workers: int) -> None:  # noqa: FBT001 - a parameter of the test
    factory: Any = Config("", loop=loop_of(are_held=are_held, workers=workers)).get_loop_factory()
    loop = factory()
    assert isinstance(loop, HeldSocketsLoop) is are_held
    assert (loop.accepted_in_a_row == 1) is (workers > 1)
    loop.close()
