"""A loop that is never idle gives way to the threads that it waits for."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from mailfleet_sender.delivery.threads import Thread, give_way

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def never_forced() -> Iterator[None]:
    """Python takes the interpreter from nobody: a thread has it when another one lets it go."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1_000)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class Waiter:
    """Waits for a lock, and then for the interpreter."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.begun = threading.Event()
        self.ended = False

    def wait(self) -> None:
        self.begun.set()
        self.lock.acquire()
        self.ended = True


@pytest.mark.usefixtures("never_forced")
def test_a_thread_at_work_has_the_interpreter_when_the_loop_gives_way() -> None:
    async def scene() -> None:
        thread, waiter = Thread("waiter"), Waiter()
        work = asyncio.create_task(thread.run(waiter.wait))
        assert await asyncio.to_thread(waiter.begun.wait, 10)
        assert Thread.at_work == 1
        waiter.lock.release()
        assert not waiter.ended
        deadline = time.monotonic() + 10
        while not waiter.ended and time.monotonic() < deadline:
            give_way()
        assert waiter.ended
        await work
        thread.close()

    asyncio.run(scene())
    assert Thread.at_work == 0


@pytest.mark.usefixtures("never_forced")
def test_without_a_thread_at_work_nothing_is_waited_for() -> None:
    waiter = Waiter()
    other = threading.Thread(target=waiter.wait)
    other.start()
    assert waiter.begun.wait(10)
    waiter.lock.release()
    for _ in range(1_000):
        give_way()
    assert not waiter.ended
    other.join(10)
    assert waiter.ended


def test_a_call_that_fails_or_is_given_up_is_no_longer_at_work() -> None:
    async def scene() -> None:
        thread, waiter = Thread("waiter"), Waiter()
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 / 0)
        assert Thread.at_work == 0
        given_up = asyncio.create_task(thread.run(waiter.wait))
        assert await asyncio.to_thread(waiter.begun.wait, 10)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert Thread.at_work == 0
        waiter.lock.release()
        thread.close()

    asyncio.run(scene())
