"""What a plan took from ConfigMaps, frozen with it: whatever is edited later, everybody gets the same mail."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .campaign import Message

MATERIALS_OCTETS = 10 * 1024 * 1024
"""All of it together, before it is encoded (DESIGN section 5: a snapshot is at most 10 MB). A ConfigMap holds 1 MiB."""


@dataclass(frozen=True, slots=True)
class Materials:
    """The rest of a run's message.

    Attributes:
        boundary: 32 hexadecimal digits, random for each plan; "" in runs of versions that derived it.
        template: what the ConfigMap of `templateRef` says, by field: subject, text, html.
        files: the octets of `message.attachments`, in their order.
    """

    boundary: str = ""
    template: dict[str, str] = field(default_factory=dict)
    files: tuple[bytes, ...] = field(default=(), repr=False)

    def applied(self, message: Message) -> Message:
        """The message with the template's fields in their places."""
        return message.model_copy(update=self.template) if self.template else message

    def document(self) -> dict[str, Any]:
        """As the ledger keeps it, in JSON."""
        files = [base64.b64encode(data).decode() for data in self.files]
        return {"boundary": self.boundary, "template": self.template, "files": files}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Materials:
        """Read what `document` made; an empty one is of a run that was planned without."""
        files = tuple(base64.b64decode(text) for text in document.get("files", ()))
        return cls(document.get("boundary", ""), dict(document.get("template", {})), files)
