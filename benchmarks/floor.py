"""The floor below every sender in Python: one bare pipelined client (RFC 2920) that sends one fixed message.

usage: floor.py PORT CONNECTIONS COUNT FILE
Nothing is read, rendered, limited or written down, no reply but its digit is looked at. FILE holds the message, dots
stuffed. `bench.py` starts it.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator


class Client(asyncio.Protocol):
    """One connection: the next mail's envelope goes out right behind the message before it."""

    def __init__(self, numbers: Iterator[int], last: int, message: bytes) -> None:
        self.numbers, self.last, self.message = numbers, last, message
        self.awaited = 1
        self.rest = b""
        self.greeted = self.more = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the sink closed the connection"))

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\r\n")
        for line in lines:
            if line[:1] not in b"23":
                self.ended.set_exception(ConnectionError(line.decode()))
                return
            if line[3:4] != b"-":
                self.awaited -= 1
        if not self.awaited:
            self.go_on()

    def go_on(self) -> None:
        """All replies to what was said have come: say the next."""
        if not self.greeted:
            self.greeted, self.awaited = True, 1
            self.transport.write(b"EHLO floor\r\n")
            return
        ending = self.message if self.more else b""
        if (n := next(self.numbers)) <= self.last:
            envelope = b"MAIL FROM:<news@example.com>\r\nRCPT TO:<user%d@example.%b>\r\nDATA\r\n" % (
                n,
                b"net" if n % 4 else b"org",  # as in newsletter.py
            )
            self.awaited, self.more = 3 + self.more, True
            self.transport.write(ending + envelope)
        elif self.more:
            self.awaited, self.more = 1, False
            self.transport.write(ending)
        else:
            self.ended.set_result(None)


async def send(port: int, connections: int, last: int, message: bytes) -> None:
    """Send messages 1 to `last` over so many connections."""
    numbers = count(1)
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(numbers, last, message), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.ended for client in clients))


def main() -> None:
    """Send."""
    port, connections, last = map(int, sys.argv[1:4])
    message = Path(sys.argv[4]).read_bytes() + b".\r\n"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send(port, connections, last, message))


if __name__ == "__main__":
    main()
