"""The verb `check`: whether ledger and Redis are there, and fit this version. Nothing is changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .contract import environment
from .contract.environment import Exit
from .errors import LedgerUnavailable, LimiterUnavailable, SettingsError
from .ledger import must_migrate, revisions
from .limiter import LimiterAdmin, open_limiter_admin

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Environment


def check(env: Environment) -> Exit:
    """Ask both, and tell on standard output what each says; done only if both are well."""
    found = [
        _asked("ledger", lambda: _ledger(env.text(environment.LEDGER_URL))),
        _asked("redis", lambda: _redis(env.text(environment.REDIS_URL))),
    ]
    return Exit.DONE if all(found) else Exit.IMPOSSIBLE


def _asked(what: str, ask: Callable[[], None]) -> bool:
    try:
        ask()
    except (LedgerUnavailable, LimiterUnavailable, SettingsError) as error:
        sys.stdout.write(f"{what}: {error}\n")
        return False
    sys.stdout.write(f"{what}: ok\n")
    return True


def _ledger(url: str) -> None:
    has, known = revisions(url)
    if must_migrate(has, known):
        raise SettingsError(f"its shape is {has or 'none'}, this version wants {known[-1]}: run `migrate`")


def _redis(url: str) -> None:
    LimiterAdmin(open_limiter_admin(url)).ping()
