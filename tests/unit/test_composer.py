"""The composer: hostile rows make one honest mail each, or are their recipient's failure."""

from __future__ import annotations

import email
import email.policy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfleet_sender.audience import Row
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.campaign import Message
from mailfleet_sender.errors import AddressError, ComposeError, PlanError, RenderError
from mailfleet_sender.message import Composer, LocalCode, content, headers

RUN = "marketing/autumn-news/1"
NEWS: dict[str, Any] = {
    "from": "Example Shop <news@example.com>",
    "replyTo": "Help <help@example.com>",
    "subject": "Hi {{ name }}!",
    "text": "Hello {{ name }},\n{{ note }}\nbye",
    "html": "<p>{{ name }}</p>",
    "headers": {"X-Note": "{{ note }}"},
    "unsubscribe": {"url": "https://example.com/u/{{ token }}", "mailto": "leave@example.com?subject={{ token }}"},
}
FIELDS = [
    "From", "To", "Subject", "Date", "Message-ID", "Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post", "X-Note",
    "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
]  # fmt: skip
BOUNDARY = f"=_{content.mark_of(RUN)}"
NASTY = st.lists(
    st.sampled_from(
        [
            "\r\n", "\n", "\r", ".", "\r\n.\r\n", "\n.\n", "\0", "\t", "\x85", "\u2028", "é", "=", "<", ">", "&", '"',
            f"--{BOUNDARY}", f"\n--{BOUNDARY}--\n", "RCPT TO:<x@example.com>", "\r\nBcc: x@example.com", "{{ name }}",
            "{% raw %}", "{{ 7 * 7 }}", "<script>alert(1)</script>", "=?utf-8?q?x?=", "From ", "QUIT\r\n", "%s",
            "x" * 90,
        ]
    )
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    max_size=12,
).map("".join)  # fmt: skip


def composer(**changes: Any) -> Composer:
    return Composer(Message.model_validate({**NEWS, **changes}), run_key=RUN, clock=lambda: 1_800_000_000.5)


def row(address: str = "ann@example.net", **values: object) -> Row:
    return Row("1", address, {"name": "Ann", "note": "n", "token": "t", **values})


def parse(body: bytes) -> email.message.EmailMessage:
    message = email.message_from_bytes(body, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def escaped(text: str) -> str:
    for char, entity in zip("&<>'\"", ["&amp;", "&lt;", "&gt;", "&#39;", "&#34;"], strict=True):
        text = text.replace(char, entity)
    return text


NEWS_COMPOSER = composer()


@settings(max_examples=400)
@given(NASTY, NASTY, NASTY, st.booleans())
@example("Zoë", ".", "", True)
@example(
    "\r\n.\r\nMAIL FROM:<x@example.com>\r\n", f"\r\n--{BOUNDARY}\r\nContent-Type: text/html\r\n\r\nforged", "\0", True
)
def test_whatever_a_row_holds_arrives_as_data_in_one_message(name: str, note: str, token: str, eight: bool) -> None:
    mail = NEWS_COMPOSER.compose(row(name=name, note=note, token=token), key="1", eight_bit=eight)
    assert mail.eight_bit == (not mail.body.isascii())
    assert eight or mail.body.isascii()
    assert not set(mail.body.replace(b"\r\n", b"")) & {0, 10, 13}
    assert mail.body.endswith(b"\r\n")
    assert max(map(len, mail.body.split(b"\r\n"))) <= 998
    message = parse(mail.body)
    assert not message.defects
    assert message.keys() == FIELDS
    assert message["To"] == "ann@example.net"
    assert str(message["Subject"]) == headers.one_line(f"Hi {name}!")
    assert str(message["X-Note"]) == headers.one_line(note)
    plain, html = message.iter_parts()
    assert plain.get_content() == lines(f"Hello {name},\n{note}\nbye")
    assert html.get_content() == lines(f"<p>{escaped(name)}</p>")
    assert [p.get_content_type() for p in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert not any(part.defects for part in message.walk())


@pytest.mark.parametrize("only", ["text", "html"])
@given(note=NASTY)
def test_a_message_with_one_body_has_no_boundary(only: str, note: str) -> None:
    made = composer(headers={}, **{"text": None, "html": None, only: "{{ note|safe }}"})
    message = parse(made.compose(row(note=note), key="1", eight_bit=False).body)
    assert message.get_content_type() == ("text/plain" if only == "text" else "text/html")
    assert message.get_content().removesuffix("\r\n") == lines(note).removesuffix("\r\n")


def test_the_envelope_is_the_bare_addresses() -> None:
    mail = composer(envelopeFrom="bounce@example.com").compose(row(), key="1", eight_bit=True)
    assert (mail.sender, mail.recipient) == ("bounce@example.com", "ann@example.net")
    assert composer().compose(row(), key="1", eight_bit=True).sender == "news@example.com"


def test_the_message_id_is_the_same_for_the_same_run_and_recipient_and_for_no_other() -> None:
    made = [composer().compose(row(), key=key, eight_bit=True).message_id for key in ("1", "1", "2")]
    other = Composer(Message.model_validate(NEWS), run_key="x").compose(row(), key="1", eight_bit=True).message_id
    assert made[0] == made[1]
    assert len({*made, other}) == 3
    mail = composer().compose(row(), key="1", eight_bit=True)
    assert parse(mail.body)["Message-ID"] == mail.message_id


def test_the_date_is_the_time_of_the_mail() -> None:
    date = parse(composer().compose(row(), key="1", eight_bit=True).body)["Date"].datetime
    assert date.timestamp() == 1_800_000_000


def test_answers_go_where_the_campaign_says() -> None:
    mail = composer(replyTo="{{ name }} <help@example.org>").compose(row(), key="1", eight_bit=True)
    assert parse(mail.body)["Reply-To"] == "Ann <help@example.org>"
    assert "Reply-To" not in parse(composer(replyTo=None).compose(row(), key="1", eight_bit=True).body)


@pytest.mark.parametrize(
    ("unsubscribe", "targets", "post"),
    [
        ({"url": "https://e.example/u/{{ token }}"}, "<https://e.example/u/t>", True),
        ({"url": "https://e.example/u", "mailto": "a@b.example"}, "<https://e.example/u>, <mailto:a@b.example>", True),
        ({"mailto": "leave@example.com"}, "<mailto:leave@example.com>", False),
        ({"url": "https://e.example/u", "oneClick": False}, "<https://e.example/u>", False),
    ],
)  # fmt: skip
def test_who_wants_no_more_mail_is_told_where_to_say_so(unsubscribe: dict[str, Any], targets: str, post: bool) -> None:
    message = parse(composer(unsubscribe=unsubscribe).compose(row(), key="1", eight_bit=True).body)
    assert " ".join(str(message["List-Unsubscribe"]).split()) == targets
    assert ("List-Unsubscribe-Post" in message) is post


def test_the_list_has_a_name_under_the_senders_domain() -> None:
    made = Composer(Message.model_validate(NEWS), run_key=RUN, list_id="autumn-news.marketing")
    assert parse(made.compose(row(), key="1", eight_bit=True).body)["List-Id"] == "<autumn-news.marketing.example.com>"


def test_complaints_are_sorted_by_campaign_however_long_its_names_are() -> None:
    feedback_id = ":".join(["c" * 63, "r" * 63, "n" * 63, "mailfleet"])
    made = Composer(Message.model_validate(NEWS), run_key=RUN, feedback_id=feedback_id)
    body = made.compose(row(), key="1", eight_bit=True).body
    assert f"\r\nFeedback-ID: {feedback_id}\r\n".encode() in body
    own = {**NEWS, "headers": {"feedback-id": "{{ token }}:mine"}}
    made = Composer(Message.model_validate(own), run_key=RUN, feedback_id=feedback_id)
    assert parse(made.compose(row(), key="1", eight_bit=True).body).get_all("Feedback-ID") == ["t:mine"]


@pytest.mark.parametrize("address", ["", "ann", "ann@example.net\r\nRCPT TO:<x@y.zz>", "ann@example.net> x"])
def test_an_address_that_is_none_is_its_recipients_failure(address: str) -> None:
    with pytest.raises(AddressError) as caught:
        composer().compose(row(address), key="1", eight_bit=True)
    assert caught.value.code == LocalCode.ADDRESS_INVALID


@pytest.mark.parametrize("value", ["", "x", "a@b.cc\r\nBcc: x@y.zz", "a@b.cc, x@y.zz", "a@b.cc> <x"])
def test_a_reply_address_from_the_row_is_checked_too(value: str) -> None:
    with pytest.raises(AddressError):
        composer(replyTo="{{ reply }}").compose(row(reply=value), key="1", eight_bit=True)


@given(NASTY)
def test_a_name_in_from_out_of_the_row_stays_a_name(name: str) -> None:
    made = composer(**{"from": "{{ name }} <news@example.com>"})
    mail = made.compose(row(name=name), key="1", eight_bit=True)
    message = parse(mail.body)
    assert message.keys() == FIELDS
    assert [a.addr_spec for a in message["From"].addresses] == ["news@example.com"]
    assert mail.sender == "news@example.com"


def test_a_null_column_is_named_not_printed() -> None:
    bare = Row("1", "ann@example.net", {"note": "n", "token": "t"})
    with pytest.raises(RenderError, match="name") as caught:
        composer().compose(bare, key="1", eight_bit=True)
    assert caught.value.code == LocalCode.VALUE_MISSING
    made = composer(subject="Hi {{ name|default('there') }}", text="{{ name|d('you') }}", html=None)
    assert parse(made.compose(bare, key="1", eight_bit=True).body)["Subject"] == "Hi there"


def test_a_null_inside_json_is_missing_too() -> None:
    with pytest.raises(RenderError) as caught:
        composer(text="{{ note.street }}").compose(row(note={"street": None}), key="1", eight_bit=True)
    assert caught.value.code == LocalCode.VALUE_MISSING
    with pytest.raises(RenderError):
        composer(text="{{ note.get('street') }}").compose(row(note={"street": None}), key="1", eight_bit=True)
    made = composer(text="{{ note.items }} {{ note['keys'] }}", html=None)
    assert "shop bag" in made.compose(row(note={"items": "shop", "keys": "bag"}), key="1", eight_bit=True).body.decode()


@pytest.mark.parametrize(
    "source",
    [
        "{{ name.__class__ }}",
        "{{ name.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ name.format('x') }}",
        "{{ name.upper }}",
        "{{ range }}",
        "{{ name.encode() }}",
        "{{ name|attr('__class__') }}",
        "{{ range(100000)|list }}",
        "{{ 'x' * 100000000 }}",
        "{{ [1] * 100000000 }}",
        "{{ 9 ** 999999 }}",
        "{{ 1 / 0 }}",
        "{{ name + 1 }}",
        "{{ name.ljust(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%-*d' % (1000000000, 1) }}",
        "{{ '%01000000000d'|format(1) }}",
        "{{ note.append(1) }}",
        "{{ self.__init__.__globals__ }}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{{ name }}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_cannot_reach_python_or_grow_without_bounds(source: str) -> None:
    with pytest.raises((ComposeError, PlanError)) as caught:  # PlanError: it fails whatever the row holds
        composer(text=source, html=None).compose(row(note=[1]), key="1", eight_bit=True)
    assert "Ann" not in str(caught.value)


@pytest.mark.parametrize("missing", ["lipsum", "debug", "config"])
def test_nothing_but_the_listed_globals_is_there(missing: str) -> None:
    with pytest.raises(RenderError):
        composer(text=f"{{{{ {missing} }}}}", html=None).compose(row(), key="1", eight_bit=True)


def test_ordinary_expressions_work() -> None:
    source = (
        "{{ '%.2f'|format(note) }} {{ '%05d' % 7 }} {{ name.upper() }} {{ 'x' * 3 }} {{ 2 ** 8 }} {{ 'a'|center(5) }}"
    )
    source += "{% for n in range(3) %}{{ loop.index }}{% endfor %} {{ name[:2] }} {{ [1, 2]|join(',') }} {{ 7 % 4 }}"
    mail = composer(text=source, html=None).compose(row(note=2.5), key="1", eight_bit=True)
    assert parse(mail.body).get_content() == "2.50 00007 ANN xxx 256   a  123 An 1,2 3\r\n"


def test_half_a_character_out_of_json_is_its_recipients_failure() -> None:
    with pytest.raises(RenderError):
        composer().compose(row(note="\ud800"), key="1", eight_bit=True)


def test_columns_and_those_that_must_not_be_null() -> None:
    made = composer(
        subject="{{ a }} {{ b|default('x') }} {% if c is defined %}{{ c }}{% endif %}",
        text="{% for x in d|default([]) %}{{ x }}{{ loop.index }}{% endfor %}{% set y = e %}{{ y }} {{ b }}",
        html=None, headers={}, unsubscribe=None, replyTo=None,
    )  # fmt: skip
    assert made.columns == {"a", "b", "c", "d", "e"}
    assert made.required == {"a", "b", "e"}


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"subject": "{{ name"}, ReportReason.TEMPLATE_INVALID, "message.subject: line 1"),
        ({"text": "a\n{% if %}"}, ReportReason.TEMPLATE_INVALID, "message.text: line 2"),
        ({"text": "{{ x|nosuch }}"}, ReportReason.TEMPLATE_INVALID, "nosuch"),
        ({"text": "{% include 'x' %}"}, ReportReason.TEMPLATE_INVALID, "include"),
        ({"text": None, "html": None}, ReportReason.TEMPLATE_INVALID, "neither text nor html"),
        ({"headers": {"Bcc": "x"}}, ReportReason.TEMPLATE_INVALID, "Bcc"),
        ({"headers": {"X Y": "x"}}, ReportReason.TEMPLATE_INVALID, "no header name"),
        ({"from": "Example Shop"}, ReportReason.ADDRESS_INVALID, "message.from"),
        ({"from": "news@müller.de"}, ReportReason.ADDRESS_INVALID, "xn--"),
        ({"replyTo": "nobody"}, ReportReason.ADDRESS_INVALID, "message.replyTo"),
    ],
)
def test_a_message_that_cannot_work_says_where_and_why(
    changes: dict[str, Any], reason: ReportReason, words: str
) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        composer(**changes)
    assert caught.value.reason is reason
