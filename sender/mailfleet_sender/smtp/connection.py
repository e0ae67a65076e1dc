"""One open connection to a relay, as the delivery loop sees it."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

from mailfleet_sender.contract.relay import Pipelining

from .engine import Engine
from .mode import Modes
from .timeouts import Timeouts
from .transaction import Transaction
from .verdict import Verdict, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailfleet_sender.message import Mail

    from .extensions import Extensions
    from .mode import Mode


class Connection:
    """One connection, made by `Connector.connect`.

    Attributes:
        extensions: what the relay offered.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        extensions: Extensions,
        *,
        messages: int = 100,
        idle_seconds: float = 30.0,
        timeouts: Timeouts | None = None,
        pipelining: Pipelining = Pipelining.AUTO,
        modes: Modes | None = None,
    ) -> None:
        """Take over a transport after EHLO, TLS and AUTH.

        Args:
            transport: its protocol is replaced.
            extensions: of the last EHLO.
            messages: how many mails it may carry before it should be replaced.
            idle_seconds: how long it may lie unused before it should be replaced.
            timeouts: of each step.
            pipelining: the relay's setting.
            modes: what is known of the relay, and learnt here.
        """
        self.extensions = extensions
        self._timeouts = timeouts or Timeouts()
        modes = modes or Modes()
        self._engine = Engine(transport, modes.choose(pipelining, extensions), modes, self._timeouts)
        self._left = messages
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._last_used = self._loop.time()

    @property
    def mode(self) -> Mode:
        """How it speaks."""
        return self._engine.mode

    @property
    def depth(self) -> int:
        """How many mails it takes at once."""
        return self._engine.depth

    @property
    def eight_bit(self) -> bool:
        """Whether 8bit bodies may be sent here: compose each mail for the connection that takes it."""
        return self.extensions.eight_bit

    @property
    def under_way(self) -> int:
        """Mails without a verdict."""
        return self._engine.under_way

    @property
    def usable(self) -> bool:
        """Whether another mail should be sent here: False after loss, 421, its last message, or a long rest."""
        return (
            self._engine.usable
            and self._left > 0
            and (self._engine.under_way > 0 or self._loop.time() - self._last_used < self._idle_seconds)
        )

    @property
    def room(self) -> int:
        """How many mails could begin at once, none of them waiting for another."""
        return min(self._engine.room, self._left)

    def on_room(self, call: Callable[[Connection], None]) -> None:
        """Call this whenever a reply has made room. What it submits goes out in the same write as what is due."""

        def has_room() -> None:
            if self._left > 0:
                call(self)

        self._engine.has_room = has_room

    async def send(self, mail: Mail) -> Verdict:
        """Hand one mail over. Never raises for anything that the relay or the network does.

        A cancelled call leaves no verdict, so do not cancel: `abort` ends it with one.

        Raises:
            RuntimeError: the connection has `depth` mails under way.
        """
        ended: asyncio.Future[Verdict] = self._loop.create_future()
        self.submit(mail, lambda verdict: None if ended.done() else ended.set_result(verdict))
        try:
            return await ended
        except asyncio.CancelledError:
            self.abort("cancelled")
            raise

    def submit(self, mail: Mail, ended: Callable[[Verdict], None]) -> None:
        """Hand one mail over.

        Args:
            mail: composed for this connection.
            ended: is called with its verdict, once, and never before this call has returned.

        Raises:
            RuntimeError: the connection has `depth` mails under way.
        """
        if (unsendable := self._unsendable(mail)) is not None:
            self._loop.call_soon(ended, unsendable)
            return
        self._engine.submit(self._transaction(mail, ended))
        self._left -= 1
        self._last_used = self._loop.time()

    def abort(self, why: str = "stopped by us") -> None:
        """Cut the connection now. Mails under way end with their verdicts: RETRY before the dot, else UNCERTAIN."""
        self._engine.abort(why)

    async def close(self) -> None:
        """Say goodbye, within 2 s by default, and close. Never raises; may be called again."""
        await self._engine.close(self._timeouts.quit_seconds)

    def _unsendable(self, mail: Mail) -> Verdict | None:
        """The guard on the final bytes: whatever the mail was made from, it is one mail, to one recipient."""
        if not _is_path(mail.recipient):
            return Verdict.unsendable("5.1.3", "the address holds characters that SMTP cannot carry")
        if not _is_sender(mail.sender):
            return Verdict(
                VerdictKind.SENDER_FAULT,
                enhanced="5.1.7",
                reply="the sender's address holds characters that SMTP cannot carry: mend the campaign's `from`",
            )
        line_ends = mail.body.translate(None, _NO_LINE_ENDS)  # a third of the time of counting CR, LF and CRLF
        if line_ends != b"\r\n" * (len(line_ends) // 2):
            return Verdict.unsendable("5.6.0", "the message holds a bare CR or LF")
        if not self.eight_bit and not mail.body.isascii():
            return Verdict.unsendable("5.6.3", "the message is 8bit and the relay does not offer 8BITMIME")
        limit = self.extensions.size_limit
        if limit is not None and len(mail.body) > limit:
            return Verdict.unsendable("5.3.4", f"the message has {len(mail.body)} bytes, the relay takes {limit}")
        return None

    def _transaction(self, mail: Mail, ended: Callable[[Verdict], None]) -> Transaction:
        body = mail.body if mail.body.endswith(b"\r\n") or not mail.body else mail.body + b"\r\n"
        parameters = ""
        if self.extensions.size:
            parameters += f" SIZE={len(body)}"
        if self.eight_bit and not body.isascii():
            parameters += " BODY=8BITMIME"
        return Transaction(
            mail=f"MAIL FROM:<{mail.sender}>{parameters}\r\n".encode("ascii"),
            rcpt=f"RCPT TO:<{mail.recipient}>\r\n".encode("ascii"),
            body=body,
            recipient=mail.recipient,
            ended=ended,
        )


_NO_LINE_ENDS = bytes(octet for octet in range(256) if octet not in b"\r\n")


def _is_path(address: str) -> bool:
    """Whether an address can stand between < and > without becoming anything else. Empty only for a sender's <>."""
    return address.isascii() and address.isprintable() and "<" not in address and ">" not in address


_is_sender = lru_cache(maxsize=16)(_is_path)
