"""The verb `preflight`: connect to a relay exactly as a sender does, and say what it offers or what is wrong."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from . import last_words
from .connecting import connector_of
from .contract.environment import Exit
from .contract.preflight import RelayFault
from .errors import LedgerUnavailable, RelayUnavailable, SenderFault
from .ledger import load_relay, open_ledger, save_preflight

if TYPE_CHECKING:
    from .contract.relay import Relay
    from .settings import PreflightSettings, SmtpSettings
    from .smtp import Offer

STEP_SECONDS = 20.0
"""For each step. RFC 5321 allows minutes, which senders wait; a person who looks at a relay wants to know."""
WHOLE_SECONDS = 60.0
"""For all of it: a host may have many addresses, and a relay may answer each step at the last moment."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of it: `fault` is None if mail may be sent; `exit_code` is for the Job."""

    fault: RelayFault | None
    message: str
    exit_code: Exit
    capabilities: tuple[str, ...] = ()


def preflight(settings: PreflightSettings) -> Exit:
    """Try the relay as its row in the ledger says; what is found goes into the ledger, or, if that failed, into the
    termination message. No mail is sent, and no permit is taken.

    Returns:
        DONE: mail may be sent; INTERRUPTED: not now; IMPOSSIBLE: not with these credentials.
    """
    name = f"{settings.relay_namespace}/{settings.relay_name}"
    try:
        ledger = open_ledger(settings.ledger_url, application_name=f"mailfleet-preflight {settings.reporter}")
        try:
            relay, _ = load_relay(ledger, settings.relay_namespace, settings.relay_name)
        except LookupError:
            return _unheard(
                f"the ledger knows no relay {name}: ledger-url in the namespace's sender Secret is another's"
            )
        found = asyncio.run(look(relay, settings.smtp))
        if settings.made_for is None:
            sys.stdout.write("".join(f"{line}\n" for line in (found.message, " ".join(found.capabilities)) if line))
        else:
            save_preflight(
                ledger,
                settings.relay_namespace,
                settings.relay_name,
                made_for=settings.made_for,
                reporter=settings.reporter,
                fault=found.fault,
                message=found.message,
                capabilities=found.capabilities,
            )
    except LedgerUnavailable as error:
        log.warning("ledger unavailable", error=str(error))
        return _unheard("the ledger does not answer; check ledger-url in the namespace's sender Secret and its server")
    log.info("preflight", relay=name, fault=found.fault and str(found.fault), message=found.message)
    return found.exit_code


async def look(relay: Relay, smtp: SmtpSettings) -> Finding:
    """Connect, greet, encrypt, log in, say goodbye."""
    connector = connector_of(relay, replace(smtp, timeout_seconds=min(smtp.timeout_seconds, STEP_SECONDS)))
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            offer = await connector.probe()
    except SenderFault as error:
        return Finding(error.fault, str(error), Exit.IMPOSSIBLE)
    except RelayUnavailable as error:
        return Finding(error.fault, str(error), Exit.INTERRUPTED)
    except TimeoutError:
        message = (
            f"relay {relay.host}:{relay.port} was not ready for mail within {WHOLE_SECONDS:g} s: look at its log, "
            "check host, firewalls and network policies"
        )
        return Finding(RelayFault.TIMEOUT, message, Exit.INTERRUPTED)
    return Finding(None, _praise(relay, offer), Exit.DONE, offer.capabilities)


def _praise(relay: Relay, offer: Offer) -> str:
    """What was found, in a line."""
    encrypted = offer.tls or "no encryption"
    login = f"logged in (it offers AUTH {' '.join(offer.mechanisms)})" if relay.authenticate else "no login"
    return f"{relay.host}:{relay.port} takes connections: {encrypted}, {login}"


def _unheard(message: str) -> Exit:
    last_words.leave(message)
    sys.stderr.write(message + "\n")
    return Exit.INTERRUPTED
