"""A fleet of senders in virtual time under the real control law: pods that need seconds to start, a relay with a
limit that takes what it takes, and the rate measured as the operator measures it.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from mailfleet_operator import pace, scaling
from mailfleet_operator.scaling import Bounds, Load, Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BEGIN = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
TICK = 2
STARTS_IN = 8
"""Seconds that a pod needs until its container runs."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the fleet meets; each a function of the seconds since the beginning.

    Attributes:
        limit: of the relay, permits a second.
        one_sender: what one sender can send, recipients a second.
        given: share of the limit that the limiter gives: below 1 while the relay throttles.
        others: recipients a second of other campaigns on this relay.
    """

    limit: Callable[[float], float]
    one_sender: Callable[[float], float]
    given: Callable[[float], float] = lambda _: 1.0
    others: Callable[[float], float] = lambda _: 0.0
    bounds: Bounds = field(default_factory=lambda: Bounds(1, 20))
    noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """One tick of it."""

    seconds: int
    limit: float
    rate: float
    asked: int
    running: int


def simulate(scene: Scene, seconds: int) -> list[Moment]:
    """Let it run."""
    draw = random.Random(scene.seed)
    size, memory = scaling.first_size(scene.limit(0), scene.bounds), Memory()
    born: list[float] = [0.0] * size
    sent: deque[tuple[int, float]] = deque([(0, 0.0)])
    found = []
    for at in range(0, seconds, TICK):
        running = sum(at - b >= STARTS_IN for b in born)
        room = max(0.0, scene.limit(at) * scene.given(at) - scene.others(at))
        rate = min(room, running * scene.one_sender(at)) * (1 + scene.noise * draw.uniform(-1, 0))
        sent.append((at + TICK, sent[-1][1] + rate * TICK))
        while sent[-1][0] - sent[0][0] > pace.WINDOW.total_seconds():
            sent.popleft()
        measured = (sent[-1][1] - sent[0][1]) / (sent[-1][0] - sent[0][0])
        load = Load(scene.limit(at), measured, measured + scene.others(at), running, open_ranges=10_000)
        size, memory = scaling.decide(load, size, scene.bounds, memory, BEGIN + timedelta(seconds=at))
        born = (born + [at + TICK] * size)[:size]
        found.append(Moment(at, scene.limit(at), rate, size, running))
    return found


def turns(moments: Sequence[Moment]) -> list[tuple[int, int]]:
    """Changes of direction: the seconds at which it turned, and since the change before."""
    changes = [(b.seconds, b.asked > a.asked) for a, b in pairwise(moments) if a.asked != b.asked]
    return [(at, at - before) for (before, up), (at, now_up) in pairwise(changes) if up != now_up]


def steps(*values: float, every: float) -> Callable[[float], float]:
    """The first value, then the next after `every` seconds, and so on; the last stays."""
    return lambda at: values[min(int(at // every), len(values) - 1)]
