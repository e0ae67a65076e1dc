"""How much is said to a relay before it answers: four modes, and what this sender has learnt about them."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import structlog

from mailfleet_sender.contract.relay import Pipelining

if TYPE_CHECKING:
    from .extensions import Extensions

log = structlog.get_logger()


class Mode(IntEnum):
    """The modes, each with fewer round trips than the one below it."""

    SEQUENTIAL = 0
    """One command, one reply: four round trips. Every relay understands it."""
    GROUPED = 1
    """MAIL, RCPT and DATA in one write, then the message: two round trips (RFC 2920)."""
    PIPELINED = 2
    """The next mail's MAIL, RCPT and DATA right behind the message: one round trip (RFC 2920)."""
    CHUNKING = 3
    """MAIL, RCPT, BDAT and the message in one write, several mails on their way: none (RFC 3030)."""


_CEILINGS = {
    Pipelining.AUTO: Mode.CHUNKING,
    Pipelining.CHUNKING: Mode.CHUNKING,
    Pipelining.PIPELINED: Mode.PIPELINED,
    Pipelining.GROUPED: Mode.GROUPED,
    Pipelining.SEQUENTIAL: Mode.SEQUENTIAL,
}


class Modes:
    """What one sender knows of its relay, for as long as it lives: all its connections share this.

    Attributes:
        highest: the highest mode that the relay has not failed at.
        proven: whether a mail was sent by `CHUNKING`. Until then a connection has one mail on its way, so that a relay
            that offers what it cannot do leaves one mail in doubt, not eight.
    """

    def __init__(self) -> None:
        self.highest = Mode.CHUNKING
        self.proven = False

    def choose(self, asked: Pipelining, offered: Extensions) -> Mode:
        """The mode of a new connection: as high as setting, offer and experience let it be."""
        if not offered.pipelining:
            return Mode.SEQUENTIAL
        return min(_CEILINGS[asked], self.highest, Mode.CHUNKING if offered.chunking else Mode.PIPELINED)

    def failed(self, mode: Mode, why: str) -> None:
        """The relay did not understand us in this mode: connections that are opened from now on use a lower one."""
        if mode > Mode.SEQUENTIAL and self.highest >= mode:
            self.highest = Mode(mode - 1)
            log.warning("a simpler way to speak SMTP is used", failed=mode.name, now=self.highest.name, reason=why)
