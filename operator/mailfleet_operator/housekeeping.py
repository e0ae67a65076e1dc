"""Once a day: the ledger's coming months are made, and what is old is forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from mailfleet_sender.errors import LedgerUnavailable

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .ledger import Ledger

DAY_SECONDS, RETRY_SECONDS = 86_400.0, 600.0
"""How often; and when to try again if the ledger was away or refused."""

log = structlog.get_logger()


async def keep_house(ledger: Ledger, months: int, executor: Executor) -> None:
    """At once, then each day; run it as a task. Campaigns never wait for it, and it never ends them."""
    while True:
        pause = DAY_SECONDS
        try:
            gone = await asyncio.get_running_loop().run_in_executor(executor, ledger.keep_house, months)
            log.info("the ledger's house was kept", **asdict(gone))
        except LedgerUnavailable as error:
            log.warning("the ledger's house could not be kept: it does not answer", error=str(error))
            pause = RETRY_SECONDS
        except SQLAlchemyError:  # such as a role without the right to make or drop a partition
            log.exception("the ledger's house could not be kept")
            pause = RETRY_SECONDS
        await asyncio.sleep(pause)
