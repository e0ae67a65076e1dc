"""The composer: a campaign's message and one recipient's row become the octets of one mail."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.materials import Materials
from mailfleet_sender.errors import ComposeError, PlanError, RenderError

from . import content, headers
from .address import BLANKS, checked
from .attachments import attached
from .mail import LocalCode, Mail
from .skeleton import Skeleton
from .templates import Compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mailfleet_sender.audience.row import Row
    from mailfleet_sender.contract.campaign import Message, Unsubscribe

BODY_CHARACTERS = 2_000_000
"""The longest text or html of one mail: four times what any provider shows uncut, and a bound for a sender's memory."""
HEADER_CHARACTERS = 100_000
"""The longest output of a header's template, before `headers.HEADER_OCTETS` judges the field."""


class Composer:
    """Compiles a message once, then makes one mail a call; safe to use from several threads.

    Attributes:
        columns: the columns that the message names; `Audience` reads these.
        required: those used where a NULL fails the recipient: without `default`.
    """

    def __init__(
        self,
        message: Message,
        *,
        run_key: str,
        materials: Materials | None = None,
        list_id: str | None = None,
        feedback_id: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Compile all templates, encode all attachments.

        Args:
            message: of the campaign's snapshot.
            run_key: what identifies the run for ever, the same on every pod and after every restart (for
                example namespace/name/runId): Message-ID comes from it.
            materials: what the plan took from ConfigMaps for this message; None: it names none.
            list_id: namespace and name of the list, `news.marketing`; List-Id (RFC 2919) appends the domain of From.
            feedback_id: Feedback-ID, by which mailbox providers sort complaints; the message's own headers go first.
            clock: seconds since the epoch, for Date.

        Raises:
            PlanError: TemplateInvalid, AttachmentInvalid or AddressInvalid, naming the field.
        """
        self._clock = clock
        self._identity = hashlib.blake2b(key=hashlib.sha256(run_key.encode()).digest(), digest_size=16)
        self._dated: tuple[int, str] = (0, "")
        materials = materials or Materials()
        message = materials.applied(message)
        parts = _Parts.compile(message)
        self._parts = parts
        compiled = parts.all()
        self.columns = frozenset[str]().union(*(c.columns for c in compiled))
        self.required = frozenset[str]().union(*(c.required for c in compiled))
        self._skeleton = Skeleton(
            [subtype for subtype, _ in parts.bodies],
            attached(message, materials.files),
            materials.boundary or content.mark_of(run_key),
        )
        self._mailboxes = {
            template.field: self._constant_mailbox(template)
            for template in (parts.from_, parts.reply_to, parts.envelope_from)
            if template is not None and template.constant is not None
        }
        self._list_id = list_id
        own = any(name.lower() == "feedback-id" for name, _ in parts.headers)
        # In one piece, however long: a machine reads it, and encoded words would be no field of it.
        self._feedback = f"Feedback-ID: {feedback_id}\r\n" if feedback_id and not own else ""

    @property
    def parts(self) -> int:
        """MIME parts of a message, the containers among them."""
        return self._skeleton.count

    def field_of(self, column: str) -> str:
        """The first field that fails where this column is NULL: `message.subject`."""
        return next((c.field for c in self._parts.all() if column in c.required), "message")

    def compose(self, row: Row, *, key: str, eight_bit: bool) -> Mail:
        """Make the mail of one recipient.

        Args:
            row: as `Audience.rows` gave it.
            key: identifies the recipient within the run: Message-ID comes from (run_key, key).
            eight_bit: whether this server has 8BITMIME; without it everything is written in ASCII.

        Raises:
            AddressError: the recipient's address, or one that the row puts into From or Reply-To, is none.
            RenderError: any other reason why this recipient cannot have this mail; `code` is a LocalCode.
        """
        recipient = checked(row.email.strip(BLANKS))
        values, parts = row.values, self._parts
        try:
            display, address = self._mailbox(parts.from_, values)
            sender = address if parts.envelope_from is None else self._mailbox(parts.envelope_from, values)[1]
            message_id = self._message_id(key, address)
            head = self._head(values, recipient, display, address, message_id).encode("ascii")
            octets, has_eight = self._body(values, eight_bit=eight_bit)
            return Mail(sender, recipient, message_id, b"".join((head, *octets)), has_eight)
        except UnicodeError:
            raise RenderError(LocalCode.RENDER_FAILED, "a value holds half a character (a lone surrogate)") from None

    def _head(self, values: Mapping[str, object], recipient: str, display: str, address: str, message_id: str) -> str:
        parts = self._parts
        fields = [
            headers.address_field("From", display, address),
            f"To: {recipient}\r\n",
            headers.unstructured("Subject", parts.subject.render(values)),
            f"Date: {self._date()}\r\nMessage-ID: {message_id}\r\n",
        ]
        if parts.reply_to is not None:
            name, reply_to = self._mailbox(parts.reply_to, values)
            fields.append(headers.address_field("Reply-To", name, reply_to))
        if self._list_id is not None:
            fields.append(f"List-Id: <{self._list_id}.{address.rpartition('@')[2]}>\r\n")
        fields.append(self._feedback)
        if parts.unsubscribe:
            targets = [headers.uri(t.render(values), schemes=s) for t, s in parts.unsubscribe]
            fields.append(headers.list_unsubscribe(targets, one_click=parts.one_click))
        fields.extend(
            headers.unstructured(name, template.render(values), longest_word=headers.HARD_LINE_OCTETS - len(name) - 2)
            for name, template in parts.headers
        )
        fields.append("MIME-Version: 1.0\r\n")
        return "".join(fields)

    def _mailbox(self, template: Compiled, values: Mapping[str, object]) -> tuple[str, str]:
        """Name and address of from, replyTo or envelopeFrom; read once where no column stands in it."""
        if (known := self._mailboxes.get(template.field)) is not None:
            return known
        return headers.mailbox(template.render(values), of=template.field.removeprefix("message."))

    def _body(self, values: Mapping[str, object], *, eight_bit: bool) -> tuple[list[bytes], bool]:
        """The rest of the message from Content-Type on, in pieces, and whether it holds octets over 127."""
        mark, encodings = self._skeleton.mark, []
        octets: list[bytes] = []
        for _, template in self._parts.bodies:
            encoding, data = content.encode(template.octets(values), eight_bit=eight_bit, boundary=mark)
            encodings.append(encoding)
            octets += (b"", data)
        frame = self._skeleton.frame(tuple(encodings))
        octets[::2] = frame[:-1]
        if frame[-1] or not octets[-1].endswith(b"\r\n"):
            octets.append(frame[-1] or b"\r\n")
        return octets, "8bit" in encodings

    def _message_id(self, key: str, address: str) -> str:
        """Deterministic, so that a second copy of an uncertain mail is known as the same one."""
        digest = self._identity.copy()
        digest.update(key.encode())
        return f"<{digest.hexdigest()}@{address.rpartition('@')[2]}>"

    def _date(self) -> str:
        now = int(self._clock())
        if self._dated[0] != now:
            self._dated = (now, format_datetime(datetime.fromtimestamp(now, UTC)))
        return self._dated[1]

    @staticmethod
    def _constant_mailbox(template: Compiled) -> tuple[str, str]:
        try:
            mailbox = headers.mailbox(template.constant or "", of=template.field)
            headers.address_field("From", *mailbox)
        except ComposeError as error:
            raise PlanError(ReportReason.ADDRESS_INVALID, f"{template.field}: {error.detail}") from None
        return mailbox


@dataclass(frozen=True, slots=True)
class _Parts:
    """The compiled templates of a message."""

    from_: Compiled
    envelope_from: Compiled | None
    reply_to: Compiled | None
    subject: Compiled
    bodies: tuple[tuple[str, Compiled], ...]
    headers: tuple[tuple[str, Compiled], ...]
    unsubscribe: tuple[tuple[Compiled, tuple[str, ...]], ...]
    one_click: bool

    @classmethod
    def compile(cls, message: Message) -> _Parts:
        for name in message.headers:
            try:
                headers.check_name(name)
            except ValueError as error:
                raise PlanError(ReportReason.TEMPLATE_INVALID, f"message.headers: {error}") from None
        bodies = [
            (
                subtype,
                Compiled(f"message.{subtype_field}", source, html=subtype == "html", body=True, limit=BODY_CHARACTERS),
            )
            for subtype, subtype_field, source in (("plain", "text", message.text), ("html", "html", message.html))
            if source is not None
        ]
        if not bodies:
            raise PlanError(ReportReason.TEMPLATE_INVALID, "message: it has neither text nor html; give at least one")
        if message.subject is None:
            raise PlanError(ReportReason.TEMPLATE_INVALID, "message.subject: it is missing; a mail needs one")
        return cls(
            from_=_field("message.from", message.from_),
            envelope_from=_field("message.envelopeFrom", message.envelope_from) if message.envelope_from else None,
            reply_to=_field("message.replyTo", message.reply_to) if message.reply_to else None,
            subject=_field("message.subject", message.subject),
            bodies=tuple(bodies),
            headers=tuple((n, _field(f"message.headers[{n}]", s)) for n, s in message.headers.items()),
            unsubscribe=_unsubscribe(message.unsubscribe),
            one_click=message.unsubscribe is not None and message.unsubscribe.one_click,
        )

    def all(self) -> list[Compiled]:
        single = [self.from_, self.envelope_from, self.reply_to, self.subject]
        return [
            *(c for c in single if c is not None),
            *(c for _, c in self.bodies),
            *(c for _, c in self.headers),
            *(c for c, _ in self.unsubscribe),
        ]


def _field(name: str, source: str) -> Compiled:
    return Compiled(name, source, limit=HEADER_CHARACTERS)


def _unsubscribe(unsubscribe: Unsubscribe | None) -> tuple[tuple[Compiled, tuple[str, ...]], ...]:
    made: list[tuple[Compiled, tuple[str, ...]]] = []
    if unsubscribe and unsubscribe.url:
        made.append((_field("message.unsubscribe.url", unsubscribe.url), ("https://", "http://")))
    if unsubscribe and unsubscribe.mailto:
        source = unsubscribe.mailto.strip()
        if not source.lower().startswith("mailto:"):
            source = f"mailto:{source}"
        made.append((_field("message.unsubscribe.mailto", source), ("mailto:",)))
    return tuple(made)
