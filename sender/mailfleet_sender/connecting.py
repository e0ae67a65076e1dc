"""What opens connections to a relay, the same for `send` and `test`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .smtp import Connector, Timeouts

if TYPE_CHECKING:
    from .contract.relay import Relay
    from .settings import SmtpSettings
    from .smtp import Modes


def connector_of(relay: Relay, settings: SmtpSettings, modes: Modes | None = None) -> Connector:
    """A connector for the relay as its row is now; keep it as long as that stays: its TLS context is costly.

    Args:
        relay: host, port, TLS and limits.
        settings: credentials, certificates, time-outs.
        modes: what is known of the relay; None: nothing yet.
    """
    return Connector(
        relay,
        username=settings.username,
        password=settings.password,
        ca_file=settings.ca_file,
        timeouts=Timeouts().at_most(settings.timeout_seconds),
        modes=modes,
    )
