"""One verdict for every mail, whatever the server does: a server that follows a script, in memory."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfleet_sender.contract.relay import Pipelining
from mailfleet_sender.message import Mail
from mailfleet_sender.smtp import Connection, Extensions, Phase, Timeouts, Verdict, VerdictKind
from mailfleet_sender.smtp.engine import BLOCK_BYTES, stuffed
from mailfleet_sender.smtp.parser import MAX_LINE_BYTES, MAX_REPLY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOST = "lost"
"""In a script: the connection breaks."""
PATIENCE = 20
"""Turns of the event loop without a word from the client after which a script's server hangs up."""
EOF = "eof"
"""In a script: the server closes its side."""
Event = bytes | str

QUICK = Timeouts(0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05)
GOOD: list[list[Event]] = [[b"250 Ok\r\n"], [b"250 Ok\r\n"], [b"354 go\r\n"], [b"250 2.0.0 Ok: queued as 1\r\n"]]


def mail(body: bytes = b"Subject: x\r\n\r\nHello\r\n", recipient: str = "ann@example.com") -> Mail:
    return Mail("news@example.com", recipient, "<1@example.com>", body)


@dataclass
class Script(asyncio.Transport):
    """A transport whose far end answers the n-th write with the n-th entry of `answers`, then breaks.

    Attributes:
        writes: what the client wrote.
        after_dot: the bytes that came after the write with the dot; None while it has not been written.
    """

    answers: list[list[Event]]
    writes: list[bytes] = field(default_factory=list)
    after_dot: list[bytes] | None = None
    closing: bool = False
    then_lost: bool = True
    _protocol: Any = None

    def __post_init__(self) -> None:
        super().__init__()
        self._answers = iter(self.answers)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: Any) -> None:
        assert not self.closing, "written to a closed transport"
        data = bytes(data)
        self.writes.append(data)
        if data.endswith(b"\r\n.\r\n") or data == b".\r\n":
            self.after_dot = []
        events = next(self._answers, [LOST] if self.then_lost else [])
        self._play(list(events))

    def _play(self, events: list[Event], patience: int = PATIENCE) -> None:
        loop = asyncio.get_running_loop()
        if events:
            loop.call_soon(self._happen, events)
        elif patience and self.then_lost:
            loop.call_soon(self._wait, len(self.writes), patience - 1)

    def _wait(self, written: int, patience: int) -> None:
        """The server waits for the next write, so many turns of the loop; then it breaks the connection."""
        if written == len(self.writes):
            self._play([] if patience else [LOST], patience)

    def _happen(self, events: list[Event]) -> None:
        event, *rest = events
        if self.closing:
            return
        if isinstance(event, bytes):
            if self.after_dot is not None:
                self.after_dot.append(event)
            self._protocol.data_received(event)
        elif event == EOF:
            self._protocol.eof_received()
            self.close()
        else:
            self.closing = True
            self._protocol.connection_lost(ConnectionResetError())
        self._play(rest)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    @property
    def commands(self) -> list[bytes]:
        return [line for line in self.writes if re.match(rb"(RSET|MAIL|RCPT|DATA|QUIT)\b", line)]


def converse(
    answers: list[list[Event]],
    *mails: Mail,
    extensions: Extensions = Extensions(),  # noqa: B008 - frozen
    timeouts: Timeouts | None = None,
    then_lost: bool = True,
    meanwhile: Callable[[Connection], None] | None = None,
) -> tuple[list[Verdict], Script, Connection]:
    """Send mails over one scripted connection, as long as it is usable."""

    async def run() -> tuple[list[Verdict], Script, Connection]:
        script = Script(answers, then_lost=then_lost)
        connection = Connection(script, extensions, timeouts=timeouts)
        verdicts = []
        if meanwhile is not None:
            asyncio.get_running_loop().call_later(0.01, meanwhile, connection)
        for each in mails or [mail()]:
            if connection.usable:
                script.after_dot = None
                verdicts.append(await connection.send(each))
        return verdicts, script, connection

    return asyncio.run(run())


def one(answers: list[list[Event]], *mails: Mail, **how: Any) -> Verdict:
    verdicts, _, _ = converse(answers, *mails, **how)
    return verdicts[-1]


# --- what must hold for every server ---------------------------------------------------------------

_TEXT = st.binary(max_size=20).map(lambda b: b.replace(b"\n", b" ").replace(b"\r", b" "))


@st.composite
def reply_bytes(
    draw: st.DrawFn, codes: Sequence[int] = (250, 354, 421, 450, 452, 500, 503, 530, 550, 552, 554)
) -> bytes:
    """One well-formed reply, perhaps of several lines."""
    code = draw(st.sampled_from(codes))
    texts = draw(st.lists(_TEXT, min_size=1, max_size=3))
    lines = [b"%d-%b" % (code, text) for text in texts[:-1]] + [b"%d %b" % (code, texts[-1])]
    end = draw(st.sampled_from([b"\r\n", b"\n"]))
    return b"".join(line + end for line in lines)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[Event]:
    """Some bytes in any pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


@st.composite
def any_answer(draw: st.DrawFn) -> list[Event]:
    """What a server may do after one write: good, bad or mad."""
    data = draw(
        st.one_of(
            reply_bytes(),
            reply_bytes(codes=(250, 354)),
            st.binary(max_size=30),
            st.tuples(reply_bytes(), reply_bytes()).map(b"".join),
            reply_bytes().map(lambda b: b[:-1]),
            st.just(b"250-Ok\r\n550 no\r\n"),
        )
    )
    return [*draw(split(data)), *draw(st.sampled_from([[], [], [], [LOST], [EOF]]))]


@st.composite
def any_script(draw: st.DrawFn) -> list[list[Event]]:
    """Often enough good until the dot, so that the moments after it are tried."""
    good = draw(st.sampled_from([0, 1, 2, 3, 3, 3, 3]))
    return [*GOOD[:good], *draw(st.lists(any_answer(), max_size=6))]


def first_reply(data: bytes) -> int | None:
    """A second reading of RFC 5321 4.2: the code of the reply that some bytes begin with, or None."""
    found = re.match(rb"((?:(?:[2-5][0-5][0-9])-[^\n]*\n)*)([2-5][0-5][0-9])(?: [^\n]*)?\r?\n", data)
    if found is None or any(line[:3] != found[2] for line in found[1].splitlines()):
        return None
    return int(found[2])


@settings(max_examples=250, deadline=None)
@given(script=any_script())
@example(script=[*GOOD[:3], [b"250 Ok\r\nrubbish\r\n"]])
@example(script=[*GOOD[:3], [b"250 Ok\r\n", LOST]])
@example(script=[*GOOD[:3], [b"250 Ok", LOST]])
@example(script=[*GOOD[:3], [b"250-Ok\r\n", EOF]])
@example(script=[*GOOD[:2], [b"354 go\r\n250 Ok\r\n"]])
@example(script=[*GOOD[:2], [b"354 go\r\n2"]])
def test_every_mail_ends_in_one_verdict_and_it_is_the_true_one(script: list[list[Event]]) -> None:
    [verdict], server, connection = converse(script)

    if server.after_dot is None:
        assert verdict.kind not in (VerdictKind.SENT, VerdictKind.UNCERTAIN), "no dot was written"
        return
    code = first_reply(b"".join(server.after_dot))
    if code is None:
        assert verdict.kind is VerdictKind.UNCERTAIN, "no reply to the dot"
    elif 200 <= code < 300:
        assert verdict.kind is VerdictKind.SENT
    elif code >= 400:
        assert verdict.kind not in (VerdictKind.SENT, VerdictKind.UNCERTAIN), "a definite refusal"
    else:
        assert verdict.kind is VerdictKind.UNCERTAIN, "354 is no answer to a dot"
    assert verdict.kind is not VerdictKind.UNCERTAIN or not connection.usable


@settings(max_examples=100, deadline=None)
@given(script=st.lists(reply_bytes(), max_size=16), data=st.data())
def test_the_same_replies_give_the_same_verdicts_however_they_are_split(
    script: list[bytes], data: st.DataObject
) -> None:
    mails = [mail(recipient=f"{name}@example.com") for name in "abc"]
    whole, _, _ = converse([[reply] for reply in script], *mails)
    pieces, _, _ = converse([data.draw(split(reply)) for reply in script], *mails)
    assert pieces == whole


@settings(max_examples=100, deadline=None)
@given(script=st.lists(reply_bytes(), max_size=16))
def test_after_a_refused_transaction_rset_comes_before_the_next_mail(script: list[bytes]) -> None:
    _, server, _ = converse([[reply] for reply in script], mail(), mail(), mail())
    open_transaction = False
    for command, reply in zip(server.writes, [*script, *[b"lost"] * len(server.writes)], strict=False):
        accepted = reply[:1] == b"2"
        if command == b"RSET\r\n":
            open_transaction = open_transaction and not accepted
        elif command.startswith(b"MAIL"):
            assert not open_transaction, server.writes
            open_transaction = True
        elif command.endswith(b"\r\n.\r\n") and accepted:
            open_transaction = False


# --- single moments ----------------------------------------------------------------------------------


def test_a_sent_mail_keeps_the_relays_queue_id() -> None:
    [verdict], server, connection = converse(GOOD)
    assert (verdict.kind, verdict.code, verdict.enhanced, verdict.queue_id) == (VerdictKind.SENT, "250", "2.0.0", "1")
    assert server.writes == [
        b"MAIL FROM:<news@example.com>\r\n",
        b"RCPT TO:<ann@example.com>\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\nHello\r\n.\r\n",
    ]
    assert connection.usable


@pytest.mark.parametrize("answered", [0, 1, 2])
@pytest.mark.parametrize("end", [LOST, EOF])
def test_a_connection_lost_before_the_dot_means_try_again(answered: int, end: str) -> None:
    verdict = one([*GOOD[:answered], [end]])
    assert verdict.kind is VerdictKind.RETRY
    assert verdict.outcome is None
    assert verdict.phase is [Phase.MAIL, Phase.RCPT, Phase.DATA][answered]


@pytest.mark.parametrize("end", [[LOST], [EOF], [b"250 O", LOST], [b"25", EOF], [b"hello\r\n"]])
def test_a_connection_lost_after_the_dot_leaves_the_mail_uncertain(end: list[Event]) -> None:
    [verdict], _, connection = converse([*GOOD[:3], end])
    assert verdict.kind is VerdictKind.UNCERTAIN
    assert not connection.usable


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_no_answer_in_time_before_the_dot_means_try_again(answered: int) -> None:
    verdict = one(GOOD[:answered], timeouts=QUICK, then_lost=False)
    assert verdict.kind is VerdictKind.RETRY
    assert "did not answer within 0.05 s" in (verdict.reply or "")


def test_no_answer_in_time_after_the_dot_leaves_the_mail_uncertain() -> None:
    verdict = one(GOOD[:3], timeouts=QUICK, then_lost=False)
    assert verdict.kind is VerdictKind.UNCERTAIN


async def test_a_relay_that_drips_its_answer_does_not_get_more_time_for_it() -> None:
    script = Script([[]], then_lost=False)
    connection = Connection(script, Extensions(), timeouts=QUICK)
    sending = asyncio.create_task(connection.send(mail()))
    for octet in b"250-so and so\r\n" * 100:  # for more than a second
        if sending.done():
            break
        await asyncio.sleep(0.001)
        if not script.closing:
            script._protocol.data_received(bytes([octet]))
    assert sending.done()
    assert "did not answer within 0.05 s" in (sending.result().reply or "")


async def test_who_leaves_when_a_verdict_comes_still_ends_what_the_relay_began() -> None:
    script = Script([[b"250 Ok\r\n550 5.1.1 unknown\r\n354 go\r\n"], [b"554 5.5.1 nobody\r\n"], []], then_lost=False)
    connection = Connection(script, Extensions(pipelining=True), timeouts=QUICK, pipelining=Pipelining.GROUPED)
    closing: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()
    connection.submit(mail(), lambda _: closing.set_result(asyncio.create_task(connection.close())))
    await (await closing)
    assert script.writes[1:] == [b".\r\n", b"QUIT\r\n"], "QUIT is no line of a message"


@pytest.mark.parametrize(
    ("answered", "kind"), [(0, VerdictKind.RETRY), (2, VerdictKind.RETRY), (3, VerdictKind.UNCERTAIN)]
)
def test_abort_ends_the_send_under_way_with_its_verdict(answered: int, kind: VerdictKind) -> None:
    verdict = one(GOOD[:answered], then_lost=False, meanwhile=lambda connection: connection.abort("lease lost"))
    assert verdict.kind is kind
    assert "lease lost" in (verdict.reply or "")


def test_421_out_of_turn_is_understood_before_the_next_mail() -> None:
    script = [*GOOD[:3], [b"250 Ok\r\n421 4.3.0 going down\r\n"]]
    [sent], server, connection = converse(script, mail(), mail())
    assert sent.kind is VerdictKind.SENT
    assert len(server.writes) == 4, "nothing was written after the goodbye"
    assert not connection.usable


def test_a_reply_that_nobody_asked_for_is_never_taken_for_the_next_ones() -> None:
    script = [*GOOD[:3], [b"250 Ok\r\n250 Ok\r\n"]]
    [sent], server, connection = converse(script, mail(), mail())
    assert sent.kind is VerdictKind.SENT
    assert len(server.writes) == 4
    assert not connection.usable


def test_a_refusal_in_the_middle_of_a_long_message_counts_and_its_dot_is_never_written() -> None:
    long = mail(b"x" * 76 + b"\r\n" + b"y" * 3 * BLOCK_BYTES + b"\r\n")
    script = [*GOOD[:3], [], [b"552 5.3.4 too big\r\n"]]
    [verdict], server, connection = converse(script, long)
    assert (verdict.kind, verdict.code) == (VerdictKind.FAILED, "552")
    assert server.after_dot is None
    assert not connection.usable


def test_a_long_message_lost_half_way_leaves_no_doubt() -> None:
    long = mail(b"y" * 3 * BLOCK_BYTES + b"\r\n")
    [verdict], server, _ = converse([*GOOD[:3], [], [LOST]], long)
    assert verdict.kind is VerdictKind.RETRY
    assert server.after_dot is None


def test_a_long_message_arrives_whole() -> None:
    body = b".y\r\n" * BLOCK_BYTES
    script = [*GOOD[:3], *[[] for _ in range(5)], GOOD[3]]
    [verdict], server, _ = converse(script, mail(body))
    assert verdict.kind is VerdictKind.SENT
    assert b"".join(server.writes[3:]) == b"..y\r\n" * BLOCK_BYTES + b".\r\n"


@pytest.mark.parametrize("answer", [b"250 " + b"x" * MAX_LINE_BYTES * 2, b"250-x\r\n" * MAX_REPLY_BYTES])
def test_a_reply_without_end_is_cut_off(answer: bytes) -> None:
    [verdict], _, connection = converse([[answer]], then_lost=False)
    assert verdict.kind is VerdictKind.RETRY
    assert not connection.usable


def test_a_multi_line_reply_is_read_as_one_with_its_enhanced_code() -> None:
    verdict = one([GOOD[0], [b"550-5.1.1 The account\r\n550 5.1.1 does not exist\r\n"]])
    assert (verdict.code, verdict.enhanced, verdict.suppress) == ("550", "5.1.1", True)
    assert verdict.reply == "5.1.1 The account 5.1.1 does not exist"


def test_a_recipients_address_is_not_in_the_verdict() -> None:
    verdict = one([GOOD[0], [b"550 5.1.1 <ann@example.com>: no such user, Ann@example.COM\r\n"]])
    assert verdict.reply == "5.1.1 <recipient>: no such user, <recipient>"


def test_a_connection_is_worn_out_after_its_messages() -> None:
    async def run() -> None:
        connection = Connection(Script(GOOD), Extensions(), messages=1)
        assert connection.usable
        await connection.send(mail())
        assert not connection.usable

    asyncio.run(run())


def test_a_connection_that_lay_idle_too_long_is_not_used_again() -> None:
    async def run() -> None:
        connection = Connection(Script(GOOD), Extensions(), idle_seconds=0.0)
        assert not connection.usable

    asyncio.run(run())


def test_a_second_mail_at_the_same_time_is_refused() -> None:
    async def run() -> None:
        connection = Connection(Script(GOOD[:1], then_lost=False), Extensions())
        first = asyncio.create_task(connection.send(mail()))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already sending"):
            await connection.send(mail())
        connection.abort()
        assert (await first).kind is VerdictKind.RETRY

    asyncio.run(run())


# --- the bytes ---------------------------------------------------------------------------------------


@given(lines=st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"x", b"QUIT", b"\xff."]), max_size=12))
def test_stuffed_dots_come_off_again_and_no_line_is_a_lone_dot(lines: list[bytes]) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    wire = stuffed(body)
    assert b".\r\n" not in [line + b"\r\n" for line in wire.split(b"\r\n")[:-1]]
    assert b"".join(line.removeprefix(b".") + b"\r\n" for line in wire.split(b"\r\n")[:-1]) == body


def test_a_message_without_a_last_line_end_gets_one() -> None:
    assert stuffed(b"x\r\n.") == b"x\r\n..\r\n"
    assert stuffed(b"") == b""


@pytest.mark.parametrize("body", [b"a\n.\nb\r\n", b"a\r.\r\nb\r\n", b"a\r\n.\n\r\n", b"a\r\r\n"])
def test_a_bare_cr_or_lf_never_leaves_the_house(body: bytes) -> None:
    [verdict], server, connection = converse(GOOD, mail(body))
    assert (verdict.kind, verdict.enhanced) == (VerdictKind.FAILED, "5.6.0")
    assert server.writes == []
    assert connection.usable


@pytest.mark.parametrize(
    "recipient", ["a@b>\r\nRCPT TO:<c@d", "a@b> NOTIFY=NEVER <", "ann\x00@b", "änn@b", "a\x7f@b", "a\n@b"]
)
def test_an_address_that_could_be_more_than_an_address_never_leaves_the_house(recipient: str) -> None:
    [verdict], server, _ = converse(GOOD, mail(recipient=recipient))
    assert (verdict.kind, verdict.enhanced) == (VerdictKind.FAILED, "5.1.3")
    assert server.writes == []


def test_a_sender_that_could_be_more_than_an_address_is_the_campaigns_fault() -> None:
    [verdict], server, _ = converse(GOOD, Mail("a@b>\r\nQUIT", "ann@example.com", "<1@x>", b"x\r\n"))
    assert verdict.kind is VerdictKind.SENDER_FAULT
    assert server.writes == []


def test_8bit_is_declared_where_it_is_offered_and_sent_nowhere_else() -> None:
    body = "Subject: x\r\n\r\nGrüße\r\n".encode()
    _, server, _ = converse(GOOD, mail(body), extensions=Extensions(eight_bit=True))
    assert server.writes[0] == b"MAIL FROM:<news@example.com> BODY=8BITMIME\r\n"
    [verdict], server, _ = converse(GOOD, mail(body))
    assert (verdict.kind, verdict.enhanced) == (VerdictKind.FAILED, "5.6.3")
    assert server.writes == []


def test_size_is_declared_where_it_is_offered_and_a_message_over_the_limit_fails_alone() -> None:
    _, server, _ = converse(GOOD, mail(b"x\r\n"), extensions=Extensions.of({"size": "1000"}))
    assert server.writes[0] == b"MAIL FROM:<news@example.com> SIZE=3\r\n"
    [verdict], server, _ = converse(GOOD, mail(b"x" * 1000 + b"\r\n"), extensions=Extensions.of({"size": "1000"}))
    assert (verdict.kind, verdict.enhanced) == (VerdictKind.FAILED, "5.3.4")
    assert server.writes == []


@pytest.mark.parametrize(("offered", "limit"), [("", None), ("0", None), ("abc", None), ("10 20", None), ("99", 99)])
def test_a_size_limit_is_read_as_rfc_1870_says(offered: str, limit: int | None) -> None:
    extensions = Extensions.of({"size": offered})
    assert extensions.size
    assert extensions.size_limit == limit
