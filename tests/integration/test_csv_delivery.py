"""A campaign to the rows of a file: real senders read them from the ledger; a killed one costs nobody the mail."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fleet import NAME, NAMESPACE, Fleet, campaign
from mailfleet_sender.contract import environment
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sink import Sink

MANY = 1_500
SOURCE = {"csv": {"configMapKeyRef": {"name": "vip", "key": "people.csv"}}}


@pytest.fixture
def fleet(database_url: str, redis_url: str, sink: Sink, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "vip"
    folder.mkdir()
    people = "".join(f'u{n}@example.net,"Name ""{n}"", of\nLine"\n' for n in range(MANY))
    (folder / "people.csv").write_text(f"email,first_name\n{people}nobody,x\n")
    with Fleet(
        database_url,
        "",
        redis_url,
        sink,
        tmp_path,
        rate="1500/s",
        range_size=500,
        definition=campaign(
            recipients=SOURCE, message={"from": "a@example.com", "subject": "s", "text": "{{ first_name }}"}
        ),
        environ={environment.CONFIG_FOLDER: str(tmp_path)},
    ) as fleet:
        yield fleet


def test_every_row_gets_its_own_mail_once_though_a_sender_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start()
    (tmp_path / "vip/people.csv").write_text("email,first_name\n")  # changed too late
    fleet.tend(2)
    wait_for("some are sent", lambda: fleet.totals.sent > 200, interval=0.02)
    fleet.senders[0].process.kill()
    fleet.work(2)
    totals, accepted = fleet.totals, fleet.accepted()
    assert (totals.planned, totals.skipped, totals.remaining, totals.failed) == (MANY + 1, 1, 0, 0)
    assert totals.sent + totals.uncertain == MANY
    assert max(accepted.values()) == 1
    assert len(accepted) >= totals.sent
    assert len(accepted) - totals.sent <= totals.uncertain


def test_what_is_previewed_is_the_row_of_that_line(fleet: Fleet) -> None:
    assert fleet.plan().returncode == 0

    def preview(key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mailfleet_sender", "preview", f"{NAMESPACE}/{NAME}", "--key", key],
            env=fleet._environ(), capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert 'Name "1", of\nLine' in preview("4").stdout.replace("\r", "")
    assert "skipped by the plan, InvalidAddress" in preview(str(2 + 2 * MANY)).stderr
    missing = preview("3")
    assert missing.returncode == 78
    assert "keys are numbers of lines of the file" in missing.stderr


def test_a_field_is_text_and_becomes_a_number_where_the_template_says_so(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "vip/people.csv").write_text("email,price\na@example.net,1234.5\nb@example.net,\n")
    text = "{{ price | default('0') | float | currency('EUR', 'de') }}"
    fleet.definition = campaign(recipients=SOURCE, message={"from": "a@example.com", "subject": "s", "text": text})
    fleet.start()
    fleet.work(1)
    mails = {recipient: body.decode() for recipient, body in fleet.sink.messages()}
    assert "1.234,50" in mails["a@example.net"]
    assert "0,00" in mails["b@example.net"]


def test_a_canary_over_a_file_mails_its_steps_alone_spread_over_all_lines(fleet: Fleet) -> None:
    fleet.definition = campaign(
        recipients=SOURCE,
        message={"from": "a@example.com", "subject": "s", "text": "{{ first_name }}"},
        canary={"steps": [{"recipients": 100}, {"percent": 10}]},
    )
    fleet.start()
    mailed: set[str] = set()
    for wave, size in ((1, 100), (2, 150), (3, MANY - 250)):
        at_work = [fleet.spawn(wave, index) for number, index in fleet.open_ranges() if number == wave]
        assert [sender.process.wait(60) for sender in at_work] == [0] * len(at_work)
        now = set(fleet.accepted()) - mailed
        mailed |= now
        assert len(now) == size
        numbers = [int(address.removeprefix("u").partition("@")[0]) for address in now]
        for hundred in range(0, MANY, 100):
            assert abs(sum(hundred <= n < hundred + 100 for n in numbers) - size / 15) <= 3
        fleet.runs.end_step(fleet.run, wave)
        fleet.runs.pass_step(fleet.run, wave)
    assert fleet.runs.complete(fleet.run)
    assert max(fleet.accepted().values()) == 1
    assert (fleet.totals.sent, fleet.totals.skipped) == (MANY, 1)
