"""A copy of the sender's package with parts of it replaced: a guard cut out, a clock that can be stepped."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import mailfleet_sender


class CutError(RuntimeError):
    """The table of cuts no longer fits the source."""


@dataclass(frozen=True)
class Cut:
    """One piece of source and what stands in its place; it must occur exactly `times`."""

    file: str
    old: str
    new: str
    times: int = 1

    def apply(self, package: Path) -> None:
        """Replace it in a copy.

        Raises:
            CutError: the source says something else now: write the cut anew.
        """
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        if (found := text.count(self.old)) != self.times:
            raise CutError(f"{self.file} holds {self.old!r} {found} times, not {self.times}: mend the cut")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


CLOCK_KEY = "clock-of-the-tests"
STEPPED_CLOCK = Cut(
    "limiter/reserve.lua",
    "local time = redis.call('TIME')\n",
    "local time = redis.call('TIME')\n"
    f"time[1] = tostring(tonumber(time[1]) + tonumber(redis.call('GET', '{CLOCK_KEY}') or '0'))\n",
)
"""Redis' clock as the script reads it, off by the seconds that a key holds. (libfaketime hangs in Redis' allocator.)"""


def copy_package(target: Path, *cuts: Cut) -> Path:
    """Copy the package that this process uses, with `cuts` done to it.

    Returns:
        `target`, to be put first on a path.
    """
    package = target / "mailfleet_sender"
    shutil.copytree(Path(mailfleet_sender.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for cut in cuts:
        cut.apply(package)
    return target
