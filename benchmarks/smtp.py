"""Messages a second over 10 connections to the oracle sink: Mailfleet's engine beside plain aiosmtplib, in one run.

    python benchmarks/smtp.py [MESSAGES]

Both send the same finished bytes of 4 KB from one process on uvloop, as the sender does. Sink and sender share the
machine and the sink logs each message durably, so the figures compare the two clients; they are no ceiling. Rounds
alternate; the median counts. CPU is the sender's alone.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiosmtplib
import uvloop

from mailfleet_sender.contract.relay import Connections, Limits, Pipelining, Relay, Tls, TlsMode
from mailfleet_sender.message import Mail
from mailfleet_sender.smtp import Connector, VerdictKind
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CONNECTIONS = 10
ROUNDS = 3
BODY = b"Subject: benchmark\r\n\r\n" + (b"x" * 70 + b"\r\n") * 56


async def mailfleet(sink: Sink, numbers: Iterator[int]) -> None:
    """Connection.send, sequential."""
    relay = Relay(
        namespace="bench",
        name="bench",
        host=sink.host,
        port=sink.port,
        tls=Tls(mode=TlsMode.NONE),
        limits=Limits(rate="1/s"),
        connections=Connections(messages_per_connection=10_000_000),
        pipelining=Pipelining.SEQUENTIAL,  # aiosmtplib has no other mode
    )

    async def lane() -> None:
        connection = await Connector(relay).connect()
        for n in numbers:
            verdict = await connection.send(Mail("news@example.com", f"user{n}@example.com", f"<{n}@x>", BODY))
            assert verdict.kind is VerdictKind.SENT, verdict
        await connection.close()

    await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))


async def plain_aiosmtplib(sink: Sink, numbers: Iterator[int]) -> None:
    """aiosmtplib.SMTP.sendmail with the same bytes."""

    async def lane() -> None:
        async with aiosmtplib.SMTP(hostname=sink.host, port=sink.port, start_tls=False) as client:
            for n in numbers:
                await client.sendmail("news@example.com", [f"user{n}@example.com"], BODY)

    await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))


def measure(client: Callable[[Sink, Iterator[int]], Awaitable[None]], sink: Sink, count: int) -> tuple[float, float]:
    """Messages a second, CPU microseconds a message."""
    sink.reset()

    async def run() -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        await client(sink, iter(range(count)))
        return count / (time.perf_counter() - began), (time.process_time() - cpu) / count * 1e6

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run())
    summary = sink.summary()
    assert (summary.accepted, summary.duplicates) == (count, 0), summary
    return result


def main() -> None:
    """Print the medians."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    results: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, Sink(Path(folder)) as sink:
        for _ in range(ROUNDS):
            for client in (mailfleet, plain_aiosmtplib):
                results.setdefault(client.__name__, []).append(measure(client, sink, count))
    for name, rounds in results.items():
        rate, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:18} {rate:7.0f} msg/s   {cpu:5.0f} us CPU a message   ({ROUNDS} rounds of {count})")


if __name__ == "__main__":
    main()
