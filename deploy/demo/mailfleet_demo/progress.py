"""The campaign's status as it changes: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .errors import DemoError, LateError
from .oracle import adds_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

PLAIN_SECONDS = 2.0
"""Between two plain lines."""
STILL_SECONDS = 90.0
"""How long the numbers may stand still: a plan and the start of pods fit in it on a loaded machine."""


class SumError(DemoError, AssertionError):
    """A status whose recipients do not add up to planned."""


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """One condition of a status; empty if it has none of that type."""
    return next((c for c in status.get("conditions") or () if c["type"] == kind), {})


def describe(status: Mapping[str, Any]) -> str:
    """A status in one line."""
    recipients, rate = status.get("recipients") or {}, status.get("rate") or {}
    words = [f"{status.get('phase') or 'Pending':<9}"]
    if recipients.get("planned"):
        words.append(f"{status.get('progress', '')} recipients")
        words += [f"{recipients[o]} {o}" for o in ("skipped", "deferred", "failed", "uncertain") if recipients.get(o)]
    if rate.get("current"):
        words.append(f"{rate['current']} of {rate.get('limit', '?')}")
    if active := (status.get("senders") or {}).get("active"):
        words.append(f"{active} sender{'s' if active > 1 else ''}")
    for kind in ("Stalled", "Throttled"):
        found = condition(status, kind)
        if found.get("status") == "True" and found["reason"] != "RateLimit":  # which is as it should be
            words.append(f"{found['reason']}: {found['message']}")
    return "  ".join(words)


class Line:
    """Where the status is shown."""

    def __init__(self, console: Console, total: int) -> None:
        """Not shown yet; `total` recipients are expected."""
        self._console, self._said, self._at = console, "", 0.0
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                *(SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn()),
                console=console,
            )
            self._task = self._live.add_task("waiting for the operator", total=total)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, status: Mapping[str, Any], *, last: bool = False) -> None:
        """Show this status."""
        text, recipients = describe(status), status.get("recipients") or {}
        done = sum(n for o, n in recipients.items() if o not in {"planned", "deferred", "remaining"})
        if self._live:
            self._live.update(self._task, completed=done, description=text)
        elif text != self._said and (last or time.monotonic() - self._at >= PLAIN_SECONDS):
            self._console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
            self._said, self._at = text, time.monotonic()


def follow(
    line: Line, following: Callable[[float], dict[str, Any] | None], *, seconds: float
) -> tuple[dict[str, Any], int]:
    """Show each version of the campaign until it is Complete.

    Args:
        following: waits so many seconds for the next version; see `Kubectl.watch`.
        seconds: the deadline.

    Returns:
        the status at the end, and how many versions were seen; planned was the sum of the others in each.

    Raises:
        LateError: not Complete in time, nothing moved for `STILL_SECONDS`, or the campaign has failed.
        SumError: the recipients of a version do not add up.
    """
    deadline = time.monotonic() + seconds
    still = time.monotonic() + STILL_SECONDS
    before: object = None
    versions = 0
    while True:
        version = following(min(deadline, still) - time.monotonic())
        if version is None:
            late = "complete" if time.monotonic() >= deadline else "on its way: its numbers stand still"
            raise LateError(f"the campaign is not {late} (deadline {seconds:.0f} s, standstill {STILL_SECONDS:.0f} s)")
        status = version.get("status") or {}
        versions += 1
        recipients = status.get("recipients") or {}
        if not adds_up(recipients):
            raise SumError(f"planned is not the sum of the others: {recipients}")
        if (seen := (status.get("phase"), recipients)) != before:
            before, still = seen, time.monotonic() + STILL_SECONDS
        if condition(status, "Complete").get("status") == "True":
            line.show(status, last=True)
            return status, versions
        if (failed := condition(status, "Failed")).get("status") == "True":
            raise LateError(f"the campaign has failed: {failed['reason']}: {failed['message']}")
        line.show(status)
