"""The table of replies: one test a rule, named after it. What each reply must mean stands here a second time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.smtp import Phase, Verdict, VerdictKind
from mailfleet_sender.smtp.replies import RULES, Meaning, Reply, classify, enhanced_code, queue_id
from mailfleet_sender.smtp.scrub import scrubbed

MAILING = [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT]
ABOUT_RECIPIENT = [Phase.RCPT, Phase.DATA, Phase.DOT]


def reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    return Reply(int(code), rest, enhanced_code(int(code), rest))


def meaning(phase: Phase, text: str) -> Meaning:
    return classify(phase, reply(text)).meaning


def verdict(phase: Phase, text: str, recipient: str = "ann@example.com") -> Verdict | None:
    return Verdict.of(phase, reply(text), recipient=recipient)


@pytest.mark.parametrize("code", ["250", "200", "252", "299"])
def test_only_2xx_to_the_dot_is_sent(code: str) -> None:
    for phase in Phase:
        sent = meaning(phase, f"{code} 2.0.0 Ok") is Meaning.SENT
        assert sent is (phase is Phase.DOT)


def test_354_goes_on_after_data_only_and_leaves_a_message_in_doubt_after_the_dot() -> None:
    assert meaning(Phase.DATA, "354 go ahead") is Meaning.GO_ON
    assert meaning(Phase.MAIL, "354 go ahead") is Meaning.GARBAGE
    assert meaning(Phase.RCPT, "354 go ahead") is Meaning.GARBAGE
    assert meaning(Phase.DOT, "354 go ahead") is Meaning.UNKNOWABLE


def test_2xx_to_data_is_garbage_since_the_message_was_not_asked_for() -> None:
    assert meaning(Phase.DATA, "250 Ok") is Meaning.GARBAGE


@pytest.mark.parametrize("phase", list(Phase))
def test_421_closes_the_connection_and_is_no_outcome(phase: Phase) -> None:
    assert meaning(phase, "421 4.4.2 timeout exceeded") is Meaning.CLOSING
    closed = verdict(phase, "421 4.4.2 timeout exceeded")
    assert closed is not None
    assert closed.outcome is None
    assert not closed.keeps_connection


@pytest.mark.parametrize("phase", MAILING)
@pytest.mark.parametrize(
    "text",
    [
        "450 4.7.0 try later",
        "421 4.7.28 unusual rate of unsolicited mail from your IP",
        "451 4.3.2 Please try again later",
        "454 Throttling failure: Maximum sending rate exceeded.",
        "450 4.7.1 Error: too much mail from 192.0.2.1",
        "452 4.2.2 message rate exceeded",
    ],
)
def test_throttling_slows_and_is_no_outcome(phase: Phase, text: str) -> None:
    throttled = verdict(phase, text)
    assert throttled is not None
    assert throttled.throttled
    assert throttled.kind is VerdictKind.RETRY
    assert throttled.outcome is None
    assert throttled.keeps_connection is not text.startswith("421")


@pytest.mark.parametrize("phase", [Phase.STARTTLS, Phase.AUTH])
def test_454_at_starttls_or_auth_is_no_throttling(phase: Phase) -> None:
    assert meaning(phase, "454 4.7.0 Temporary authentication failure") is Meaning.UNAVAILABLE


def test_an_exhausted_quota_is_not_mere_throttling() -> None:
    exhausted = verdict(Phase.DATA, "454 Throttling failure: Daily message quota exceeded.")
    assert exhausted is not None
    assert exhausted.quota_exhausted
    assert not exhausted.throttled
    assert exhausted.kind is VerdictKind.RETRY


def test_greylisting_is_deferred_even_with_a_code_of_throttling() -> None:
    assert meaning(Phase.RCPT, "451 4.7.0 Greylisted, try again in 300 s") is Meaning.DEFERRED
    assert meaning(Phase.RCPT, "450 4.2.0 Recipient address rejected: Greylisting in effect") is Meaning.DEFERRED


@pytest.mark.parametrize(
    "text", ["450 busy", "451 4.3.0 local error", "452 4.3.1 no space", "459 4.9.9 what", "450 no"]
)
@pytest.mark.parametrize("phase", MAILING)
def test_4xx_is_deferred(phase: Phase, text: str) -> None:
    later = verdict(phase, text)
    assert later is not None
    assert later.outcome is OutcomeKind.DEFERRED


def test_552_to_rcpt_is_deferred_but_to_the_dot_it_is_failed() -> None:
    assert meaning(Phase.RCPT, "552 5.2.2 mailbox full") is Meaning.DEFERRED
    assert meaning(Phase.RCPT, "552 too many recipients") is Meaning.DEFERRED
    assert meaning(Phase.DOT, "552 5.3.4 message too big") is Meaning.FAILED


@pytest.mark.parametrize("phase", ABOUT_RECIPIENT)
@pytest.mark.parametrize("enhanced", ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"])
def test_no_such_address_is_failed_and_suppressed(phase: Phase, enhanced: str) -> None:
    failed = verdict(phase, f"550 {enhanced} no")
    assert failed is not None
    assert failed.outcome is OutcomeKind.FAILED
    assert failed.suppress
    assert failed.enhanced == enhanced


@pytest.mark.parametrize(
    ("text", "suppressed"),
    [
        ("550 User unknown", True),
        ("550 No such user here", True),
        ("553 mailbox ann does not exist", True),
        ("550 Requested action not taken: mailbox unavailable", False),
        ("550 sender address not found", False),
        ("550 5.2.1 user unknown", False),
        ("554 user unknown", False),
    ],
)
def test_no_such_address_in_words_counts_only_without_an_enhanced_code(text: str, suppressed: bool) -> None:
    failed = verdict(Phase.RCPT, text)
    assert failed is not None
    assert failed.outcome is OutcomeKind.FAILED
    assert failed.suppress is suppressed


@pytest.mark.parametrize("phase", ABOUT_RECIPIENT)
def test_5_7_x_is_failed_by_policy_and_never_suppressed(phase: Phase) -> None:
    failed = verdict(phase, "550 5.7.26 not authenticated")
    assert failed is not None
    assert failed.outcome is OutcomeKind.FAILED
    assert failed.policy
    assert not failed.suppress


@pytest.mark.parametrize(
    "text", ["550 no", "551 not local", "553 no", "554 5.6.0 spam", "550 5.2.1 disabled", "571 no"]
)
@pytest.mark.parametrize("phase", ABOUT_RECIPIENT)
def test_any_other_5xx_is_failed_and_not_suppressed(phase: Phase, text: str) -> None:
    failed = verdict(phase, text)
    assert failed is not None
    assert failed.outcome is OutcomeKind.FAILED
    assert not failed.suppress
    assert not failed.policy


@pytest.mark.parametrize("phase", MAILING)
@pytest.mark.parametrize(
    "text",
    [
        "530 5.7.0 Authentication required",
        "535 5.7.8 bad credentials",
        "534 5.7.9 mechanism too weak",
        "538 5.7.11 encryption required",
        "550 5.1.7 bad sender",
        "501 5.1.7 bad sender syntax",
        "553 5.1.8 sender domain does not exist",
        "554 Message rejected: Email address is not verified. The following identities failed the check",
    ],
)
def test_a_refusal_of_us_stops_the_campaign_and_burns_nobody(phase: Phase, text: str) -> None:
    fault = verdict(phase, text)
    assert fault is not None
    assert fault.kind is VerdictKind.SENDER_FAULT
    assert fault.outcome is None


@pytest.mark.parametrize("text", ["550 no", "554 5.7.1 denied", "553 sender not allowed", "552 5.3.4 too big"])
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.AUTH])
def test_any_5xx_to_mail_or_auth_refuses_us(phase: Phase, text: str) -> None:
    assert meaning(phase, text) is Meaning.SENDER_FAULT


@pytest.mark.parametrize("code", ["500", "501", "502", "503", "504", "555"])
@pytest.mark.parametrize("phase", MAILING)
def test_500_to_504_and_555_are_never_a_recipients_outcome(phase: Phase, code: str) -> None:
    misunderstood = verdict(phase, f"{code} 5.5.1 what?")
    assert misunderstood is not None
    assert misunderstood.outcome is None
    assert misunderstood.kind is VerdictKind.RETRY
    assert misunderstood.misunderstood
    assert not misunderstood.keeps_connection


def test_a_syntax_error_that_is_the_addresss_own_is_that_recipients() -> None:
    assert meaning(Phase.RCPT, "501 5.1.3 Bad recipient address syntax") is Meaning.UNKNOWN_RECIPIENT
    assert meaning(Phase.MAIL, "501 5.1.3 Bad address syntax") is Meaning.MISUNDERSTOOD


def test_a_refusal_before_mail_is_the_relays_state() -> None:
    for phase in (Phase.CONNECT, Phase.EHLO, Phase.STARTTLS):
        assert meaning(phase, "554 5.7.1 no service here") is Meaning.UNAVAILABLE
        assert meaning(phase, "450 4.3.0 later") is Meaning.UNAVAILABLE


@given(phase=st.sampled_from(list(Phase)), code=st.integers(200, 559), text=st.text(max_size=60))
def test_every_reply_has_one_meaning_and_only_its_own_2xx_makes_a_mail_sent(phase: Phase, code: int, text: str) -> None:
    rule = classify(phase, Reply(code, text, enhanced_code(code, text)))
    assert (rule.meaning is Meaning.SENT) == (phase is Phase.DOT and 200 <= code < 300)
    assert rule.meaning is not Meaning.UNKNOWABLE or phase is Phase.DOT
    assert rule.meaning is not Meaning.GO_ON or phase is not Phase.DOT


def test_every_rule_is_reached_by_some_reply() -> None:
    texts = [
        "", "4.7.0", "4.3.2", "5.1.1", "5.1.7", "5.7.1", "greylisted", "throttled", "daily message quota exceeded",
        "user unknown", "address is not verified", "5.2.2",
    ]  # fmt: skip
    reached = {
        classify(phase, Reply(code, text, enhanced_code(code, text))).name
        for phase in Phase
        for code in range(200, 560)
        for text in texts
    }
    assert reached == {rule.name for rule in RULES}


def test_an_enhanced_code_counts_only_if_its_class_agrees_with_the_reply() -> None:
    assert enhanced_code(550, "5.1.1 no such user") == "5.1.1"
    assert enhanced_code(550, "4.1.1 no such user") is None
    assert enhanced_code(550, "5.1.1000 no") is None
    assert enhanced_code(550, "see 5.1.1") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("250 2.0.0 Ok: queued as 4Fk2Zx1q2Wz", "4Fk2Zx1q2Wz"),
        ("250 2.0.0 Ok: queued as 4Fk2Zx1q2Wz, and more", "4Fk2Zx1q2Wz"),
        ("250 2.0.0 Ok: queued as", None),
        ("250 OK id=1rABcd-0001Xy-2Z", "1rABcd-0001Xy-2Z"),
        ("250 2.6.0 <a@b> [InternalId=8731, Hostname=x] Queued mail for delivery", "8731"),
        ("250 2.0.0 3AO3kq012345 Message accepted for delivery", "3AO3kq012345"),
        ("250 Ok 0102018b4c7d1e2f-1a2b3c4d-0000-000000", "0102018b4c7d1e2f-1a2b3c4d-0000-000000"),
        ("250 2.0.0 Ok", None),
        ("250", None),
    ],
)
def test_the_queue_id_is_kept_as_the_usual_relays_tell_it(text: str, name: str | None) -> None:
    assert queue_id(reply(text)) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("5.1.1 <Ann@Example.com>: Recipient address rejected", "5.1.1 <recipient>: Recipient address rejected"),
        ("user ann@example.com unknown", "user <recipient> unknown"),
        ('"ann b"@example.com is unknown', "<recipient> is unknown"),
        ("ann@[192.0.2.1] unknown", "<recipient> unknown"),
        ("müller@exämple.com unknown", "<recipient> unknown"),
        ("<a@example.com>,<b@example.com>", "<recipient>,<recipient>"),
        ("tab\tand\x1b[31m red\x00", "tab and [31m red"),
        ("no address here", "no address here"),
    ],
)
def test_addresses_and_control_characters_leave_reply_texts(text: str, shown: str) -> None:
    assert scrubbed(text, "other@example.org") == shown


@given(
    before=st.text(max_size=3000),
    local=st.text("abcdefghijklmnopqrstuvwxyz0123456789.+-_=", min_size=1, max_size=64),
    after=st.text(max_size=300),
)
def test_a_recipients_address_is_never_seen_and_the_text_is_never_long(before: str, local: str, after: str) -> None:
    address = f"{local}@example.com"
    shown = scrubbed(f"{before} {address} {after}", address)
    assert address not in shown.lower()
    assert len(shown.encode()) <= 256
