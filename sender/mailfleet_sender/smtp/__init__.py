"""SMTP: connections, the conversation, and what each reply means.

`Connector.connect` opens a `Connection`; each `Connection.send` ends in exactly one `Verdict`.
"""

from .connection import Connection
from .connector import Connector
from .extensions import Extensions, Offer
from .mode import Mode, Modes
from .replies import Phase
from .timeouts import Timeouts
from .verdict import Verdict, VerdictKind

__all__ = [
    "Connection",
    "Connector",
    "Extensions",
    "Mode",
    "Modes",
    "Offer",
    "Phase",
    "Timeouts",
    "Verdict",
    "VerdictKind",
]
