"""Header fields: hostile text stays inside its field, and a person reads what was meant."""

from __future__ import annotations

import email
import email.policy
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfleet_sender.errors import AddressError, RenderError
from mailfleet_sender.message import LocalCode, headers

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300)


def read(field: str) -> list[tuple[str, str]]:
    """What the standard library reads in these fields."""
    assert field.endswith("\r\n")
    assert field.isascii()
    return [(n, str(v)) for n, v in email.message_from_bytes(field.encode(), policy=email.policy.default).items()]


@given(TEXT)
@example("a\r\nBcc: b@example.com")
@example("=?utf-8?q?forged?=")
@example("x" * 300)
@example("Grüße " * 40)
@example("a  b   c" * 30)
@example("\r\n.\r\nRCPT TO:<x@example.com>")
def test_any_text_arrives_in_one_field_with_controls_as_one_blank(text: str) -> None:
    assert read(headers.unstructured("Subject", text)) == [("Subject", headers.one_line(text))]


@given(TEXT)
def test_no_line_but_a_long_word_of_a_machine_is_over_76(text: str) -> None:
    assert max(map(len, headers.unstructured("Subject", text).split("\r\n"))) <= 76


@given(TEXT)
def test_encoded_words_are_short_and_each_is_whole(text: str) -> None:
    for word in headers.encoded_words(text):
        assert len(word) <= 75
        assert re.fullmatch(r"=\?utf-8\?b\?[A-Za-z0-9+/=]+\?=", word)
        email.header.decode_header(word)[0][0].decode()  # type: ignore[union-attr]


def test_a_machine_readable_token_is_not_encoded() -> None:
    token = "t" * 500
    assert headers.unstructured("X-Token", token, longest_word=990) == f"X-Token: {token}\r\n"


def test_an_endless_value_is_that_recipients_failure() -> None:
    with pytest.raises(RenderError) as caught:
        headers.unstructured("Subject", "ä" * 5_000)
    assert caught.value.code == LocalCode.HEADER_TOO_LARGE


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=100))
@example('Doe, "Jane" \\ x')
@example("Zoë\r\nBcc: b@example.com")
@example("evil@example.com,")
def test_a_display_name_is_only_a_name(name: str) -> None:
    display, address = headers.mailbox(
        f'"{name.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}" <news@example.com>', of="from"
    )
    assert address == "news@example.com"
    assert display == re.sub(" +", " ", headers.one_line(name))
    field = headers.address_field("From", display, address)
    parsed = email.message_from_bytes(field.encode(), policy=email.policy.default)
    assert parsed.keys() == ["From"]
    (only,) = parsed["From"].addresses
    assert only.addr_spec == address
    # The standard library reads any Unicode blank in a phrase as a plain one, and puts one between encoded words.
    assert "".join(only.display_name.split()) == "".join(display.split())


def test_a_name_that_holds_an_address_stays_a_name() -> None:
    display, address = headers.mailbox("x <evil@example.com>, y <news@example.com>", of="from")
    assert (display, address) == ("x <evil@example.com>, y", "news@example.com")


@pytest.mark.parametrize("text", ["", "news", "News <news>", "News <news@example.com> x", "<a@example.com\r\n>x"])
def test_a_mailbox_without_an_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        headers.mailbox(text, of="from")


@given(TEXT)
def test_no_value_leaves_the_brackets_of_list_unsubscribe(text: str) -> None:
    target = (
        headers.uri(f"https://example.com/{text}", schemes=("https://",)) if len(text.encode()) < 300 else "https://x"
    )
    field = headers.list_unsubscribe([target, "mailto:u@example.com"], one_click=True)
    names = [n for n, _ in email.message_from_bytes(field.encode(), policy=email.policy.default).items()]
    assert names == ["List-Unsubscribe", "List-Unsubscribe-Post"]
    assert field.count("<") == field.count(">") == 2


def test_one_click_needs_https() -> None:
    assert "Post" not in headers.list_unsubscribe(["http://example.com/u"], one_click=True)
    assert "Post" not in headers.list_unsubscribe(["https://example.com/u"], one_click=False)


@pytest.mark.parametrize("name", ["", "X Y", "X:", "Ä", "to", "Bcc", "Content-Type", "Resent-To", "X\r\nBcc"])
def test_names_that_would_change_the_mail_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        headers.check_name(name)
