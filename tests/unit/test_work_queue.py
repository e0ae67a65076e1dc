"""Keys are looked at once, one worker at a time; questions of the same moment are asked together."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mailfleet_operator import queue
from mailfleet_operator.batching import Batched
from mailfleet_operator.errors import SettingsError
from mailfleet_operator.queue import WorkQueue
from mailfleet_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence


async def worked(work: Callable[[str], Awaitable[None]], keys: str, until: asyncio.Event, workers: int = 4) -> None:
    line: WorkQueue[str] = WorkQueue(work, workers=workers)
    for key in keys:
        line.add(key)
    task = asyncio.create_task(line.run())
    async with asyncio.timeout(5):
        await until.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_key_added_twice_is_looked_at_once() -> None:
    looks: Counter[str] = Counter()
    done = asyncio.Event()

    async def look(key: str) -> None:
        looks[key] += 1
        if key == "z":
            done.set()

    await worked(look, "aabbaz", done, workers=1)
    assert looks == {"a": 1, "b": 1, "z": 1}


async def test_added_while_it_is_looked_at_it_comes_again_but_never_twice_at_once() -> None:
    at_work, most, looks = 0, 0, 0
    done = asyncio.Event()
    line: WorkQueue[str]

    async def look(key: str) -> None:
        nonlocal at_work, most, looks
        at_work, looks = at_work + 1, looks + 1
        most = max(most, at_work)
        if looks < 3:
            line.add(key)
        await asyncio.sleep(0.01)
        at_work -= 1
        if looks == 3:
            done.set()

    line = WorkQueue(look, workers=4)
    line.add("a")
    task = asyncio.create_task(line.run())
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (looks, most) == (3, 1)


async def test_one_keys_trouble_stops_no_other_and_it_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "FIRST_PAUSE", 0.01)
    looks: Counter[str] = Counter()
    done = asyncio.Event()

    async def look(key: str) -> None:
        looks[key] += 1
        if key == "bad" and looks[key] < 3:
            raise RuntimeError("trouble")
        if looks["bad"] == 3 and looks["good"]:
            done.set()

    line: WorkQueue[str] = WorkQueue(look, workers=2)
    line.add("bad")
    line.add("good")
    task = asyncio.create_task(line.run())
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert looks == {"bad": 3, "good": 1}


async def test_two_hundred_questions_of_one_moment_are_one_call() -> None:
    calls: list[int] = []

    async def fetch(keys: Sequence[int]) -> Mapping[int, int]:
        calls.append(len(keys))
        return {k: k * k for k in keys}

    batched = Batched(fetch)
    assert await asyncio.gather(*(batched.ask(i) for i in range(200))) == [i * i for i in range(200)]
    assert calls == [200]


async def test_an_answer_is_never_older_than_its_question() -> None:
    value = 0

    async def fetch(keys: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(keys, value)

    batched = Batched(fetch)
    assert await batched.ask("a") == 0
    value = 1
    assert await batched.ask("a") == 1


async def test_a_failure_reaches_all_who_asked() -> None:
    async def fetch(keys: Sequence[str]) -> Mapping[str, int]:
        raise ConnectionError("away")

    batched = Batched(fetch)
    answers = await asyncio.gather(batched.ask("a"), batched.ask("b"), return_exceptions=True)
    assert [type(a) for a in answers] == [ConnectionError, ConnectionError]


GIVEN = {
    "MAILFLEET_LEDGER_URL": "postgresql://u:secret@h/d",
    "MAILFLEET_REDIS_URL": "redis://:secret@h/0",
    "MAILFLEET_SENDER_IMAGE": "sender:1",
}


def test_settings_have_defaults_and_show_no_password() -> None:
    settings = Settings.read(GIVEN)
    assert (settings.image.secret, settings.image.pull_policy, settings.tick_seconds) == (
        "mailfleet",
        "IfNotPresent",
        2,
    )
    assert "secret" not in repr(settings).replace("secret='mailfleet'", "")


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_a_setting_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.read({k: v for k, v in GIVEN.items() if k != name})


def test_metrics_are_served_only_where_a_port_is_named() -> None:
    assert Settings.read(GIVEN).metrics_port is None
    assert Settings.read({**GIVEN, "MAILFLEET_METRICS_PORT": "9090"}).metrics_port == 9090


def test_the_depth_of_a_queue_is_what_waits() -> None:
    line: WorkQueue[str] = WorkQueue(lambda _: asyncio.sleep(0), workers=1)
    for key in "aab":
        line.add(key)
    assert line.depth == 2


@pytest.mark.parametrize("value", ["often", "0", "-1"])
def test_a_tick_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="MAILFLEET_TICK_SECONDS"):
        Settings.read({**GIVEN, "MAILFLEET_TICK_SECONDS": value})
