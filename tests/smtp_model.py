"""A relay in memory that keeps its open transaction as Postfix does, and does at each command what it is told to.

What Postfix does (seen with 3.7): a second MAIL gets 503 and leaves the open transaction as it is; RCPT, DATA and BDAT
then go on under the first one's sender; a refused RCPT leaves the transaction open; the payload of a refused BDAT is
read and thrown away; RSET forgets the transaction, whatever is said then (RFC 5321 4.1.1.5 knows no refusal of it: a
relay that kept it would break every client that pipelines). What other relays do is a matter of `Habit`s.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field
from enum import Flag, auto
from itertools import cycle
from typing import Any

FINE, SILENT, CLOSE, CUT = "fine", "silent", "close", "cut"
TAKE_AND_CLOSE, TAKE_AND_CUT = "take-close", "take-cut"
"""What it may be told to do at a command: do it and say so, say nothing ever again, hang up before or after it."""
Act = str | bytes
"""One of these, or the bytes that it answers instead; 2xx and 354 mean that it does what was asked."""


class Habit(Flag):
    """What some relays do and others do not."""

    GENEROUS = auto()
    """354 though no recipient was accepted, and 250 to the message that nobody gets."""
    KEEPS = auto()
    """A message that it refused leaves the transaction open."""
    STAYS = auto()
    """It says 421 and goes on all the same."""


@dataclass
class Case:
    """What the relay said of one mail and did with it.

    Attributes:
        mail, rcpt, end: the codes of its answers as far as the client has got them; 0: something that is no reply.
        taken: how often the relay took it.
    """

    mail: int | None = None
    rcpt: int | None = None
    end: int | None = None
    taken: int = 0


@dataclass
class Relay(asyncio.Transport):
    """The client's transport, and the relay at its far end.

    Attributes:
        acts: what it does at its first command, its second, and so on; then all is fine.
        habits: of this relay.
        pieces: sizes of the pieces in which its words arrive, over and over.
        stops: after how many writes its buffer is full for a while, over and over; empty: never.
        cases: by sender.
        strays: what it took under another envelope than its own: sender, recipients, message.
        goodbye: the client has got a 421, and the relay meant it.
        written: all that the client wrote.
    """

    acts: deque[Act]
    habits: Habit = field(default=Habit(0))
    pieces: list[int] = field(default_factory=lambda: [1000])
    stops: list[int] = field(default_factory=list)
    cases: dict[str, Case] = field(default_factory=dict)
    strays: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    goodbye: bool = False
    written: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = None
        self._input = bytearray()
        self._output: deque[tuple[bytes, str, str, int]] = deque()
        self._sizes, self._writes = cycle(self.pieces), cycle(self.stops or [0])
        self._until_full = next(self._writes)
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._who = ""
        self._in_data = self._deaf = self._closing = self._running = self._unmoved = False
        self._hang_up: str | None = None

    # --- the transport ---
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        assert not self._closing, "written to a closed transport"
        self._input += data
        self.written += data
        self._keep_running()
        if self.stops:
            self._until_full -= 1
            if self._until_full <= 0:
                self._until_full = next(self._writes)
                self._protocol.pause_writing()
                self._loop.call_soon(self._loop.call_soon, self._resume)

    def _resume(self) -> None:
        if not self._closing:
            self._protocol.resume_writing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    # --- its turns: a command, then a piece of what it has to say ---
    def _keep_running(self) -> None:
        if not self._running and not self._closing:
            self._running = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._running = False
        if self._closing:
            return
        busy = self._hang_up is None and not self._deaf and self._command()
        if self._hang_up == CUT:
            self._closing = True
            self._protocol.connection_lost(ConnectionResetError())
        elif self._output:
            self._speak()
            self._keep_running()
        elif self._hang_up is not None:
            self._closing = True
            self._protocol.eof_received()
            self._protocol.connection_lost(None)
        elif busy:
            self._keep_running()

    def _speak(self) -> None:
        """Send the next piece; who has got a whole answer knows it."""
        size, piece = next(self._sizes), b""
        known: list[tuple[str, str, int]] = []
        while size and self._output:
            words, who, what, code = self._output.popleft()
            piece, rest, size = piece + words[:size], words[size:], max(0, size - len(words))
            if rest:
                self._output.appendleft((rest, who, what, code))
            else:
                known.append((who, what, code))
        for who, what, code in known:
            self.goodbye |= code == 421 and Habit.STAYS not in self.habits
            if who in self.cases and what in ("mail", "rcpt", "end") and getattr(self.cases[who], what) is None:
                setattr(self.cases[who], what, code)
        self._protocol.data_received(piece)

    # --- what it does ---
    def _command(self) -> bool:
        """Take what is next from the input; whether there was anything."""
        if self._in_data:
            text = bytes(self._input)
            end = 0 if text.startswith(b".\r\n") else text.find(b"\r\n.\r\n") + 2
            if end == 1:
                return False
            del self._input[: end + 3]
            self._in_data = False
            self._end(re.sub(rb"(^|\r\n)\.", rb"\1", text[:end]))
            return True
        end = self._input.find(b"\r\n") + 2
        if end == 1:
            return False
        line = bytes(self._input[:end])
        if found := re.match(rb"BDAT (\d+) LAST", line):
            if len(self._input) < end + int(found[1]):
                return False
            end += int(found[1])
            message = bytes(self._input[len(line) : end])
            del self._input[:end]
            self._end(message)
            return True
        del self._input[:end]
        verb, path = line[:4], re.search(rb"<([^>]*)>", line)
        name = path[1].decode() if path else ""
        if verb == b"MAIL":
            self._who = name
            self.cases[name] = Case()
            self._answer(
                "mail", b"250 2.1.0 Ok" if self._sender is None else b"503 5.5.1 Error: nested MAIL command", name
            )
        elif verb == b"RCPT":
            self._answer("rcpt", b"503 5.5.1 need MAIL" if self._sender is None else b"250 2.1.5 Ok", name)
        elif verb == b"DATA":
            self._answer("data", b"354 go" if self._takes_messages else b"554 5.5.1 no valid recipients")
        elif verb == b"RSET":
            self._answer("rset", b"250 2.0.0 Ok")
        else:
            self._say(b"500 5.5.2 Error", "", 500)
        return True

    def _end(self, message: bytes) -> None:
        usual = b"250 2.0.0 Ok: queued as 1" if self._takes_messages else b"554 5.5.1 no valid recipients"
        self._answer("end", usual, message)

    @property
    def _takes_messages(self) -> bool:
        return bool(self._recipients) or (Habit.GENEROUS in self.habits and self._sender is not None)

    def _answer(self, what: str, usual: bytes, value: str | bytes = "") -> None:
        act = self.acts.popleft() if self.acts else FINE
        if self._unmoved and act in (CLOSE, CUT, TAKE_AND_CLOSE, TAKE_AND_CUT):
            act = SILENT
        if act == SILENT:
            self._deaf = True
            return
        if act in (CLOSE, CUT):
            self._hang_up = act
            return
        said = act if isinstance(act, bytes) else usual + b"\r\n"
        if usual[:1] == b"5" and said[:1] in b"23":
            said = usual + b"\r\n"  # what it cannot do it does not say that it did
        found = re.match(rb"(?:([2-5][0-5]\d)-.*\r\n(?=\1))*([2-5][0-5]\d) .*\r\n\Z", said)
        code = int(found[2]) if found else 0
        if code // 100 == 2 or (code == 354 and what == "data"):
            self._do(what, value)
        kept = Habit.KEEPS in self.habits and code // 100 != 2
        if what == "rset" or (what == "end" and self._recipients and not kept):
            self._sender, self._recipients = None, []
        if act in (TAKE_AND_CLOSE, TAKE_AND_CUT):
            self._hang_up = CLOSE if act == TAKE_AND_CLOSE else CUT
            return
        self._say(said, what, code)
        if code == 421 and Habit.STAYS in self.habits:
            self._unmoved = True
        elif code == 421:
            self._hang_up = CLOSE

    def _do(self, what: str, value: str | bytes) -> None:
        if what == "mail":
            self._sender, self._recipients = str(value), []
        elif what == "rcpt":
            self._recipients.append(str(value))
        elif what == "data":
            self._in_data = True
        elif isinstance(value, bytes) and self._recipients:
            self._take(value)

    def _take(self, message: bytes) -> None:
        assert self._sender is not None
        own = re.search(rb"END (\S+)\r\n\Z", message)
        if own and own[1].decode() == self._sender and self._recipients == [recipient_of(self._sender)]:
            self.cases[self._sender].taken += 1
        else:
            self.strays.append((self._sender, self._recipients, message))

    def _say(self, words: bytes, what: str, code: int) -> None:
        self._output.append((words, self._who, what, code))

    # --- for whoever judges ---
    def handed_over(self, sender: str) -> bool:
        """Whether the end of this mail's message is in what the client wrote."""
        end = b"END %b\r\n" % sender.encode()
        chunk = re.search(rb"MAIL FROM:<%b>[^\r]*\r\nRCPT [^\r]*\r\nBDAT " % re.escape(sender.encode()), self.written)
        return (end if chunk else end + b".\r\n") in self.written


def recipient_of(sender: str) -> str:
    """Each mail of the model has a sender and a recipient of its own."""
    return sender.replace("s", "r", 1)
