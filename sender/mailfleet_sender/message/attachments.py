"""Attachments and inline images: each becomes its MIME part once, for all recipients of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import PlanError

from .content import base64_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailfleet_sender.contract.campaign import Attachment, Message

UNKNOWN = "application/octet-stream"
_COMPOSITE = ("message/", "multipart/")
"""RFC 2046 5.1, 5.2: these must not be written in base64; a file that holds such a thing is sent as octets."""
_TYPE = re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9.+_-]{0,126}")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029/\\]{1,80}")
_CONTENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}(@[A-Za-z0-9.-]{1,128})?")
_PLAIN_NAME = re.compile(r"[ !#-\[\]-~]{1,60}")
"""What a quoted string holds without escapes, on one line of 78 with the field's name."""
_CID = re.compile(r"""["'(]\s*cid:([^"')\s{}]+)\s*["')]""", re.IGNORECASE)

_OFFICE = "application/vnd.openxmlformats-officedocument"
TYPES = {
    "avif": "image/avif", "csv": "text/csv", "doc": "application/msword", "epub": "application/epub+zip",
    "docx": f"{_OFFICE}.wordprocessingml.document", "gif": "image/gif", "gz": "application/gzip", "heic": "image/heic",
    "htm": "text/html", "html": "text/html", "ics": "text/calendar", "jpeg": "image/jpeg", "jpg": "image/jpeg",
    "json": "application/json", "md": "text/markdown", "mp3": "audio/mpeg", "mp4": "video/mp4",
    "ods": "application/vnd.oasis.opendocument.spreadsheet", "odt": "application/vnd.oasis.opendocument.text",
    "pdf": "application/pdf", "pkpass": "application/vnd.apple.pkpass", "png": "image/png",
    "pptx": f"{_OFFICE}.presentationml.presentation", "rtf": "application/rtf", "svg": "image/svg+xml",
    "txt": "text/plain", "vcf": "text/vcard", "webp": "image/webp", "xls": "application/vnd.ms-excel",
    "xlsx": f"{_OFFICE}.spreadsheetml.sheet", "xml": "application/xml", "zip": "application/zip",
}  # fmt: skip
"""By the ending of a name (IANA media types). Python's own list differs from version to version, and lacks some."""


class Attached(NamedTuple):
    """Finished parts, from Content-Type to the last CRLF.

    Attributes:
        inline: those that the HTML shows.
        files: those attached to the mail.
    """

    inline: tuple[bytes, ...] = ()
    files: tuple[bytes, ...] = ()


def attached(message: Message, files: Sequence[bytes]) -> Attached:
    """Make the parts of a message.

    Raises:
        PlanError: AttachmentInvalid or TemplateInvalid, naming the field.
    """
    if len(files) != len(message.attachments):
        raise PlanError(
            ReportReason.INTERNAL_ERROR,
            f"the plan holds {len(files)} of {len(message.attachments)} attachments: edit the campaign to plan it anew",
        )
    check(message)
    inline: list[bytes] = []
    attachments: list[bytes] = []
    for attachment, data in zip(message.attachments, files, strict=True):
        (inline if attachment.content_id else attachments).append(_part(attachment, data))
    return Attached(tuple(inline), tuple(attachments))


def check(message: Message) -> None:
    """Refuse what the definition's schema refuses too, and an image that the HTML shows and nobody gives.

    Raises:
        PlanError: AttachmentInvalid or TemplateInvalid, naming the field.
    """
    known = set()
    for n, attachment in enumerate(message.attachments):
        field = f"message.attachments[{n}]"
        if not _NAME.fullmatch(attachment.name) or attachment.name != attachment.name.strip():
            _invalid(f"{field}.name: at most 80 characters, no controls, slashes or blanks at its ends")
        if attachment.content_type and (
            not _TYPE.fullmatch(attachment.content_type) or attachment.content_type.startswith(_COMPOSITE)
        ):
            _invalid(f"{field}.contentType: a type like application/pdf; message/ and multipart/ cannot be attached")
        if attachment.content_id:
            if not _CONTENT_ID.fullmatch(attachment.content_id):
                _invalid(f"{field}.contentId: letters, digits, dots, hyphens, with or without @domain, as logo")
            if attachment.content_id in known:
                _invalid(f"{field}.contentId: another attachment has it; each image needs its own")
            if message.html is None:
                _invalid(f"{field}.contentId: an inline image needs html that shows it; leave contentId out to attach")
            known.add(attachment.content_id)
    for content_id in _CID.findall(message.html or ""):
        if content_id not in known:
            raise PlanError(
                ReportReason.TEMPLATE_INVALID,
                f"message.html: it shows cid:{content_id[:64]}, which is the contentId of no attachment: add it there",
            )


def _invalid(what: str) -> None:
    raise PlanError(ReportReason.ATTACHMENT_INVALID, what)


def _part(attachment: Attachment, data: bytes) -> bytes:
    """One file in base64 (RFC 2045 6.8), whatever it holds: it arrives octet for octet."""
    head = [f"Content-Type: {_type(attachment, data)}", "Content-Transfer-Encoding: base64"]
    if attachment.content_id:
        head.append(f"Content-ID: <{attachment.content_id}>")
    head.append(_disposition("inline" if attachment.content_id else "attachment", attachment.name))
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + base64_lines(data) + b"\r\n"


def _type(attachment: Attachment, data: bytes) -> str:
    kind = attachment.content_type or TYPES.get(attachment.name.rpartition(".")[2].lower(), UNKNOWN)
    if kind.startswith("text/") and not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return kind if attachment.content_type else UNKNOWN
        return f"{kind}; charset=utf-8"
    return kind


def _disposition(kind: str, name: str) -> str:
    """RFC 2183; a name that is not plain ASCII by RFC 2231, on a line of its own."""
    if _PLAIN_NAME.fullmatch(name):
        return f'Content-Disposition: {kind};\r\n filename="{name}"'
    # 80 characters are at most 960 octets here: no line over 998.
    return f"Content-Disposition: {kind};\r\n filename*=utf-8''{quote(name, safe='')}"
