"""How long each step of a conversation may take."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for the relay, by step. The defaults are the minima of RFC 5321 4.5.3.2, where it names one.

    Attributes:
        dial_seconds: for the TCP connection to each of the relay's addresses (none in the RFC).
        greeting_seconds: for the 220, for TLS, and for each reply to EHLO, STARTTLS and AUTH.
        mail_seconds: for the reply to MAIL, and to RSET.
        rcpt_seconds: for the reply to RCPT.
        data_seconds: for the 354 to DATA.
        block_seconds: until the relay has taken a block of the message (64 KiB).
        dot_seconds: for the reply to the end of the message. Short is dangerous: who gives up here does not
            know whether the mail was sent, and the RFC allows the relay 10 minutes.
        quit_seconds: for the goodbye, after which the connection is simply cut.
    """

    dial_seconds: float = 30.0
    greeting_seconds: float = 300.0
    mail_seconds: float = 300.0
    rcpt_seconds: float = 300.0
    data_seconds: float = 120.0
    block_seconds: float = 180.0
    dot_seconds: float = 600.0
    quit_seconds: float = 2.0

    def at_most(self, seconds: float) -> Timeouts:
        """The same, none longer than `seconds`."""
        return Timeouts(**{name: min(value, seconds) for name, value in asdict(self).items()})
