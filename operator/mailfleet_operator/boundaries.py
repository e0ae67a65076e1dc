"""The moments before and after each action: whatever ends the operator there, nothing is lost and nothing done twice.

A test proves it: it names moments, and the operator ends at each of them once, as by kill -9. Unless it is told so,
nothing happens here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from . import actions

STATUS = "WriteStatus"
"""What `reconcile` does after the actions, RecordStart among it."""
WHAT = (*(action.__name__ for action in get_args(actions.Action)), actions.CreatePreflightJob.__name__, STATUS)
NAMES: tuple[str, ...] = tuple(f"{side}:{name}" for name in WHAT for side in ("before", "after"))
"""All of them."""
DIED = 86
"""The exit code of an operator that ended here."""


class Boundaries:
    """Those at which this operator ends, each once; `folder` holds a file for each at which one ended already."""

    def __init__(self, names: tuple[str, ...] = (), folder: str = "") -> None:
        self._fatal, self._folder = frozenset(names), Path(folder)

    def before(self, name: str) -> None:
        """It is about to do this."""
        self._cross(f"before:{name}")

    def after(self, name: str) -> None:
        """It has done this."""
        self._cross(f"after:{name}")

    def _cross(self, boundary: str) -> None:
        if boundary not in self._fatal:
            return
        try:
            (self._folder / boundary).touch(exist_ok=False)
        except FileExistsError:
            return
        os._exit(DIED)
