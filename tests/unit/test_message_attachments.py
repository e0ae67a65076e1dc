"""Attachments and inline images: each arrives octet for octet, beside bodies that hold anything."""

from __future__ import annotations

import email
import email.policy
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfleet_sender.audience import Row
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.campaign import Message
from mailfleet_sender.contract.materials import Materials
from mailfleet_sender.errors import PlanError
from mailfleet_sender.message import Composer
from mailfleet_sender.message.attachments import TYPES, Attached
from mailfleet_sender.message.content import mark_of
from mailfleet_sender.message.skeleton import Skeleton

if TYPE_CHECKING:
    from email.message import EmailMessage

RUN = "marketing/autumn-news/1"
MARK = "0123456789abcdef" * 2
BODIES = {"text": "{{ a }}", "html": "<p>{{ a|safe }}</p>"}
NAME = st.text(alphabet=st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1, max_size=80)
TEXT = st.lists(
    st.sampled_from(["\r\n", "\n.\n", "é", f"\r\n--=_{MARK}", f"--=m{MARK}--\n", f"=r{MARK}", "\0", "x" * 999])
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    max_size=6,
).map("".join)


def attachment(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "configMapKeyRef": {"name": "files", "key": "k"}, **more}


def composer(attachments: list[dict[str, Any]], files: list[bytes], **message: Any) -> Composer:
    news = {"from": "news@example.com", "subject": "s", **(message or BODIES), "attachments": attachments}
    return Composer(Message.model_validate(news), run_key=RUN, materials=Materials(MARK, {}, tuple(files)))


def mail(made: Composer, a: str = "hello", *, eight_bit: bool = True) -> EmailMessage:
    body = made.compose(Row("1", "ann@example.net", {"a": a}), key="1", eight_bit=eight_bit).body
    assert max(map(len, body.split(b"\r\n"))) <= 998
    assert not set(body.replace(b"\r\n", b"")) & {0, 10, 13}
    message = email.message_from_bytes(body, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    assert not any(part.defects for part in message.walk())
    assert len(list(message.walk())) == made.parts
    return message


def shape(message: EmailMessage) -> Any:
    if not message.is_multipart():
        return message.get_content_type()
    return message.get_content_subtype(), *(shape(part) for part in message.iter_parts())


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


PICTURE, FILE = attachment("a.png", contentId="logo"), attachment("b.pdf")
HTML = ("related", "text/html", "image/png")


@pytest.mark.parametrize(
    ("attachments", "message", "expected"),
    [
        ([FILE], {"text": "t"}, ("mixed", "text/plain", "application/pdf")),
        ([PICTURE], {"html": "h"}, HTML),
        ([PICTURE], BODIES, ("alternative", "text/plain", HTML)),
        ([FILE], BODIES, ("mixed", ("alternative", "text/plain", "text/html"), "application/pdf")),
        ([PICTURE, FILE], {"html": "h"}, ("mixed", HTML, "application/pdf")),
        ([FILE, PICTURE], BODIES, ("mixed", ("alternative", "text/plain", HTML), "application/pdf")),
        ([], BODIES, ("alternative", "text/plain", "text/html")),
        ([], {"html": "h"}, "text/html"),
    ],
)
def test_a_mail_has_the_containers_that_it_needs(
    attachments: list[dict[str, Any]], message: dict[str, Any], expected: Any
) -> None:
    assert shape(mail(composer(attachments, [b"x"] * len(attachments), **message))) == expected


@settings(max_examples=300)
@given(NAME, st.binary(max_size=300), TEXT, st.booleans(), st.booleans())
@example("Geschäftsbedingungen.pdf", b"\r\n.\r\n", f"\r\n--=_{MARK}--", True, True)
@example("🎈" * 80, b"", f"\n--=m{MARK}\n\n", False, False)
@example('a"b.pdf', bytes(range(256)), "\0", True, False)
def test_a_file_arrives_octet_for_octet_with_its_name(
    name: str, data: bytes, a: str, shown: bool, eight_bit: bool
) -> None:
    given_ = attachment(name, contentId="logo") if shown else attachment(name)
    message = mail(composer([given_, attachment(f"{name[:79]}2")], [data, b"other"]), a, eight_bit=eight_bit)
    files = [part for part in message.walk() if part.get_filename() is not None]
    assert [part.get_filename() for part in files] == [name, f"{name[:79]}2"]
    assert [part.get_payload(decode=True) for part in files] == [data, b"other"]
    assert [part.get_content_disposition() for part in files] == ["inline" if shown else "attachment", "attachment"]
    assert files[0]["Content-ID"] == ("<logo>" if shown else None)
    plain, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None
    assert html is not None
    assert plain.get_content() == lines(a)
    assert html.get_content() == lines(f"<p>{a}</p>")


def test_the_known_types_are_usable() -> None:
    for ending, kind in TYPES.items():
        made = composer([attachment(f"a.{ending}", contentType=kind)], [b"x"], text="t")
        assert shape(mail(made)) == ("mixed", "text/plain", kind)


@pytest.mark.parametrize(
    ("name", "given_type", "data", "told"),
    [
        ("a.pdf", None, b"%PDF", "application/pdf"),
        ("a.PNG", None, b"\x89", "image/png"),
        ("a.tar.gz", None, b"x", "application/gzip"),
        ("a.webp", None, b"x", "image/webp"),
        ("a.nosuch", None, b"x", "application/octet-stream"),
        ("a.bin", "application/x-own", b"x", "application/x-own"),
        ("a.txt", None, b"plain", "text/plain"),
        ("a.txt", None, "Zoë".encode(), "text/plain; charset=utf-8"),
        ("a.csv", None, b"Zo\xeb", "application/octet-stream"),
        ("a.ics", "text/calendar", b"BEGIN", "text/calendar"),
        ("a.eml", None, b"Subject: x\r\n\r\n", "application/octet-stream"),
    ],
)
def test_a_files_type_is_told_by_its_name_unless_it_is_given(
    name: str, given_type: str | None, data: bytes, told: str
) -> None:
    made = composer([attachment(name, **({"contentType": given_type} if given_type else {}))], [data], text="t")
    _, part = mail(made).iter_parts()
    assert part["Content-Type"].replace(chr(34), "") == told


def test_the_files_are_kept_once_whatever_encodings_the_bodies_need() -> None:
    """16 pairs of transfer encodings, each with 14 MB of its own, would be more than a sender may use."""
    skeleton = Skeleton(["plain", "html"], Attached((b"inline\r\n",), (b"file\r\n",)), MARK)
    encodings = ("7bit", "8bit", "quoted-printable", "base64")
    frames = [skeleton.frame((one, other)) for one in encodings for other in encodings]
    assert len(set(frames)) == 16
    assert {id(last) for *_, last in frames} == {id(frames[0][-1])}
    assert b"inline" in frames[0][-1]
    assert b"file" in frames[0][-1]


def test_no_boundary_begins_with_another_one_and_all_hold_the_plans_mark() -> None:
    body = composer([PICTURE, FILE], [b"x", b"y"]).compose(
        Row("1", "a@example.net", {"a": "a"}), key="1", eight_bit=True
    )
    boundaries = re.findall(r'boundary="([^"]+)"', body.body.decode())
    assert len(boundaries) == 3
    assert all(b.endswith(MARK) for b in boundaries)
    assert not [(a, b) for a in boundaries for b in boundaries if a is not b and a.startswith(b)]


def test_a_run_planned_without_a_mark_still_has_one() -> None:
    made = Composer(Message.model_validate({"from": "n@example.com", "subject": "s", **BODIES}), run_key=RUN)
    body = made.compose(Row("1", "a@example.net", {"a": "a"}), key="1", eight_bit=True).body
    assert f'boundary="=_{mark_of(RUN)}"'.encode() in body


@pytest.mark.parametrize(
    ("attachments", "message", "reason", "words"),
    [
        ([attachment("../x")], BODIES, ReportReason.ATTACHMENT_INVALID, r"attachments\[0\].name"),
        ([FILE, attachment("a\nb")], BODIES, ReportReason.ATTACHMENT_INVALID, r"attachments\[1\].name"),
        ([attachment(" a")], BODIES, ReportReason.ATTACHMENT_INVALID, r"attachments\[0\].name"),
        ([attachment("a", contentType="x")], BODIES, ReportReason.ATTACHMENT_INVALID, "contentType"),
        ([attachment("a", contentType="message/rfc822")], BODIES, ReportReason.ATTACHMENT_INVALID, "contentType"),
        ([attachment("a", contentType="a/b\r\nX: y")], BODIES, ReportReason.ATTACHMENT_INVALID, "contentType"),
        ([attachment("a", contentId="a b")], BODIES, ReportReason.ATTACHMENT_INVALID, "contentId"),
        ([PICTURE, attachment("b", contentId="logo")], BODIES, ReportReason.ATTACHMENT_INVALID, "needs its own"),
        ([PICTURE], {"text": "t"}, ReportReason.ATTACHMENT_INVALID, "needs html"),
        ([PICTURE], {"html": "<img src='cid:lego'>"}, ReportReason.TEMPLATE_INVALID, "cid:lego"),
        ([], {"html": '<a style="background:url(cid:x)">'}, ReportReason.TEMPLATE_INVALID, "cid:x"),
    ],
)
def test_what_cannot_be_attached_says_where_and_why(
    attachments: list[dict[str, Any]], message: dict[str, Any], reason: ReportReason, words: str
) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        composer(attachments, [b"x"] * len(attachments), **message)
    assert caught.value.reason is reason


def test_a_plan_that_lacks_files_is_refused_rather_than_sent_without_them() -> None:
    with pytest.raises(PlanError, match="0 of 1 attachments"):
        composer([FILE], [])


def test_an_image_that_html_shows_is_known() -> None:
    message = mail(composer([PICTURE], [b"x"], html='<img src="cid:logo"> and (cid:) in words'))
    assert "cid:logo" in message.get_body(("html",)).get_content()  # type: ignore[union-attr]


@given(st.binary(max_size=50), st.text(max_size=20), st.integers(0, 3))
def test_materials_pass_through_the_ledgers_json(data: bytes, text: str, count: int) -> None:
    made = Materials(MARK, {"subject": text}, (data,) * count)
    assert Materials.from_document(made.document()) == made
    assert Materials.from_document({}) == Materials()
