"""The oracle itself: what it counts is true, also when it is killed."""

from __future__ import annotations

import smtplib
import urllib.error
from typing import TYPE_CHECKING

import pytest

from sink import Sink

if TYPE_CHECKING:
    from pathlib import Path


def send(sink: Sink, recipient: str, message_id: str = "<1@example.com>", body: str = "Hello") -> None:
    with smtplib.SMTP(sink.host, sink.port) as client:
        client.sendmail("news@example.com", [recipient], f"Message-ID: {message_id}\r\nSubject: x\r\n\r\n{body}\r\n")


def test_an_accepted_message_is_logged_with_all_that_identifies_it(sink: Sink) -> None:
    send(sink, "ann@example.com", "<7@example.com>", ".dot\r\n.\r\n..")
    [accepted] = sink.accepted()
    assert (accepted.recipient, accepted.sender, accepted.message_id) == (
        "ann@example.com",
        "news@example.com",
        "<7@example.com>",
    )
    [(recipient, body)] = sink.messages()
    assert recipient == "ann@example.com"
    assert body == b"Message-ID: <7@example.com>\r\nSubject: x\r\n\r\n.dot\r\n.\r\n..\r\n"
    assert accepted.size == len(body)


def test_a_line_that_is_just_being_written_is_not_read(sink: Sink) -> None:
    send(sink, "ann@example.com", "<1@x>")
    (whole,) = sink.log.read_text().splitlines(keepends=True)
    for end in (1, len(whole) // 2, len(whole) - 1):
        sink.log.write_text(whole + whole[:end])
        assert sink.recipients() == ["ann@example.com"]


def test_a_second_recipient_or_message_id_is_a_duplicate(sink: Sink) -> None:
    send(sink, "ann@example.com", "<1@x>")
    send(sink, "bob@example.com", "<2@x>")
    assert sink.summary().duplicates == 0
    send(sink, "ann@example.com", "<3@x>")
    send(sink, "eve@example.com", "<2@x>")
    summary = sink.summary()
    assert (summary.accepted, summary.recipients, summary.message_ids, summary.duplicates) == (4, 3, 3, 2)


def test_what_was_acknowledged_survives_kill_9_and_counts_after_a_restart(sink: Sink) -> None:
    for number in range(50):
        send(sink, f"user{number}@example.com", f"<{number}@x>")
    sink.kill()
    assert sink.recipients() == [f"user{number}@example.com" for number in range(50)]
    sink.start()
    send(sink, "user7@example.com", "<other@x>")
    summary = sink.summary()
    assert (summary.accepted, summary.duplicates) == (51, 1)


def test_the_peak_is_that_of_any_second_and_since_leaves_out_what_came_before(sink: Sink) -> None:
    lines = [(0.0, "a"), (0.9, "b"), (1.1, "c"), (1.7, "d"), (5.0, "e")]
    sink.stop()
    sink.log.write_text(
        "".join(
            f'{{"time": {time}, "recipient": "{name}", "sender": "", "message_id": "", "size": 0, "sha256": ""}}\n'
            for time, name in lines
        )
    )
    sink.start()
    summary = sink.summary()
    assert (summary.accepted, summary.peak, summary.first, summary.last) == (5, 3, 0.0, 5.0)
    assert summary.mean_per_second == pytest.approx(0.8)
    assert sink.summary(since=1.0).accepted == 3


def test_a_rule_with_a_share_applies_to_that_share_and_with_a_seed_to_the_same(sink: Sink) -> None:
    def refused() -> list[int]:
        sink.reset()
        sink.behave({"phase": "rcpt", "reply": "451 4.7.1 later", "share": 0.3, "seed": 7})
        with smtplib.SMTP(sink.host, sink.port) as client:
            client.ehlo()
            client.mail("a@b")
            return [n for n in range(200) if client.rcpt(f"u{n}@example.com")[0] == 451]

    first = refused()
    assert 30 < len(first) < 90
    assert refused() == first


def test_a_rule_applies_once_a_recipient_or_so_many_times_or_to_some_recipients(sink: Sink) -> None:
    sink.behave(
        {"phase": "rcpt", "reply": "550 gone", "recipient": "^gone"},
        {"phase": "rcpt", "reply": "451 first", "once_per_recipient": True, "recipient": "^grey"},
        {"phase": "rcpt", "reply": "452 twice", "count": 2},
    )
    with smtplib.SMTP(sink.host, sink.port) as client:
        client.ehlo()
        client.mail("a@b")
        codes = [client.rcpt(f"{name}@x.test")[0] for name in ("gone", "grey1", "grey1", "grey2", "gone", *"abc")]
    assert codes == [550, 451, 452, 451, 550, 452, 250, 250]
    assert sink.applied() == [2, 2, 2]


def test_a_rule_that_cannot_be_meant_is_refused_and_the_old_ones_stay(sink: Sink) -> None:
    sink.behave({"phase": "rcpt", "reply": "550 no"})
    for rule in ({"phase": "lunch"}, {"phase": "rcpt", "anser": "x"}, {"phase": "rcpt", "then": "explode"}, {}):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            sink.behave(rule)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(sink, "ann@example.com")


def test_a_bare_lf_dot_does_not_end_a_message(sink: Sink) -> None:
    with smtplib.SMTP(sink.host, sink.port) as client:
        client.ehlo()
        client.mail("a@b")
        client.rcpt("c@d")
        client.docmd("DATA")
        client.send(b"x\n.\nMAIL FROM:<e@f>\r\n.\r\n")
        assert client.getreply()[0] == 250
    assert len(sink.accepted()) == 1


def test_all_messages_can_be_kept_in_a_folder(tmp_path: Path) -> None:
    with Sink(tmp_path, f"--folder={tmp_path / 'mail'}") as sink:
        send(sink, "ann@example.com")
        assert [file.read_bytes()[:10] for file in (tmp_path / "mail").iterdir()] == [b"Message-ID"]


def test_a_sink_that_offers_chunking_takes_messages_in_chunks(tmp_path: Path) -> None:
    with Sink(tmp_path, "--chunking") as sink, smtplib.SMTP(sink.host, sink.port) as client:
        client.ehlo()
        assert client.has_extn("chunking")
        client.mail("news@example.com")
        client.rcpt("ann@example.com")
        for command in (b"BDAT 8\r\n..\r\n.\r\nx", b"BDAT 2 LAST\r\n\r\n"):
            client.send(command)
            assert client.getreply()[0] == 250
        assert sink.messages() == [("ann@example.com", b"..\r\n.\r\nx\r\n")]
