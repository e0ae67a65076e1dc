"""A desk for campaigns whose recipients are a CSV file: a real ledger, and the verb `plan` over both."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2

from mailfleet_sender.audience import Audience, CsvRows, open_recipients
from mailfleet_sender.contract import environment
from mailfleet_sender.contract.accounts import ReportReason, RunState
from mailfleet_sender.contract.campaign import Campaign
from mailfleet_sender.ledger import Runs
from mailfleet_sender.planning import plan_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import sqlalchemy as sa

    from mailfleet_sender.contract.environment import Exit

PEOPLE = "email,first_name,plan\nann@example.com,Ann,gold\nbob@example.com,Bob,\ncy@example.com,,silver\n"


@dataclass
class Desk:
    """A ledger, a folder for files, and the verb over both."""

    url: str
    ledger: sa.Engine
    folder: Path
    run: int = 0

    def campaign(self, recipients: dict[str, Any] | None = None, **csv_fields: Any) -> Campaign:
        source = csv_fields if "url" in csv_fields or "persistentVolumeClaim" in csv_fields else {
            "configMapKeyRef": {"name": "vip", "key": "people.csv"}, **csv_fields
        }  # fmt: skip
        message = {"from": "Shop <news@example.com>", "subject": "Hi {{ first_name | default('you') }}", "text": "x"}
        return Campaign.model_validate({"recipients": {"csv": source, **(recipients or {})}, "message": message})

    def write(self, content: str | bytes) -> None:
        """The ConfigMap as the kubelet mounts it."""
        file = self.folder / "vip" / "people.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def plan(self, campaign: Campaign | None = None, *, run_id: str = "1", **more: Any) -> Exit:
        wanted = campaign or self.campaign()
        row = Runs(self.ledger).ensure("marketing", "news", run_id, wanted)
        if row.definition_hash != wanted.definition_hash():
            assert Runs(self.ledger).edit(row.id, wanted)
        self.run = row.id
        places = {"config_folder": self.folder, "volume_folder": self.folder / "volume", **more}
        return plan_run(
            self.ledger, run=row.id, database_url=None, reporter="news-plan-abc", ledger_url=self.url, **places
        )

    def planner(self) -> subprocess.Popen[str]:
        """The verb in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "mailfleet_sender", "plan"],
            env={
                environment.LEDGER_URL: self.url,
                environment.RUN: str(self.run),
                environment.POD_NAME: "news-plan-abc",
                environment.CONFIG_FOLDER: str(self.folder),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def refused(self, campaign: Campaign | None = None, **more: Any) -> tuple[Exit, ReportReason, str]:
        ended = self.plan(campaign, **more)
        (only,) = Runs(self.ledger).reports([self.run])
        assert self.row.state is RunState.PLANNING
        assert self.sql("SELECT count(*) FROM csv_row") == [(0,)], "nothing personal stays of a plan that failed"
        return ended, only.reason, only.message

    @property
    def row(self) -> Any:
        return Runs(self.ledger).get(self.run)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def planned(self) -> dict[str | None, list[str]]:
        """The published plan's keys by the reason to skip them."""
        found = self.sql(
            "SELECT p.reason, k FROM page p JOIN run r ON r.id = p.run AND r.plan_id = p.plan, unnest(p.keys) "
            f"WITH ORDINALITY AS u (k, n) WHERE r.id = {self.run} ORDER BY p.number, n"
        )
        keys: dict[str | None, list[str]] = {}
        for reason, key in found:
            keys.setdefault(reason, []).append(key)
        return keys

    def audience(self, campaign: Campaign, columns: Sequence[str] = ("first_name",)) -> Audience:
        assert campaign.recipients.csv
        engine = open_recipients(self.url, application_name="test")
        return Audience(engine, CsvRows(campaign.recipients.csv, self.run), columns)
