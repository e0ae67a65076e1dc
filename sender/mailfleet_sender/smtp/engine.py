"""The conversation with a relay after its opening, in four modes: an asyncio protocol without a task of its own.

Replies come in the order of the commands (RFC 2920 3.2), so a queue of what was asked tells which reply belongs to
what; an entry is made when its bytes are handed to the transport, never before. Everything that can be written
is written at once, at the end of the loop's turn: when all connections that had something to say were heard. Writes
that follow each other directly cost less (decision 0102).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, cast

from .clock import Clock
from .mode import Mode, Modes
from .parser import ReplyParser
from .replies import Phase, Reply
from .transaction import CHUNK, DATA, DOT, LONE_DOT, MAIL, RCPT, RESET, Step, Transaction
from .verdict import Verdict, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from .timeouts import Timeouts

BLOCK_BYTES = 65_536
"""asyncio's high-water mark. A longer message goes alone, by DATA, poured block by block and its dot written last and
alone, so that a connection that breaks half-way leaves no doubt."""
CLOSES, OUT_OF_TURN = "the relay closes the connection", "the relay spoke out of turn"
DEPTHS = {Mode.SEQUENTIAL: 1, Mode.GROUPED: 1, Mode.PIPELINED: 2, Mode.CHUNKING: 8}
"""Mails on their way at once. Pipelined: one whose reply is waited for, one whose envelope is asked for. Chunking: this
is what a lost connection may leave in doubt."""


class Engine(asyncio.Protocol):
    """One connection. Every transaction that is submitted ends with a verdict, whatever the relay or the network does.

    Attributes:
        mode: how much is said at once.
        lost: why nothing more can be said, or None.
        has_room: called when another transaction could begin at once; it may call `submit`.
    """

    def __init__(self, transport: asyncio.Transport, mode: Mode, modes: Modes, timeouts: Timeouts) -> None:
        """Take over a transport whose opening is done; nobody else may read from it or write to it.

        Args:
            transport: its protocol is replaced.
            mode: how much is said at once.
            modes: is told what is learnt about the relay.
            timeouts: of each step.
        """
        self.mode = mode
        self.lost: str | None = None
        self.has_room: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport, self._modes = transport, modes
        self._parser = ReplyParser()
        self._waiting: deque[Transaction] = deque()
        self._under_way: dict[Transaction, None] = {}
        self._ended: list[tuple[Transaction, Verdict]] = []
        self._due: deque[tuple[Transaction, Step]] = deque()
        self._script: deque[Step] = deque()
        self._opening: Transaction | None = None
        self._accepted: Transaction | None = None
        self._pouring: memoryview | None = None
        self._lone_dot: Transaction | None = None
        self._clean = True
        self._ending: str | None = None
        self._goodbye: Reply | None = None
        self._answers = 0
        self._paused = self._to_write = self._quitting = False
        self._closed = asyncio.Event()
        self._clock = Clock(self._loop, timeouts, self._late)
        transport.set_protocol(self)
        if transport.is_closing():
            self._lose("the connection was lost")

    # --- what the transport tells ------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        """Bytes of the relay."""
        if self.lost is not None:
            return
        replies = self._parser.feed(data)
        for reply in replies:
            self._hear(reply)
            if not self.alive:
                break
        else:
            if replies:
                self._clock.expect(self._due[0][1].phase if self._due else None)
            if self._parser.broken is not None:
                self._out_of_step(self._parser.broken)
        self._tell()
        self._go_on()

    def eof_received(self) -> None:
        """The relay says no more; the transport then closes."""
        self._lose("the relay closed the connection", closed_by_relay=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._lose("the connection was lost" if exc else "the relay closed the connection", closed_by_relay=True)
        self._closed.set()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._paused = False
        self._go_on()

    # --- what the connection asks ------------------------------------------------------------------
    @property
    def depth(self) -> int:
        """How many transactions may be under way at once."""
        return 1 if self.mode is Mode.CHUNKING and not self._modes.proven else DEPTHS[self.mode]

    @property
    def under_way(self) -> int:
        """Transactions without a verdict."""
        return len(self._under_way)

    @property
    def alive(self) -> bool:
        """Whether anything more can be said or heard."""
        return self.lost is None

    @property
    def usable(self) -> bool:
        """Whether another mail may be submitted, now or later."""
        return self.alive and self._ending is None

    @property
    def room(self) -> int:
        """How many transactions could begin at once."""
        if self.lost is not None or self._ending is not None or self._paused or self._pouring is not None:
            return 0
        left = self.depth - len(self._under_way)
        if self.mode is Mode.PIPELINED:
            return 1 if left > 0 and not self._waiting and self._may_begin else 0
        return left

    def submit(self, transaction: Transaction) -> None:
        """Begin a transaction as soon as it can be.

        Raises:
            RuntimeError: there are `depth` of them already.
        """
        if len(self._under_way) >= self.depth:
            raise RuntimeError(f"this connection is already sending {self.depth} mails")
        self._under_way[transaction] = None
        if self.lost is not None:
            self._end(transaction, transaction.lost(self.lost, None, closed=False))
            self._loop.call_soon(self._tell)
            return
        self._waiting.append(transaction)
        self._write_soon()

    def abort(self, why: str) -> None:
        """Cut the connection now; each transaction ends with its verdict."""
        self._lose(why)
        self._transport.abort()

    async def close(self, seconds: float) -> None:
        """Say goodbye and close in order, within this time for each; then cut."""
        if not self._under_way:
            self._write()  # a lone dot may be due: without it, QUIT would be a line of a message
        if self.lost is None and not self._under_way and not self._transport.is_closing():
            self._quitting, self._ending = True, "closed"
            self._transport.write(b"QUIT\r\n")
            await self._gone(seconds)
        self._lose("closed")
        self._transport.close()
        await self._gone(seconds)
        if not self._closed.is_set():
            self.abort("closed")

    async def _gone(self, seconds: float) -> None:
        """Until the connection is gone, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    # --- hearing -------------------------------------------------------------------------------------
    def _hear(self, reply: Reply) -> None:
        if not self._due:
            self._unasked(reply)
            return
        transaction, step = self._due.popleft()
        self._answers += 1
        if reply.code == 421:
            self._goodbye = self._goodbye or reply
            self._ending = self._ending or CLOSES
        if step is DOT or step is CHUNK:
            verdict = transaction.finished(reply)
            self._clean = verdict.kind is VerdictKind.SENT
            self._modes.proven |= self._clean and step is CHUNK
            self._end(transaction, verdict)
        elif step is not LONE_DOT:
            fine = transaction.answered(step, reply)
            if step is DATA:
                self._data_answered(transaction, reply)
            elif not fine and self.mode is Mode.SEQUENTIAL:
                self._refused(transaction)
            elif not fine and (refusal := transaction.refusal) and refusal.out_of_step:
                self._out_of_step(refusal.reply or "")

    def _data_answered(self, transaction: Transaction, reply: Reply) -> None:
        """The reply to DATA: nothing was written behind it, so it is known what the relay holds."""
        if reply.code not in DATA.goes_on:
            self._refused(transaction)
        elif transaction.refusal is None:
            self._opening, self._accepted = None, transaction
            transaction.at = DATA
        elif transaction.mail_ok and transaction.rcpt_ok is False:
            self._lone_dot = transaction
            self._refused(transaction)
        else:  # whose message does it want?
            self._refused(transaction)
            self._out_of_step("the relay refused MAIL and asked for a message")

    def _refused(self, transaction: Transaction) -> None:
        """Its message will not be written. What the relay keeps of the transaction has to be forgotten."""
        self._opening, self._clean = None, False
        self._script.clear()
        assert transaction.refusal is not None, "without a refusal it goes on"
        self._end(transaction, transaction.refusal)

    def _unasked(self, reply: Reply) -> None:
        """A reply before anything was asked: a goodbye, or a refusal of a message that is being poured."""
        if self._quitting:
            self._lose("closed")
            self._transport.close()
            return
        transaction = self._accepted
        if reply.code == 421:
            self._goodbye = reply
        if transaction is not None and reply.code >= 400:
            verdict = Verdict.of(Phase.DOT, reply, recipient=transaction.recipient)
            assert verdict is not None, "the table has no GO_ON for the end of a message"
            self._end(transaction, verdict)
        elif reply.code != 421:
            self._out_of_step(OUT_OF_TURN)
            return
        self.abort(CLOSES)

    def _end(self, transaction: Transaction, verdict: Verdict) -> None:
        del self._under_way[transaction]
        self._ended.append((transaction, verdict))
        if verdict.kind is VerdictKind.SENT:
            return
        if verdict.misunderstood:
            self._modes.failed(self.mode, f"{verdict.code} {verdict.reply}")
        if verdict.keeps_connection or self.lost is not None:
            return
        if verdict.out_of_step or (verdict.phase is Phase.DOT and (verdict.misunderstood or verdict.code is None)):
            self._out_of_step(verdict.reply or "no reply that is understood")
        self._ending = self._ending or verdict.reply or "closed"

    def _tell(self) -> None:
        """Whoever hears of a verdict may submit the next mail, here or elsewhere: so only after all was heard."""
        ended, self._ended = self._ended, []
        for transaction, verdict in ended:
            transaction.ended(verdict)

    def _out_of_step(self, why: str) -> None:
        """What comes next from this relay cannot be told apart."""
        if self.lost is not None:
            return
        if self._under_way and not self._idle:
            self._modes.failed(self.mode, why)
        self.abort(why)

    @property
    def _idle(self) -> bool:
        """Whether nothing was said to which there might be more to hear."""
        return not (self._due or self._accepted or self._opening)

    # --- saying --------------------------------------------------------------------------------------
    def _go_on(self) -> None:
        """After something was heard, or the transport has room again."""
        if self.lost is not None:
            return
        if self._ending is not None and not any(t.handed_over for t in self._under_way):
            self.abort(self._ending)
            return
        if self.has_room is not None and self.room:
            self.has_room()
        self._write_soon()

    @property
    def _may_begin(self) -> bool:
        """Whether the next transaction's first bytes may follow what was written."""
        if self._opening is not None or self._pouring is not None or self._ending is not None:
            return False
        if self.mode is Mode.CHUNKING and not _is_long(self._waiting[0] if self._waiting else self._accepted):
            return self._accepted is None
        if self.mode is Mode.PIPELINED and not _is_long(self._accepted):
            return True
        return not self._due and self._accepted is None and self._lone_dot is None

    def _write_soon(self) -> None:
        """Write when this turn of the loop is over."""
        if not self._to_write:
            self._to_write = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        """Write all that may be written now."""
        self._to_write = False
        if self.lost is not None or self._paused:
            return
        if not self._due and not self._parser.empty and self._under_way:
            self._out_of_step(OUT_OF_TURN)
            return
        if self._transport.is_closing():
            self._lose("the connection was lost")
            return
        out: list[bytes] = []
        if self._lone_dot is not None:
            self._say(out, self._lone_dot, LONE_DOT, b".\r\n")
            self._lone_dot = None
        if self._accepted is not None:
            if _is_long(self._accepted):
                self._pour(self._accepted)
                return
            self._hand_over(out, self._accepted, DOT, stuffed(self._accepted.body), b".\r\n")
            self._accepted = None
        if self._opening is not None and self._script and not self._due:
            self._say_next(out)
        while self._waiting and self._may_begin:
            self._begin(out, self._waiting.popleft())
        if out:
            self._transport.write(b"".join(out))

    def _begin(self, out: list[bytes], transaction: Transaction) -> None:
        reset = not self._clean or (self.mode is Mode.CHUNKING and len(self._under_way) - len(self._waiting) > 1)
        self._clean = True
        if self.mode is Mode.CHUNKING and not _is_long(transaction):
            if reset:
                self._say(out, transaction, RESET, b"RSET\r\n")
            self._say(out, transaction, MAIL, transaction.mail)
            self._say(out, transaction, RCPT, transaction.rcpt)
            command = b"BDAT %d LAST\r\n" % len(transaction.body)
            self._hand_over(out, transaction, CHUNK, command, transaction.body)
            return
        self._opening = transaction
        self._script.extend((RESET, MAIL, RCPT, DATA) if reset else (MAIL, RCPT, DATA))
        self._say_next(out)

    def _say_next(self, out: list[bytes]) -> None:
        """What is left of the opening transaction's commands: one, or all."""
        transaction = self._opening
        assert transaction is not None
        while self._script:
            step = self._script.popleft()
            transaction.at = step
            self._say(out, transaction, step, _command(transaction, step))
            if self.mode is Mode.SEQUENTIAL:
                return

    def _say(self, out: list[bytes], transaction: Transaction, step: Step, data: bytes) -> None:
        out.append(data)
        if not self._due:
            self._clock.expect(step.phase)
        self._due.append((transaction, step))

    def _hand_over(self, out: list[bytes], transaction: Transaction, step: Step, *data: bytes) -> None:
        """The end of its message goes to the transport in this turn: from here on it may be in doubt."""
        transaction.handed_over = True
        transaction.at = step
        out.extend(data[:-1])
        self._say(out, transaction, step, data[-1])

    # --- a long message --------------------------------------------------------------------------------
    def _pour(self, transaction: Transaction) -> None:
        """Write a block of it, and the rest when the relay has taken that; the dot last and alone."""
        if self._pouring is None:
            self._pouring = memoryview(stuffed(transaction.body))
        block, self._pouring = self._pouring[:BLOCK_BYTES], self._pouring[BLOCK_BYTES:]
        if block:
            self._clock.expect_block()
            self._transport.write(bytes(block))
            self._write_soon()  # a relay that already refuses is heard before the next block
            return
        self._accepted = self._pouring = None
        transaction.handed_over = True
        out: list[bytes] = []
        self._say(out, transaction, DOT, b".\r\n")
        self._transport.write(b"".join(out))

    # --- the end -----------------------------------------------------------------------------------------
    def _late(self, why: str) -> None:
        """The time for what was expected is over."""
        if not self._answers:
            self._modes.failed(self.mode, why)
        self.abort(why)

    def _lose(self, why: str, *, closed_by_relay: bool = False) -> None:
        if self.lost is not None:
            return
        self.lost = why
        self._clock.stop()
        closed = self._goodbye is not None and closed_by_relay
        phases = dict(reversed(self._due))
        for transaction in list(self._under_way):
            transaction.at = phases.get(transaction, transaction.at)
            self._end(transaction, transaction.lost(why, self._goodbye, closed=closed))
        self._tell()


def stuffed(body: bytes) -> bytes:
    """A message with CRLF line ends as DATA carries it, without the final dot (RFC 5321 4.5.2)."""
    data = body.replace(b"\r\n.", b"\r\n..")
    if data.startswith(b"."):
        data = b"." + data
    return data if data.endswith(b"\r\n") or not data else data + b"\r\n"


def as_transport(transport: asyncio.BaseTransport | None) -> asyncio.Transport:
    """What asyncio's own connections are (it promises no more than a BaseTransport)."""
    return cast("asyncio.Transport", transport)


def _command(transaction: Transaction, step: Step) -> bytes:
    if step is MAIL:
        return transaction.mail
    if step is RCPT:
        return transaction.rcpt
    return b"DATA\r\n" if step is DATA else b"RSET\r\n"


def _is_long(transaction: Transaction | None) -> bool:
    return transaction is not None and len(transaction.body) > BLOCK_BYTES
