"""The moments at which a test ends the operator: named after the actions, off unless asked for."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, get_args

import pytest

from mailfleet_operator import actions
from mailfleet_operator.boundaries import DIED, NAMES, Boundaries
from mailfleet_operator.errors import SettingsError
from mailfleet_operator.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = {"MAILFLEET_LEDGER_URL": "l", "MAILFLEET_REDIS_URL": "r", "MAILFLEET_SENDER_IMAGE": "i"}


def test_each_action_has_two() -> None:
    for action in get_args(actions.Action):
        assert {f"before:{action.__name__}", f"after:{action.__name__}"} <= set(NAMES)


def test_nothing_is_fatal_unless_it_is_asked_for() -> None:
    assert Settings.read(NEEDED).die_at == ()
    for name in NAMES:
        side, _, what = name.partition(":")
        getattr(Boundaries(), side)(what)


def test_what_is_no_boundary_is_refused_by_name() -> None:
    assert Settings.read({**NEEDED, "MAILFLEET_TEST_DIE_AT": "after:StartRun"}).die_at == ("after:StartRun",)
    assert Settings.read({**NEEDED, "MAILFLEET_TEST_DIE_AT": "all"}).die_at == NAMES
    with pytest.raises(SettingsError, match="after:Lunch"):
        Settings.read({**NEEDED, "MAILFLEET_TEST_DIE_AT": "after:StartRun,after:Lunch"})


def test_it_ends_there_once(tmp_path: Path) -> None:
    program = (
        "from mailfleet_operator.boundaries import Boundaries\n"
        f"b = Boundaries(('after:StartRun',), {str(tmp_path)!r})\n"
        "b.before('StartRun'); b.after('StartRun')"
    )
    environment = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    codes = [subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode for _ in "12"]
    assert codes == [DIED, 0]
