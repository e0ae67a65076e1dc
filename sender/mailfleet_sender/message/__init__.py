"""The message: templates and recipient data become one MIME message."""

from __future__ import annotations

from .address import is_address
from .attachments import check as check_attachments
from .composer import Composer
from .mail import LocalCode, Mail

__all__ = ["Composer", "LocalCode", "Mail", "check_attachments", "is_address"]
