"""The protocol in all four modes against a model of a relay that may do anything at any command.

500 examples for each mode; `make nightly` has 10,000.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfleet_sender.contract.relay import Pipelining
from mailfleet_sender.message import Mail
from mailfleet_sender.smtp import Connection, Extensions, Mode, Modes, Timeouts, Verdict, VerdictKind, engine
from mailfleet_sender.smtp.replies import Reply
from mailfleet_sender.smtp.transaction import MAIL, RCPT, RESET, Step, Transaction
from smtp_model import CLOSE, CUT, FINE, SILENT, TAKE_AND_CLOSE, TAKE_AND_CUT, Act, Habit, Relay, recipient_of

EXAMPLES = int(os.environ.get("MAILFLEET_EXAMPLES", "500"))
OFFERED = Extensions(pipelining=True, chunking=True)
LONG = 200
"""What is a long message here: the block of 64 KiB made small."""
TURNS = 3_000
"""More turns of the loop than any conversation here takes."""

REFUSALS = [
    b"250 Ok\r\n", b"250-2.0.0 very\r\n250 2.0.0 well\r\n", b"354 go\r\n", b"421 4.3.0 going\r\n",
    b"450 4.2.0 later\r\n", b"451 4.7.0 slow\r\n", b"452 4.3.1 full\r\n", b"500 5.5.2 what\r\n",
    b"501 5.5.4 how\r\n", b"503 5.5.1 order\r\n", b"550 5.1.1 who\r\n", b"552 5.3.4 big\r\n", b"554 5.7.1 no\r\n",
    b"530 5.7.0 auth\r\n", b"555 5.5.4 param\r\n", b"rubbish\r\n", b"250-Ok\r\n550 no\r\n",
]  # fmt: skip
GOING, LATER, UNKNOWN = REFUSALS[3], REFUSALS[4], REFUSALS[10]
acts = st.lists(
    st.one_of(
        st.just(FINE), st.just(FINE), st.just(FINE), st.just(FINE),
        st.sampled_from(REFUSALS),
        st.sampled_from([FINE, SILENT, CLOSE, CUT, TAKE_AND_CLOSE, TAKE_AND_CUT]),
    ),
    max_size=40,
)  # fmt: skip


def mail(number: int, lines: int) -> Mail:
    sender = f"s{number}@example.com"
    body = f"Subject: {number}\r\n\r\n" + "..dots and RSET\r\n.\r\n" * lines + f"END {sender}\r\n"
    return Mail(sender, recipient_of(sender), f"<{number}@example.com>", body.encode())


async def converse(
    mode: Mode, mails: list[Mail], relay: Relay, *, proven: bool
) -> tuple[dict[str, Verdict], Connection, Modes]:
    """Send mails over one connection, as the delivery loop does: each as soon as there is room."""
    modes = Modes()
    modes.proven = proven
    asked = {m: Pipelining(m.name.capitalize()) for m in Mode}[mode]
    connection = Connection(relay, OFFERED, pipelining=asked, modes=modes)
    assert connection.mode is mode
    verdicts: dict[str, Verdict] = {}
    left = deque(mails)

    def begin(_: object) -> None:
        while left and connection.usable and connection.room:
            each = left.popleft()

            def ended(verdict: Verdict, sender: str = each.sender) -> None:
                assert sender not in verdicts, "two verdicts"
                verdicts[sender] = verdict
                begin(None)

            connection.submit(each, ended)
            assert connection.under_way <= connection.depth or connection.mode is Mode.CHUNKING

    connection.on_room(begin)
    begin(None)
    quiet = 0
    for _ in range(TURNS):
        before = (len(relay.written), len(verdicts), connection.under_way)
        await asyncio.sleep(0)
        quiet = quiet + 1 if before == (len(relay.written), len(verdicts), connection.under_way) else 0
        over = not connection.under_way and not (left and connection.usable)
        if quiet > (20 if over else 300):  # the relay hears what was said last, too
            break
    connection.abort("the end of the test")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert connection.under_way == 0, "a mail without a verdict"
    return verdicts, connection, modes


def judge(relay: Relay, sender: str, verdict: Verdict) -> None:
    """Whether a verdict is what has to be said, by what the relay knows of the mail."""
    case, handed_over = relay.cases.get(sender), relay.handed_over(sender)
    if not handed_over:
        assert verdict.kind not in (VerdictKind.SENT, VerdictKind.UNCERTAIN), "its message was not handed over"
        return
    if case is None:  # the relay never came to it
        assert verdict.kind is VerdictKind.UNCERTAIN or (relay.goodbye and verdict.kind is VerdictKind.RETRY)
        return
    assert case.taken <= 1
    accepted = [code is not None and code // 100 == 2 for code in (case.mail, case.rcpt)]
    if verdict.kind is VerdictKind.SENT:
        assert all(accepted), "its own envelope was not accepted"
        assert case.end is not None
        assert case.end // 100 == 2, "its own message was not accepted"
        assert case.taken == 1
    elif case.taken:
        assert verdict.kind is VerdictKind.UNCERTAIN, "the relay has it"
    if all(accepted) and case.end is None and not relay.goodbye:
        assert verdict.kind is VerdictKind.UNCERTAIN, "lost after the dot"
    if all(accepted) and case.end is not None and case.end >= 400:
        assert verdict.kind not in (VerdictKind.SENT, VerdictKind.UNCERTAIN), "a definite refusal"


@pytest.mark.parametrize("mode", Mode)
@settings(max_examples=EXAMPLES)
@given(
    does=acts,
    sizes=st.lists(st.sampled_from([0, 0, 0, 1, 20]), min_size=1, max_size=12),
    habits=st.sampled_from([Habit(0), Habit(0), *Habit]),
    pieces=st.lists(st.sampled_from([1, 3, 7, 20, 60, 1000]), min_size=1, max_size=5),
    stops=st.lists(st.integers(1, 4), max_size=3),
    proven=st.booleans(),
)
@example(  # 354 after MAIL was refused, RCPT accepted: a lone dot would be an empty mail under the first one's sender
    does=[FINE, FINE, FINE, LATER, LATER], sizes=[0, 0], habits=Habit.KEEPS, pieces=[1000], stops=[], proven=True
)
@example(  # behind a 421 the relay went on: what has no answer then is in doubt
    does=[GOING, FINE, FINE, FINE, FINE, FINE, SILENT],
    sizes=[0, 0], habits=Habit.STAYS, pieces=[1000], stops=[], proven=True,
)  # fmt: skip
def test_every_mail_has_one_verdict_and_it_is_the_true_one(
    mode: Mode, does: list[Act], sizes: list[int], habits: Habit, pieces: list[int], stops: list[int], proven: bool
) -> None:
    async def run() -> None:
        relay = Relay(deque(does), habits, pieces, stops)
        mails = [mail(number, lines) for number, lines in enumerate(sizes)]
        with patch.object(engine, "BLOCK_BYTES", LONG):
            verdicts, _, _ = await converse(mode, mails, relay, proven=proven)
        assert relay.strays == [], "a message went under another's envelope"
        for sender, verdict in verdicts.items():
            judge(relay, sender, verdict)
        if not does:
            assert [v.kind for v in verdicts.values()] == [VerdictKind.SENT] * len(sizes)

    asyncio.run(run())


def reply(code: int) -> Reply:
    return Reply(code, "words")


@pytest.mark.parametrize(
    ("said", "end", "kind", "what"),
    [
        ([(MAIL, 250), (RCPT, 250)], 250, VerdictKind.SENT, "as one hopes for"),
        ([(MAIL, 250), (RCPT, 250)], 354, VerdictKind.UNCERTAIN, "no answer to the end of a message"),
        ([(MAIL, 250), (RCPT, 550)], 250, VerdictKind.FAILED, "this 250 is nobody's: its recipient was refused"),
        ([(MAIL, 451), (RCPT, 503)], 250, VerdictKind.DEFERRED, "the same"),
        ([(MAIL, 503), (RCPT, 250)], 250, VerdictKind.UNCERTAIN, "taken under whose sender?"),
        ([(MAIL, 503), (RCPT, 250)], 550, VerdictKind.RETRY, "not taken, whoever's it was"),
        ([(RESET, 500), (MAIL, 250), (RCPT, 250)], 250, VerdictKind.UNCERTAIN, "taken, with whom else?"),
        ([(MAIL, 250), (RCPT, 550)], None, VerdictKind.FAILED, "its recipient was refused"),
        ([(MAIL, 451)], None, VerdictKind.DEFERRED, "without MAIL there is no transaction"),
        ([(MAIL, 503)], None, VerdictKind.UNCERTAIN, "the relay has an open transaction"),
        ([(RESET, 500)], None, VerdictKind.UNCERTAIN, "the relay may have an open transaction"),
        ([(MAIL, 503), (RCPT, 250)], None, VerdictKind.UNCERTAIN, "the relay has an open transaction"),
        ([(MAIL, 250), (RCPT, 354)], None, VerdictKind.UNCERTAIN, "no answer to RCPT"),
        ([(MAIL, 250), (RCPT, 250)], None, VerdictKind.UNCERTAIN, "lost after the end"),
    ],
)
async def test_what_the_relay_said_before_decides_what_its_last_word_means(
    said: list[tuple[Step, int]], end: int | None, kind: VerdictKind, what: str
) -> None:
    transaction = Transaction(b"", b"", b"", "r@example.com", print)
    transaction.handed_over = True
    for step, code in said:
        transaction.answered(step, reply(code))
    verdict = transaction.lost("lost", None, closed=False) if end is None else transaction.finished(reply(end))
    assert verdict.kind is kind, what


@pytest.mark.parametrize(("closed", "kind"), [(True, VerdictKind.RETRY), (False, VerdictKind.UNCERTAIN)])
async def test_behind_a_421_nothing_was_done_if_the_relay_kept_its_word(closed: bool, kind: VerdictKind) -> None:
    transaction = Transaction(b"", b"", b"", "r@example.com", print)
    transaction.handed_over = True
    assert transaction.lost("lost", reply(421), closed=closed).kind is kind


@pytest.mark.parametrize(
    ("asked", "offered", "mode"),
    [
        ("Auto", "pipelining chunking", Mode.CHUNKING), ("Auto", "pipelining", Mode.PIPELINED),
        ("Auto", "", Mode.SEQUENTIAL), ("Auto", "chunking", Mode.SEQUENTIAL),
        ("Chunking", "pipelining", Mode.PIPELINED),
        ("Pipelined", "pipelining chunking", Mode.PIPELINED), ("Grouped", "pipelining chunking", Mode.GROUPED),
        ("Grouped", "", Mode.SEQUENTIAL), ("Sequential", "pipelining chunking", Mode.SEQUENTIAL),
    ],
)  # fmt: skip
def test_the_mode_is_what_is_offered_and_no_more_than_what_is_asked_for(asked: str, offered: str, mode: Mode) -> None:
    assert Modes().choose(Pipelining(asked), Extensions.of(dict.fromkeys(offered.split(), ""))) is mode


@pytest.mark.parametrize("mode", [m for m in Mode if m > Mode.SEQUENTIAL])
@pytest.mark.parametrize("act", [b"500 5.5.2 what\r\n", b"555 5.5.4 how\r\n", b"rubbish\r\n", b"354 go\r\n"])
async def test_a_relay_that_does_not_understand_gets_a_simpler_mode_from_then_on(mode: Mode, act: bytes) -> None:
    verdicts, _, modes = await converse(mode, [mail(0, 0)], Relay(deque([act])), proven=False)
    doubtful = mode is Mode.CHUNKING and act[:1] in b"r3"  # the message was on its way, and this is no answer
    assert [v.kind for v in verdicts.values()] == [VerdictKind.UNCERTAIN if doubtful else VerdictKind.RETRY]
    assert modes.highest == mode - 1
    assert modes.choose(Pipelining.AUTO, OFFERED) == mode - 1


async def test_until_chunking_is_proven_one_mail_at_a_time_is_risked() -> None:
    relay = Relay(deque([FINE, FINE, CLOSE]))
    verdicts, _, _ = await converse(Mode.CHUNKING, [mail(n, 0) for n in range(5)], relay, proven=False)
    assert [v.kind for v in verdicts.values()] == [VerdictKind.UNCERTAIN]


@pytest.mark.parametrize(("mode", "writes"), [(Mode.SEQUENTIAL, 12), (Mode.GROUPED, 6), (Mode.PIPELINED, 4)])
async def test_each_mode_saves_round_trips(mode: Mode, writes: int) -> None:
    relay = Relay(deque())
    count = 0
    real = relay.write

    def write(data: bytes) -> None:
        nonlocal count
        count += 1
        real(data)

    with patch.object(relay, "write", write):
        verdicts, _, _ = await converse(mode, [mail(n, 0) for n in range(3)], relay, proven=True)
    assert [v.kind for v in verdicts.values()] == [VerdictKind.SENT] * 3
    assert count == writes


async def test_chunking_does_not_wait_at_all() -> None:
    relay = Relay(deque())
    written: list[bytes] = []
    with patch.object(relay, "write", written.append):
        await converse(Mode.CHUNKING, [mail(n, 0) for n in range(12)], relay, proven=True)
    assert [part.count(b"BDAT ") for part in written] == [8], "eight mails in one write, and none more before an answer"


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("habits", [Habit(0), Habit.GENEROUS])
@pytest.mark.parametrize("proven", [False, True])
async def test_a_refused_recipient_between_two_others_harms_neither(mode: Mode, habits: Habit, proven: bool) -> None:
    before = (
        4 if mode is Mode.CHUNKING and not proven else 5
    )  # commands before the second RCPT; proven: a RSET among them
    relay = Relay(deque([FINE] * before + [UNKNOWN]), habits)
    verdicts, _, _ = await converse(mode, [mail(n, 0) for n in range(3)], relay, proven=proven)
    assert [v.kind for v in verdicts.values()] == [VerdictKind.SENT, VerdictKind.FAILED, VerdictKind.SENT]
    assert relay.strays == []


@pytest.mark.parametrize(("answers", "falls"), [(0, True), (1, False)])
async def test_silence_from_the_start_is_taken_for_not_understanding(answers: int, falls: bool) -> None:
    modes = Modes()
    quick = Timeouts().at_most(0.05)
    relay = Relay(deque([FINE] * answers + [SILENT]))
    connection = Connection(relay, OFFERED, pipelining=Pipelining.PIPELINED, modes=modes, timeouts=quick)
    verdict = await connection.send(mail(0, 0))
    assert verdict.kind is VerdictKind.RETRY
    assert "did not answer within 0.05 s" in (verdict.reply or "")
    assert (modes.highest < Mode.PIPELINED) is falls
