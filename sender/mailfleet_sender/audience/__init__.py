"""The audience: which rows of the recipients' database are meant, and how they are read."""

from __future__ import annotations

from .audience import Audience, KeyType
from .connect import open_recipients
from .csv_file import CsvFile
from .csv_rows import CsvRows, check_columns
from .files import opened
from .row import Row, SkipReason, UnusableRow

__all__ = [
    "Audience",
    "CsvFile",
    "CsvRows",
    "KeyType",
    "Row",
    "SkipReason",
    "UnusableRow",
    "check_columns",
    "open_recipients",
    "opened",
]
