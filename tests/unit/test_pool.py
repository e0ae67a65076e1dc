"""Which connection takes the next mail: real connections, the relay in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from mailfleet_sender.contract.relay import Pipelining
from mailfleet_sender.delivery.pool import Pool
from mailfleet_sender.delivery.trouble import Trouble
from mailfleet_sender.errors import RelayUnavailable, SenderFault
from mailfleet_sender.message import Mail
from mailfleet_sender.smtp import Connection, Extensions, Modes
from smtp_model import SILENT, Act, Relay

if TYPE_CHECKING:
    from collections.abc import Sequence

MAIL = Mail("s@example.com", "r@example.com", "<1@example.com>", b"Subject: x\r\n\r\nEND s@example.com\r\n")
TURNS = 200


class House:
    """A pool and what it opened."""

    def __init__(
        self, size: int = 4, acts: Sequence[Act] = (), mode: str = "Pipelined", fails: Sequence[Exception] = ()
    ):
        self.connections: list[Connection] = []
        self.acts, self.mode, self.fails = acts, mode, list(fails)
        self.failures: list[Exception] = []
        self.opened = 0
        trouble: Any = Trouble(None, None, run=1, reporter="test")  # type: ignore[arg-type] - tells nobody here
        self.pool = Pool(self.connect, size, trouble)
        self.pool.listen(has_room=lambda _: None, opened=self.note_opened, failed=self.failures.append)

    def note_opened(self) -> None:
        self.opened += 1

    async def connect(self) -> Connection:
        await asyncio.sleep(0)
        if self.fails:
            raise self.fails.pop(0)
        modes = Modes()
        modes.proven = True
        offered = Extensions(pipelining=True, chunking=True)
        relay = Relay(deque(self.acts))
        connection = Connection(relay, offered, pipelining=Pipelining(self.mode), modes=modes)
        self.connections.append(connection)
        return connection

    async def open(self, count: int) -> None:
        self.pool.more(count)
        await settle()


async def settle() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_all_that_find_no_room_are_opened_for_at_once_and_never_more_than_allowed() -> None:
    house = House(size=4)
    assert house.pool.take() is None
    house.pool.more(3)
    house.pool.more(3)
    assert house.pool.opening
    await settle()
    assert len(house.connections) == 3
    await house.open(50)
    assert len(house.connections) == 4
    await house.pool.close()


async def test_an_idle_connection_is_taken_first_and_the_one_used_last_before_others() -> None:
    house = House()
    await house.open(3)
    first = house.pool.take()
    assert first is not None
    first.submit(MAIL, print)
    second = house.pool.take()
    assert second is not None
    assert second is not first
    await settle()
    assert not first.under_way
    assert house.pool.take() is second, "used last"
    await house.pool.close()


async def test_where_none_is_idle_a_mail_goes_to_the_least_busy_and_another_connection_is_opened() -> None:
    house = House(acts=[SILENT], mode="Chunking")
    await house.open(2)
    for connection, mails in zip(house.connections, (2, 1), strict=True):
        for _ in range(mails):
            connection.submit(MAIL, print)
    assert house.pool.take() is house.connections[1]
    await settle()
    assert len(house.connections) == 3
    house.pool.abort()
    await house.pool.close()


async def test_no_mail_is_given_to_a_connection_that_would_make_it_wait() -> None:
    house = House(size=1, acts=[SILENT])
    await house.open(1)
    house.connections[0].submit(MAIL, print)
    await settle()
    assert house.pool.take() is None
    house.pool.abort()
    await house.pool.close()


async def test_fewer_connections_allowed_end_idle_ones_now_and_busy_ones_when_they_are_done() -> None:
    house = House(acts=[SILENT])
    await house.open(3)
    busy = house.connections[0]
    busy.submit(MAIL, print)
    house.pool.allow(1)
    await settle()
    assert [connection.usable for connection in house.connections] == [True, False, False]
    house.pool.allow(4)
    await house.open(1)
    idle = house.connections[-1]
    idle.submit(MAIL, print)
    house.pool.allow(1)
    leaving = [connection for connection in (busy, idle) if house.pool.done_with(connection)]
    assert len(leaving) == 1, "one of two busy ones gets nothing new"
    house.pool.abort()
    await house.pool.close()


async def test_a_connection_that_was_lost_is_replaced() -> None:
    house = House()
    await house.open(1)
    house.connections[0].abort()
    assert house.pool.take() is None
    await house.open(1)
    assert house.pool.take() is house.connections[1]
    await house.pool.close()


async def test_a_relay_that_fails_is_left_alone_for_a_while_and_reachable_waits_for_it() -> None:
    house = House(fails=[RelayUnavailable("down")])
    await house.open(1)
    assert [str(error) for error in house.failures] == ["down"]
    assert house.pool.down
    await house.open(4)
    assert house.connections == [], "the backoff holds for all"
    async with asyncio.timeout(5):
        await house.pool.reachable()
    assert not house.pool.down
    assert len(house.connections) == 1
    await house.pool.close()


async def test_a_relay_that_refuses_the_sender_is_not_asked_again() -> None:
    house = House(fails=[SenderFault("wrong password"), SenderFault("asked again")])
    await house.open(1)
    assert house.pool.down
    await house.open(4)
    assert len(house.failures) == 1
    with pytest.raises(SenderFault, match="wrong password"):
        await house.pool.reachable()
    await house.pool.close()
