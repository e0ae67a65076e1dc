"""A rate as manifests write it: ``14/s,max_burst=14``."""

from __future__ import annotations

import re
from dataclasses import dataclass

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
PLAIN_PATTERN = re.compile(r"^([1-9][0-9]{0,8})/([smhd])$")
"""Without a burst: a domain's rate."""
PATTERN = re.compile(r"^([1-9][0-9]{0,8})/([smhd])(?:,max_burst=([1-9][0-9]{0,8}))?$")


@dataclass(frozen=True, slots=True)
class Rate:
    """Permits over time: `permits` in each `seconds`, with at most `max_burst` at once."""

    permits: int
    seconds: int
    max_burst: int | None = None

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``N/s|m|h|d`` with an optional ``,max_burst=K``.

        Raises:
            ValueError: the text is no rate; the message shows the form.
        """
        if not (found := PATTERN.match(text)):
            raise ValueError(f"{text!r} is no rate: write N/s, N/m, N/h or N/d, for example 14/s or 14/s,max_burst=14")
        permits, unit, burst = found.groups()
        return cls(int(permits), SECONDS[unit], int(burst) if burst else None)

    @property
    def per_second(self) -> float:
        """Permits per second."""
        return self.permits / self.seconds

    @property
    def burst(self) -> float:
        """Permits that may be used at once: the named burst, never below what 0.1 s of the rate needs.

        A smaller one cannot be promised with a grace of 100 ms (LIMITER, "Traps for the Lua").
        """
        return max(1.0, self.max_burst or 0, self.per_second * 0.1)

    def __str__(self) -> str:
        unit = next(u for u, s in SECONDS.items() if s == self.seconds)
        return f"{self.permits}/{unit}" + (f",max_burst={self.max_burst}" if self.max_burst else "")
