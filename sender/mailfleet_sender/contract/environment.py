"""How the operator's Jobs speak to the sender's verbs: environment variables, files and exit codes."""

from __future__ import annotations

from enum import IntEnum

LEDGER_URL = "MAILFLEET_LEDGER_URL"
"""SQLAlchemy or libpq URL of the ledger (from the namespace's sender Secret, key `ledger-url`)."""
REDIS_URL = "MAILFLEET_REDIS_URL"
"""URL of Redis (from the namespace's sender Secret, key `redis-url`)."""
DATABASE_URL = "MAILFLEET_DATABASE_URL"
"""URL of the recipients' database (from `databaseSecretRef`); not set where the recipients are a CSV file."""
SMTP_USERNAME = "MAILFLEET_SMTP_USERNAME"
SMTP_PASSWORD = "MAILFLEET_SMTP_PASSWORD"  # noqa: S105 - a variable's name
SMTP_CA_FILE = "MAILFLEET_SMTP_CA_FILE"
"""Path of a PEM bundle that replaces the system's, when the relay names a `caSecretRef`."""
RUN = "MAILFLEET_RUN"
"""The run's id in the ledger, an integer."""
WAVE = "MAILFLEET_WAVE"
"""The wave's number within the run, an integer."""
RELAY = "MAILFLEET_RELAY"
"""`namespace/name` of the relay's row in the ledger."""
PREFLIGHT_FOR = "MAILFLEET_PREFLIGHT_FOR"
"""What the operator wants a preflight to try, as its hash: it is reported back. Not set: a person looks on."""
INDEX = "JOB_COMPLETION_INDEX"
"""The range's index within the wave; Kubernetes sets it for Indexed Jobs."""
CONFIG_FOLDER = "MAILFLEET_CONFIG_FOLDER"
"""Where a planner finds the ConfigMaps that the campaign names: a folder for each, a file for each key."""
CONFIG_MAPS = "/etc/mailfleet/config"
"""Its default, where the operator's Jobs mount them."""
VOLUME_FOLDER = "MAILFLEET_VOLUME_FOLDER"
"""Where a planner finds the volume that holds `recipients.csv`."""
VOLUME = "/var/lib/mailfleet/recipients"
"""Its default, where the operator's Jobs mount it, for reading alone."""
URL_NETWORKS = "MAILFLEET_URL_NETWORKS"
"""Networks as 10.0.0.0/8, separated by commas: private ones from which `recipients.csv.url` may be fetched."""
POD_NAME = "MAILFLEET_POD_NAME"
"""The reporter's name (downward API `metadata.name`)."""
METRICS_PORT = "MAILFLEET_METRICS_PORT"
"""Where a sender and the operator serve /metrics (Prometheus' text format); without it they do not."""
GRACE_SECONDS = "MAILFLEET_GRACE_SECONDS"
"""The pod's terminationGracePeriodSeconds; a drain ends 5 s before it."""

TERMINATION_LOG = "/dev/termination-log"
"""Where a verb leaves its last words (<= 4 KiB) when the ledger is what failed."""


class Exit(IntEnum):
    """Exit codes, after sysexits(3)."""

    DONE = 0
    USAGE = 64
    """Configuration that the operator itself wrote is unusable."""
    INTERRUPTED = 75
    """EX_TEMPFAIL: the same work may be tried again, by another pod."""
    IMPOSSIBLE = 78
    """EX_CONFIG: this can never work as it stands."""
