"""The SMTP side: enough of RFC 5321 to be a relay, and every way of not being a good one."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from .behaviour import Behaviour, Rule
    from .record import Record

_PATH = re.compile(rb"(?:FROM|TO):\s*<([^>\r\n]*)>(.*)", re.IGNORECASE)
_BDAT = re.compile(rb"(\d{1,10})( LAST)?", re.IGNORECASE)
_MAX_LINE = 8_192


@dataclass(frozen=True)
class Options:
    """What the sink is, apart from its behaviour.

    Attributes:
        name: its host name.
        tls: a server context; None: no TLS.
        implicit_tls: TLS from the first byte instead of STARTTLS.
        require_tls: MAIL before STARTTLS gets 530.
        credentials: user name and password; AUTH is offered, and MAIL before it gets 530. None: no AUTH.
        pipelining: offer PIPELINING.
        chunking: offer CHUNKING.
        eight_bit: offer 8BITMIME.
        size: offer SIZE with this limit in bytes.
    """

    name: str = "sink.test"
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    require_tls: bool = False
    credentials: tuple[str, str] | None = None
    pipelining: bool = True
    chunking: bool = False
    eight_bit: bool = True
    size: int = 50_000_000


class Session(asyncio.Protocol):
    """One connection. Commands wait while an answer is being delayed, so answers keep their order."""

    def __init__(self, options: Options, behaviour: Behaviour, record: Record, sessions: set[Session]) -> None:
        self._options, self._behaviour, self._record, self._sessions = options, behaviour, record, sessions
        self._buffer = bytearray()
        self._scanned = 0
        self._busy = False
        self._in_data = False
        self._chunk: tuple[int, bool] | None = None
        self._chunks, self._chunk_answered = b"", False
        self._body_ruled = False
        self._secure = options.implicit_tls
        self._known = options.credentials is None
        self._continuation: Callable[[bytes], None] | None = None
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands: dict[bytes, Callable[[bytes], None]] = {
            b"EHLO": self._ehlo,
            b"HELO": self._helo,
            b"STARTTLS": self._starttls,
            b"AUTH": self._auth,
            b"MAIL": self._mail,
            b"RCPT": self._rcpt,
            b"DATA": self._data,
            b"BDAT": self._bdat,
            b"RSET": self._rset,
            b"QUIT": self._quit,
            b"NOOP": self._noop,
        }

    # --- what the transport tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._transport = cast("asyncio.Transport", transport)
        self._sessions.add(self)
        self._answer("connect", f"220 {self._options.name} ESMTP mailfleet sink")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; an unfinished message is forgotten."""
        del exc
        self._transport = None
        self._sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self._buffer += data
        self._work()

    # --- the loop: take what is in the buffer, until an answer must be waited for ---

    def _work(self) -> None:
        while not self._busy and self._transport is not None:
            if self._in_data:
                if not self._take_message():
                    return
            elif self._chunk is not None:
                if not self._take_chunk(*self._chunk):
                    return
            else:
                end = self._buffer.find(b"\n")
                if end < 0:
                    if len(self._buffer) > _MAX_LINE:
                        self.cut()
                    return
                line = bytes(self._buffer[:end]).rstrip(b"\r")
                del self._buffer[: end + 1]
                self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        if self._continuation is not None:
            proceed, self._continuation = self._continuation, None
            proceed(line)
            return
        verb, _, rest = line.partition(b" ")
        command = self._commands.get(verb.upper())
        if command is None:
            self._send("500 5.5.2 Error: command not recognized")
        else:
            command(rest)

    def _take_message(self) -> bool:
        """Look for the dot. True if the message is complete."""
        buffer = self._buffer
        if not self._body_ruled and (rule := self._behaviour.decide("body", self._recipients[0], len(buffer))):
            self._body_ruled = True
            self._obey(rule, "", None)
            if self._busy or rule.then != "continue":
                return False
        if buffer.startswith(b".\r\n"):
            body, length = b"", 3
        else:
            end = buffer.find(b"\r\n.\r\n", max(0, self._scanned - 4))
            if end < 0:
                self._scanned = len(buffer)
                return False
            body, length = bytes(buffer[: end + 2]), end + 5
        del buffer[:length]
        self._scanned, self._in_data, self._body_ruled = 0, False, False
        body = body.replace(b"\r\n.", b"\r\n")
        self._dot(body[1:] if body.startswith(b".") else body)
        return True

    def _take_chunk(self, size: int, last: bool) -> bool:  # noqa: FBT001
        """Wait for a chunk's bytes. True if they are there; they are thrown away where there is no transaction."""
        recipient = self._recipients[0] if self._recipients else None
        rule = None if self._body_ruled else self._behaviour.decide("body", recipient, len(self._buffer))
        if rule is not None:
            self._body_ruled = True
            self._obey(rule, "", None)
            if self._busy or rule.then != "continue":
                return False
        if len(self._buffer) < size:
            return False
        self._chunks += self._buffer[:size]
        del self._buffer[:size]
        self._chunk, self._body_ruled = None, False
        answered, self._chunk_answered = self._chunk_answered, False
        if answered:
            self._chunks = b""
        elif last:
            body, self._chunks = self._chunks, b""
            if self._recipients:
                self._dot(body)
            else:
                self._send("554 5.5.1 Error: no valid recipients")
        else:
            self._send("250 2.0.0 Ok: more")
        return True

    # --- answering ---

    def _answer(
        self, phase: str, usual: str, effect: Callable[[bool], None] | None = None, recipient: str | None = None
    ) -> None:
        """Answer as the rules say, else as usual.

        Args:
            phase: which rules to ask.
            usual: the reply if none applies.
            effect: what the command does; told whether the answer is a positive one.
            recipient: whom it is about.
        """
        rule = self._behaviour.decide(phase, recipient)
        if rule is None:
            if effect is not None:
                effect(usual[0] in "23")
            self._send(usual)
        else:
            self._obey(rule, usual, effect)

    def _obey(self, rule: Rule, usual: str, effect: Callable[[bool], None] | None) -> None:
        if rule.delay > 0:
            self._busy = True
            asyncio.get_running_loop().call_later(rule.delay, self._carry_out, rule, usual, effect)
        else:
            self._carry_out(rule, usual, effect)

    def _carry_out(self, rule: Rule, usual: str, effect: Callable[[bool], None] | None) -> None:
        waited, self._busy = self._busy, False
        reply = usual if rule.reply is None else rule.reply
        if effect is not None and (self._transport is not None or rule.accept):
            positive = reply[:1] in ("2", "3") and rule.then == "continue"
            effect(positive if rule.accept is None else rule.accept)
        if rule.then == "reset":
            self.cut()
        elif rule.then == "stall":
            self._busy = True
        else:
            if reply and (rule.then == "continue" or rule.reply is not None):
                self._send(reply)
            if rule.then == "close" and self._transport is not None:
                self._transport.close()
                self._busy = True
        if waited:
            self._work()

    def _send(self, reply: str) -> None:
        if self._transport is not None:
            self._transport.write(
                "".join(f"{line}\r\n" for line in reply.split("\n")).encode("utf-8", "surrogateescape")
            )

    def cut(self) -> None:
        """Reset the connection: RST, no FIN, nothing more is sent."""
        if self._transport is None:
            return
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._busy = True
        self._transport.abort()

    # --- the commands ---

    def _ehlo(self, rest: bytes) -> None:
        del rest
        self._forget(positive=True)
        options = self._options
        lines = [options.name]
        if options.pipelining:
            lines.append("PIPELINING")
        if options.chunking:
            lines.append("CHUNKING")
        if options.eight_bit:
            lines.append("8BITMIME")
        if options.tls is not None and not self._secure:
            lines.append("STARTTLS")
        if options.credentials is not None:
            lines.append("AUTH PLAIN LOGIN")
        lines += [f"SIZE {options.size}", "ENHANCEDSTATUSCODES"]
        self._answer("ehlo", "\n".join(f"250-{line}" for line in lines[:-1]) + f"\n250 {lines[-1]}")

    def _helo(self, rest: bytes) -> None:
        del rest
        self._forget(positive=True)
        self._answer("ehlo", f"250 {self._options.name}")

    def _starttls(self, rest: bytes) -> None:
        del rest
        if self._options.tls is None or self._secure:
            self._send("502 5.5.1 STARTTLS is not available here")
            return
        self._answer("starttls", "220 2.0.0 Ready to start TLS", self._encrypt)

    def _encrypt(self, positive: bool) -> None:  # noqa: FBT001 - the form of every effect
        if not positive:
            return
        self._busy = True
        self._buffer.clear()
        # The handshake begins after this turn of the loop, when the 220 is on its way.
        task = asyncio.get_running_loop().create_task(self._handshake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handshake(self) -> None:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._options.tls is None:
            return
        try:
            transport = await loop.start_tls(self._transport, self, self._options.tls, server_side=True)
        except OSError:
            return  # the client did not trust us, or went away
        if transport is None:
            return
        self._transport = transport
        self._secure, self._busy = True, False
        self._work()

    def _auth(self, rest: bytes) -> None:
        if self._options.credentials is None:
            self._send("502 5.5.1 AUTH is not available here")
            return
        mechanism, _, initial = rest.partition(b" ")
        if mechanism.upper() == b"PLAIN" and initial:
            self._plain(initial)
        elif mechanism.upper() == b"PLAIN":
            self._continuation = self._plain
            self._send("334 ")
        elif mechanism.upper() == b"LOGIN":
            self._continuation = self._login_name
            if initial:
                self._take_line(initial)
            else:
                self._send("334 VXNlcm5hbWU6")
        else:
            self._send("504 5.5.4 unrecognized authentication type")

    def _plain(self, line: bytes) -> None:
        parts = _decoded(line).split("\0")
        self._judge((parts[1], parts[2]) if len(parts) == 3 else ("", ""))

    def _login_name(self, line: bytes) -> None:
        name = _decoded(line)
        self._continuation = lambda password: self._judge((name, _decoded(password)))
        self._send("334 UGFzc3dvcmQ6")

    def _judge(self, credentials: tuple[str, str]) -> None:
        right = credentials == self._options.credentials
        usual = "235 2.7.0 Authentication successful" if right else "535 5.7.8 authentication failed"
        self._answer("auth", usual, self._let_in)

    def _let_in(self, positive: bool) -> None:  # noqa: FBT001
        self._known = positive

    def _mail(self, rest: bytes) -> None:
        found = _PATH.fullmatch(rest)
        if self._options.require_tls and not self._secure:
            self._send("530 5.7.0 Must issue a STARTTLS command first")
        elif not self._known:
            self._send("530 5.7.0 Authentication required")
        elif self._sender is not None:
            self._send("503 5.5.1 Error: nested MAIL command")
        elif found is None:
            self._send("501 5.5.4 Syntax: MAIL FROM:<address>")
        elif b"BODY=8BITMIME" in found[2].upper() and not self._options.eight_bit:
            self._send("555 5.5.4 Unsupported option: BODY=8BITMIME")
        else:
            sender = found[1].decode("utf-8", "replace")

            def begin(positive: bool) -> None:  # noqa: FBT001
                self._sender = sender if positive else None

            self._answer("mail", "250 2.1.0 Ok", begin)

    def _rcpt(self, rest: bytes) -> None:
        found = _PATH.fullmatch(rest)
        if self._sender is None:
            self._send("503 5.5.1 Error: need MAIL command")
        elif found is None or not found[1]:
            self._send("501 5.1.3 Bad recipient address syntax")
        else:
            recipient = found[1].decode("utf-8", "replace")

            def add(positive: bool) -> None:  # noqa: FBT001
                if positive:
                    self._recipients.append(recipient)

            self._answer("rcpt", "250 2.1.5 Ok", add, recipient)

    def _data(self, rest: bytes) -> None:
        del rest
        if not self._recipients:
            self._send("554 5.5.1 Error: no valid recipients")
            return
        self._answer("data", "354 End data with <CR><LF>.<CR><LF>", self._open_data, self._recipients[0])

    def _bdat(self, rest: bytes) -> None:
        found = _BDAT.fullmatch(rest)
        if not self._options.chunking:
            self._send("500 5.5.2 Error: command not recognized")
        elif found is None:
            self._send("501 5.5.4 Syntax: BDAT size [LAST]")
        else:
            recipient = self._recipients[0] if self._recipients else None
            rule = self._behaviour.decide("data", recipient) if recipient else None
            if rule is not None:
                self._obey(rule, "", None)
                if rule.then != "continue":
                    return
                self._chunk_answered = True
            self._chunk = (int(found[1]), found[2] is not None)

    def _open_data(self, positive: bool) -> None:  # noqa: FBT001
        self._in_data = positive

    def _dot(self, body: bytes) -> None:
        sender, recipients = self._sender or "", self._recipients
        self._forget(positive=True)
        usual = "250 2.0.0 Ok: queued as " + f"{self._record.summary.accepted + 1:X}"
        if len(body) > self._options.size:
            usual = "552 5.3.4 Error: message file too big"

        def accept(positive: bool) -> None:  # noqa: FBT001
            if positive:
                self._record.accept(sender, recipients, body)

        self._answer("dot", usual, accept, recipients[0])

    def _rset(self, rest: bytes) -> None:
        del rest
        self._answer("rset", "250 2.0.0 Ok", self._forget)

    def _forget(self, positive: bool) -> None:  # noqa: FBT001
        if positive:
            self._sender, self._recipients, self._chunks = None, [], b""

    def _noop(self, rest: bytes) -> None:
        del rest
        self._send("250 2.0.0 Ok")

    def _quit(self, rest: bytes) -> None:
        del rest
        self._answer("quit", "221 2.0.0 Bye")
        if self._transport is not None and not self._busy:
            self._transport.close()


def _decoded(line: bytes) -> str:
    try:
        return base64.b64decode(line, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return ""
