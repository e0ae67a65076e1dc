"""The verb `test`: one mail of a planned run, sent to any address, with a permit and without a trace in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from .connecting import connector_of
from .contract import environment
from .contract.environment import Exit
from .errors import (
    ComposeError,
    LedgerUnavailable,
    LimiterUnavailable,
    NotThereError,
    PlanError,
    RelayUnavailable,
    SenderFault,
    SettingsError,
)
from .ledger import load_relay, open_ledger, usage_since
from .limiter import (
    ANY,
    USAGE_LOOK_BACK,
    AccountLimits,
    Limiter,
    Permits,
    Why,
    open_limiter,
    seed_limits,
    seed_usage,
)
from .message import is_address
from .previewing import Planned, tell
from .settings import SmtpSettings
from .smtp import VerdictKind

if TYPE_CHECKING:
    from argparse import Namespace

    import redis.asyncio
    from sqlalchemy import Engine

    from .audience import Row
    from .contract.relay import Relay
    from .settings import Environment
    from .smtp import Verdict

PATIENCE_SECONDS = 60.0
"""How long a permit is waited for; a relay that is busy with campaigns gives one within seconds."""
_ENDS = {
    VerdictKind.SENT: Exit.DONE,
    VerdictKind.FAILED: Exit.IMPOSSIBLE,
    VerdictKind.SENDER_FAULT: Exit.IMPOSSIBLE,
}

_CLOSED = frozenset({Why.PAUSED, Why.BRAKE, Why.CLOSED})
"""Not worth waiting for: a person opens these."""


def test(arguments: Namespace, env: Environment) -> Exit:
    """Send it; the verdict is told on standard error, without the address.

    Raises:
        SettingsError: something on the command line or in the environment cannot be meant.
    """
    if not is_address(arguments.to):
        raise SettingsError("--to must be an address like name@example.com")
    relay_name = _relay_name(arguments, env)
    ledger = open_ledger(env.text(environment.LEDGER_URL), application_name="mailfleet-test")
    try:
        planned = Planned.find(ledger, arguments, env)
        row = _row(planned, arguments.key)
        try:
            relay, version = load_relay(ledger, *relay_name)
        except LookupError as error:
            raise NotThereError(f"{error}: name one of the EmailRelays of the campaign's namespace") from None
        attempt = _Attempt(planned, row, arguments.to, relay, version, ledger, env)
        verdict = asyncio.run(attempt.send())
    except (NotThereError, PlanError, ComposeError, SenderFault) as error:
        tell(f"not sent: {error}")
        return Exit.IMPOSSIBLE
    except (LedgerUnavailable, LimiterUnavailable, RelayUnavailable) as error:
        tell(f"not sent: {error}; run the same again")
        return Exit.INTERRUPTED
    finally:
        ledger.dispose()
    tell(f"{verdict.kind}: {' '.join(filter(None, (verdict.code, verdict.enhanced, verdict.reply)))}")
    if verdict.kind is VerdictKind.SENT:
        tell(f"it is the mail of the recipient with the key {row.key}: its links are that recipient's")
    return _ENDS.get(verdict.kind, Exit.INTERRUPTED)


def _relay_name(arguments: Namespace, env: Environment) -> tuple[str, str]:
    """Where the relay's row is: of the campaign's namespace, or what a sender's pod is told."""
    if arguments.relay and arguments.campaign:
        return arguments.campaign.partition("/")[0], arguments.relay
    namespace, slash, name = env.variables.get(environment.RELAY, "").partition("/")
    if not slash:
        raise SettingsError("name the EmailRelay with --relay; only a sender's pod knows its own")
    return namespace, arguments.relay or name


def _row(planned: Planned, key: str | None) -> Row:
    """The first recipient that can have a mail."""
    for row in planned.rows(key):
        try:
            planned.composer.compose(row, key=row.key, eight_bit=True)
        except ComposeError as error:
            if key is not None:
                raise
            tell(f"the recipient with the key {row.key} gets no mail: {error}")
        else:
            return row
    raise NotThereError("none of these recipients can have a mail")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One mail on its way."""

    planned: Planned
    row: Row
    to: str = field(repr=False)
    relay: Relay
    version: int
    ledger: Engine
    env: Environment

    async def send(self) -> Verdict:
        """Connect, then wait for a permit (it runs off within a second), then send.

        Raises:
            RelayUnavailable, SenderFault: there is no connection.
            LimiterUnavailable: Redis does not answer, or gives no permit in time.
        """
        async with AsyncExitStack() as stack:
            client = open_limiter(self.env.text(environment.REDIS_URL))
            stack.push_async_callback(client.aclose)
            limiter = Limiter(
                client,
                account=self.relay.account,
                # A campaign of its own: the real one may be paused, and its outcomes are no business of a test.
                campaign=f"{self.planned.run.namespace}/{self.planned.run.name} (test)",
                pod=f"test-{uuid4()}",
                seed=lambda: self._seed(client),
                usage=lambda: self._seed_usage(client),
                limited=self.relay.domain_rates,
            )
            connection = await connector_of(self.relay, SmtpSettings.read(self.env)).connect()
            stack.push_async_callback(connection.close)
            # A Message-ID of its own: a mailbox that has seen the test would take the real mail for its copy.
            mail = self.planned.composer.compose(
                replace(self.row, email=self.to), key=f"test {uuid4()}", eight_bit=connection.eight_bit
            )
            permits = await self._permit(limiter)
            verdict = await connection.send(mail)
            if not verdict.handed_over:
                limiter.report.give_back(permits.taken)
            limiter.report.throttled += verdict.throttled
            with contextlib.suppress(LimiterUnavailable):  # it finds out within three seconds that we are gone
                await limiter.leave()
            return verdict

    async def _permit(self, limiter: Limiter) -> Permits:
        """One permit, once its slot has come."""
        until = time.monotonic() + PATIENCE_SECONDS
        domain = self.to.rpartition("@")[2].lower()
        while True:
            answer = await limiter.reserve(1, {domain if domain in limiter.limited else ANY: 1})
            if isinstance(answer, Permits):
                slot = answer.slots()[0]
                await asyncio.sleep(max(0.0, slot.start - time.monotonic()))
                if time.monotonic() < slot.end:
                    return answer
                limiter.report.give_back(answer.taken)
            elif answer.why in _CLOSED or (answer.why is Why.QUOTA and answer.room_seconds > PATIENCE_SECONDS):
                room = f", for {answer.room_seconds / 60:.0f} minutes at least" if answer.why is Why.QUOTA else ""
                raise LimiterUnavailable(f"the relay {self.relay.name} takes no mail now: {answer.why}{room}")
            else:
                await asyncio.sleep(answer.after_seconds)
            if time.monotonic() > until:
                raise LimiterUnavailable(f"the relay {self.relay.name} gave no permit within {PATIENCE_SECONDS:.0f} s")

    async def _seed(self, client: redis.asyncio.Redis | redis.asyncio.RedisCluster) -> None:
        await seed_limits(client, self.relay.account, self.version, AccountLimits.of(self.relay))

    async def _seed_usage(self, client: redis.asyncio.Redis | redis.asyncio.RedisCluster) -> None:
        usage = await asyncio.to_thread(
            usage_since, self.ledger, self.relay.account, datetime.now(UTC) - USAGE_LOOK_BACK
        )
        await seed_usage(client, self.relay.account, usage)
