"""The version after this one, as images: this version's, with a layer that holds a further migration and its use.

Its migration adds a column and a table; each of its senders writes into both before it begins.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from mailfleet_cluster import places
from mailfleet_cluster.__main__ import chosen

VERSION = "0.99.0"
MIGRATION = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "{next}", "{last}", None, None


def upgrade():
    op.execute("ALTER TABLE run ADD next_note text")
    op.execute("CREATE TABLE next_sender (pod text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())")
"""
SENDER = """
import contextlib, os, sys

import psycopg2

from mailfleet_sender.__main__ import main

if sys.argv[1:] == ["send"]:
    with contextlib.closing(psycopg2.connect(os.environ["MAILFLEET_LEDGER_URL"])) as connection, connection:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO next_sender (pod) VALUES (%s)", [os.environ["MAILFLEET_POD_NAME"]])
            cursor.execute("UPDATE run SET next_note = 'seen' WHERE id = %s", [os.environ["MAILFLEET_RUN"]])
main()
"""
DOCKERFILE = """
ARG PYTHON_IMAGE
FROM {sender} AS sender
USER 0
RUN versions=$(python3 -c 'import mailfleet_sender; print(mailfleet_sender.__path__[0])')/ledger/migrations/versions \\
 && echo {migration} | base64 -d >$versions/{next}_next.py \\
 && echo {program} | base64 -d >/opt/venv/next.py
USER 65532:65532
ENV MAILFLEET_VERSION={version}
ENTRYPOINT ["python3", "/opt/venv/next.py"]

FROM {operator} AS operator
ENV MAILFLEET_VERSION={version}
"""


class NextMinor:
    """The next minor version.

    Attributes:
        revision: of the ledger, as it leaves it.
        names: of the images, by target.
        values: a file of values for the chart that names them.
    """

    def __init__(self, last: str) -> None:
        """`last` is the revision of this version's ledger."""
        number, _, contract = last.partition(".")
        self.last = last
        self.revision = f"{int(number) + 1:04d}" + (f".{contract}" if contract else "")
        self.folder = places.state()
        self.values = self.folder / "next-images.json"
        self.names: dict[str, str] = {}

    def bring(self) -> None:
        """Build the images and bring them to the cluster."""
        ours: dict[str, Any] = json.loads((self.folder / "images.json").read_text())
        bases = {target: full(values["image"]) for target, values in ours.items()}
        text = DOCKERFILE.format(
            **bases,
            next=self.revision,
            version=VERSION,
            migration=encoded(MIGRATION.format(next=self.revision, last=self.last)),
            program=encoded(SENDER),
        )
        tag = "next-" + places.content_hash([], text)
        theirs = {target: {"image": {**values["image"], "tag": tag}} for target, values in ours.items()}
        self.names = {target: full(values["image"]) for target, values in theirs.items()}
        self.values.write_text(json.dumps(theirs))
        cluster = chosen(self.folder)
        missing = [target for target in ("sender", "operator") if self.names[target] not in cluster.present()]
        with tempfile.TemporaryDirectory() as folder:
            dockerfile = Path(folder) / "Dockerfile"
            dockerfile.write_text(text)
            for target in missing:
                cluster.build(self.names[target], str(dockerfile), target)
        if missing:
            cluster.load([self.names[target] for target in missing])


def full(image: dict[str, str]) -> str:
    """registry/repository:tag."""
    return f"{image['registry']}/{image['repository']}:{image['tag']}"


def encoded(text: str) -> str:
    """As one word of a shell."""
    return base64.b64encode(text.encode()).decode()
