"""The audience: which rows of the recipients' database are meant, and how they are read."""

from __future__ import annotations

from .audience import Audience, KeyType
from .connect import open_recipients
from .row import Row, SkipReason, UnusableRow

__all__ = ["Audience", "KeyType", "Row", "SkipReason", "UnusableRow", "open_recipients"]
