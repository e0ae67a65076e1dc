"""Answers of the limiter, as values. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MICRO = 1e-6
LEAST_WAIT_SECONDS = 0.001
"""The script's microseconds are rounded, and so are clocks: who comes a hair too early only asks twice."""
LACKS_LIMITS, LACKS_USAGE = b"seed", b"usage"
"""Redis lacks the limits, or what is used of the quota."""
ANY = "*"
"""In place of a domain's name: all domains without a limit of their own."""


class Why(StrEnum):
    """Why there are no permits now."""

    WAIT = "wait"
    """Enough is booked ahead."""
    TURN = "turn"
    """Another campaign's turn."""
    DOMAIN = "domain"
    """The domains that were asked for take no more now."""
    QUOTA = "quota"
    """The relay's quota is used up."""
    BRAKE = "brake"
    """Too many of the campaign's mails failed; a person decides how it goes on."""
    PAUSED = "paused"
    """The relay or the campaign is paused."""
    CLOSED = "closed"
    """The campaign's window has closed."""


@dataclass(frozen=True, slots=True)
class DomainPermits:
    """Of the permits, those for one domain.

    Attributes:
        name: the domain, or `ANY`.
        count: how many.
        first_seconds: from the moment of the call to when the domain takes the first.
        spacing_seconds: from one to the next.
    """

    name: str
    count: int
    first_seconds: float = 0.0
    spacing_seconds: float = 0.0


class Slot(NamedTuple):
    """When one permit may be used, time.monotonic() seconds, and for which domain (`ANY`: without a limit)."""

    start: float
    end: float
    domain: str = ANY


@dataclass(frozen=True, slots=True)
class Permits:
    """Permits in the order of their slots.

    Attributes:
        count: how many, at least 1.
        first_seconds: from the moment of the call to the first slot.
        spacing_seconds: from one slot to the next.
        grace_seconds: how long after its slot a permit may still be used.
        called_at: when the call was sent, time.monotonic() seconds.
        received_at: when its answer came.
        connections: that the pod may hold now; None: any number.
        limited: domains with a limit of their own.
        domains: for which domains the permits are.
        taken: where they were taken from the quota: to be told when one is given back; "": there is no quota.
    """

    count: int
    first_seconds: float
    spacing_seconds: float
    grace_seconds: float
    called_at: float
    received_at: float
    connections: int | None = None
    limited: frozenset[str] = frozenset()
    domains: tuple[DomainPermits, ...] = ()
    taken: str = ""

    def slot(self, k: int) -> tuple[float, float]:
        """When permit `k` (from 0) may be used: start and end, time.monotonic() seconds.

        The script ran some time between call and answer: never early by the answer, never late by the call,
        whatever the network did (LIMITER, client rule 2).
        """
        return self._between(self.first_seconds + k * self.spacing_seconds)

    def slots(self) -> list[Slot]:
        """All permits, each with its domain, in the order of their times.

        A domain's permit has the first slot of the relay that is not before its domain's time. Where the last ones
        are too early for it, it is used when its domain's time has come: that lies within the same span.
        """
        mine = sorted(
            (d.first_seconds + j * d.spacing_seconds, d.name)
            for d in self.domains
            if d.name != ANY
            for j in range(d.count)
        )
        if not mine:
            return [Slot(*self.slot(k)) for k in range(self.count)]
        times: dict[int, tuple[float, str]] = {}
        free, late = 0, []
        for at, name in mine:
            free = max(free, math.ceil((at - self.first_seconds) / max(self.spacing_seconds, MICRO) - 1e-9))
            if free < self.count:
                times[free] = (at, name)
                free += 1
            else:
                late.append((at, name))
        left = (k for k in reversed(range(self.count)) if k not in times)
        times |= dict(zip(left, reversed(late), strict=False))
        found = []
        for k in range(self.count):
            at, name = times.get(k, (0.0, ANY))
            start, end = self._between(max(at, self.first_seconds + k * self.spacing_seconds))
            found.append(Slot(start, end, name))
        return sorted(found)

    def _between(self, offset: float) -> tuple[float, float]:
        return self.received_at + offset, self.called_at + offset + self.grace_seconds


@dataclass(frozen=True, slots=True)
class Refusal:
    """No permits now.

    Attributes:
        why: the reason.
        after_seconds: ask again after this; a random spread is in it, so that pods do not come all at once.
        room_seconds: quota only: until there is room in it, as far as is known now.
        connections, limited: as in `Permits`.
    """

    why: Why
    after_seconds: float
    room_seconds: float = 0.0
    connections: int | None = None
    limited: frozenset[str] = frozenset()


def answered(reply: Sequence[Any], *, called_at: float, received_at: float, draw: float) -> Permits | Refusal | None:
    """Read a reply of reserve.lua.

    Args:
        reply: {why, granted, first, spacing, grace, after, spread, connections, limited, room, taken, domains...},
            microseconds from the moment of the call; what follows the spread may be missing.
        called_at: when the call was sent, time.monotonic() seconds.
        received_at: when the reply came.
        draw: 0 to 1, drawn by the caller: math.random in Redis starts alike in each call.

    Returns:
        None: Redis lacks the limits, or what is used of the quota; they have to be written first.

    Raises:
        ValueError: the reply is of another script.
    """
    why, count, first, spacing, grace, after, spread, *rest = reply
    if why in {LACKS_LIMITS, LACKS_USAGE}:
        return None
    connections, limited, room, taken, *domains = rest or (0, b"", 0, b"")
    names = frozenset(limited.decode().split())
    if count:
        return Permits(
            count,
            first * MICRO,
            spacing * MICRO,
            grace * MICRO,
            called_at,
            received_at,
            connections or None,
            names,
            tuple(
                DomainPermits(name.decode(), n, at * MICRO, every * MICRO)
                for name, n, at, every in zip(*[iter(domains)] * 4, strict=True)
            ),
            taken.decode(),
        )
    after_seconds = max(LEAST_WAIT_SECONDS, (after + draw * spread) * MICRO)
    return Refusal(Why(why.decode()), after_seconds, int(room) * MICRO, connections or None, names)
