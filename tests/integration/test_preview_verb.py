"""The verbs `preview` and `test`, as a person runs them: the mail as it will be sent, and nothing is counted."""

from __future__ import annotations

import contextlib
import email
import email.policy
import mailbox
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg2
import pytest
import redis

from certificates import Certificates
from fleet import NAME, NAMESPACE, Fleet, campaign
from mailfleet_sender.contract import environment
from mailfleet_sender.contract.accounts import RunState
from mailfleet_sender.ledger import AddressHasher, load_address_key, save_relay
from mailfleet_sender.ledger.suppression import Suppressed, put
from mailfleet_sender.limiter import LimiterAdmin
from services import free_port
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage
    from pathlib import Path

    from services import RedisServer

CAMPAIGN = f"{NAMESPACE}/{NAME}"
TERMS = b"%PDF\r\n.\r\n\0"
MESSAGE = {
    "from": "Example Shop <news@example.com>",
    "subject": "{{ first_name }}, our news",
    "text": "Hallo {{ first_name }}, bis {{ ends_on | date('long', 'de') }} für {{ price | currency('EUR', 'de') }}\n",
    "html": '<p>{{ first_name }}</p><img src="cid:logo">',
    "attachments": [
        {"name": "a.pdf", "configMapKeyRef": {"name": "files", "key": "a"}},
        {"name": "a.png", "configMapKeyRef": {"name": "files", "key": "a"}, "contentId": "logo"},
    ],
    "unsubscribe": {"url": "https://example.com/u/{{ id }}"},
}
TABLE = """
    CREATE TABLE subscribers (id bigint PRIMARY KEY, email text, first_name text, ends_on date, price numeric);
    INSERT INTO subscribers
        SELECT g, 'user' || g || '@example.net', 'Zo\u00eb ' || g, '2026-11-24', g + 0.5 FROM generate_series(1, 40) g;
    UPDATE subscribers SET email = 'USER1@example.net' WHERE id = 2;
    UPDATE subscribers SET email = NULL WHERE id = 3;
"""


@pytest.fixture
def fleet(database_url: str, redis_url: str, sink: Sink, tmp_path: Path) -> Iterator[Fleet]:
    """A campaign that is planned, and not started."""
    (tmp_path / "maps" / "files").mkdir(parents=True)
    (tmp_path / "maps" / "files" / "a").write_bytes(TERMS)
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="5000/s") as fleet:
        execute(fleet, TABLE)
        fleet.environ[environment.CONFIG_FOLDER] = str(tmp_path / "maps")
        fleet.definition = campaign(message=MESSAGE)
        done = fleet.plan()
        assert done.returncode == 0, done.stderr
        yield fleet


def execute(fleet: Fleet, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(fleet.database_url)) as connection, connection, connection.cursor() as c:
        c.execute(statement)


def verb(fleet: Fleet, *words: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run a verb with the variables that examples/preview.yaml gives it."""
    return subprocess.run(
        [sys.executable, "-m", "mailfleet_sender", *words],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            environment.LEDGER_URL: fleet.ledger_url,
            environment.DATABASE_URL: fleet.database_url,
            environment.REDIS_URL: fleet.redis_url,
            **environ,
        },
        capture_output=True,
        timeout=240,
        check=False,
    )


def shown(fleet: Fleet, *words: str) -> bytes:
    ran = verb(fleet, "preview", CAMPAIGN, *words)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


def told(fleet: Fleet, code: int, *words: str, **environ: str) -> str:
    ran = verb(fleet, *words, **environ)
    assert ran.returncode == code, (ran.stdout, ran.stderr)
    return ran.stderr.decode()


def parse(body: bytes) -> EmailMessage:
    message = email.message_from_bytes(body, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    assert not any(part.defects for part in message.walk())
    return message


def undated(body: bytes) -> bytes:
    changed, count = re.subn(rb"(?m)^Date: .*\r\n", b"", body)
    assert count == 1
    return changed


def books(fleet: Fleet) -> dict[str, list[object]]:
    """All that the ledger holds, but for what `migrate` and the relay's row do."""
    found: dict[str, list[object]] = {}
    with contextlib.closing(psycopg2.connect(fleet.ledger_url)) as connection, connection.cursor() as cursor:
        for table in (
            "run",
            "page",
            "wave",
            "range",
            "delivery",
            "usage",
            "report",
            "deferral",
            "doubt",
            "suppression",
        ):
            cursor.execute(f"SELECT t::text FROM {table} t ORDER BY 1")
            found[table] = [row[0] for row in cursor.fetchall()]
    return found


class TestPreview:
    def test_it_is_the_mail_that_is_sent_but_for_its_date(self, fleet: Fleet) -> None:
        before = {key: shown(fleet, "--key", key) for key in ("1", "7", "40")}
        assert fleet.runs.start(fleet.run, fleet.definition.definition_hash(), 1000)
        fleet.work(1)
        sent = dict(fleet.sink.messages())
        assert len(sent) == 38
        for key, body in before.items():
            assert undated(sent[f"user{key}@example.net"]) == undated(body)
        message = parse(before["7"])
        assert message["To"] == "user7@example.net"
        plain = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
        assert plain == "Hallo Zoë 7, bis 24. November 2026 für 7,50\xa0€\r\n"
        assert [p.get_payload(decode=True) for p in message.walk() if p.get_filename()] == [TERMS, TERMS]

    def test_without_a_key_it_is_the_first_recipient_who_gets_one(self, fleet: Fleet) -> None:
        assert parse(shown(fleet))["To"] == "user1@example.net"
        execute(fleet, "DELETE FROM subscribers WHERE id = 1; UPDATE subscribers SET email = 'no more' WHERE id = 4")
        ran = verb(fleet, "preview", CAMPAIGN)
        assert parse(ran.stdout)["To"] == "user5@example.net"
        assert b"the key 1 gets no mail: deleted" in ran.stderr
        assert b"the key 4 gets no mail: AddressInvalid" in ran.stderr

    def test_several_are_an_mbox(self, fleet: Fleet, tmp_path: Path) -> None:
        (tmp_path / "mbox").write_bytes(shown(fleet, "--first", "3"))
        box = mailbox.mbox(tmp_path / "mbox", create=False)
        found = list(box)
        box.close()
        assert [m["To"] for m in found] == [f"user{n}@example.net" for n in (1, 4, 5)]
        assert found[2].get_payload(1).get_payload(decode=True) == TERMS  # type: ignore[union-attr]
        assert parse(shown(fleet, "--first", "1"))["To"] == "user1@example.net"

    def test_a_relay_without_8bitmime_gets_ascii(self, fleet: Fleet) -> None:
        body = shown(fleet, "--key", "7", "--ascii")
        assert body.isascii()
        assert not shown(fleet, "--key", "7").isascii()
        assert "für" in parse(body).get_body(("plain",)).get_content()  # type: ignore[union-attr]

    def test_who_gets_no_mail_is_told_with_the_reason(self, fleet: Fleet) -> None:
        hashed = AddressHasher(load_address_key(fleet.engine))("user8@example.net")
        assert hashed
        put(fleet.engine, NAMESPACE, {hashed: Suppressed(hashed, "Complaint", None)})
        assert "suppressed, Complaint" in told(fleet, 0, "preview", CAMPAIGN, "--key", "8")
        assert "skipped by the plan, DuplicateAddress" in told(fleet, 0, "preview", CAMPAIGN, "--key", "2")
        no_address = told(fleet, 78, "preview", CAMPAIGN, "--key", "3")
        assert "skipped by the plan, NoAddress" in no_address
        execute(fleet, "DELETE FROM subscribers WHERE id = 9")
        assert "deleted or not matching" in told(fleet, 78, "preview", CAMPAIGN, "--key", "9")
        assert "no recipient has the key 41" in told(fleet, 78, "preview", CAMPAIGN, "--key", "41")
        assert "values of the column id" in told(fleet, 78, "preview", CAMPAIGN, "--key", "x'; --")

    def test_the_newest_run_is_meant_unless_another_is_named(self, fleet: Fleet) -> None:
        first = parse(shown(fleet))["Message-ID"]
        fleet.run_id = "2"
        assert "run 2 of test/campaign is not planned yet" in self.unplanned(fleet)
        assert fleet.plan().returncode == 0
        assert parse(shown(fleet))["Message-ID"] == parse(shown(fleet, "--run-id", "2"))["Message-ID"] != first
        assert parse(shown(fleet, "--run-id", "1"))["Message-ID"] == first
        assert "has no run 3, but 1, 2" in told(fleet, 78, "preview", CAMPAIGN, "--run-id", "3")
        ran = verb(fleet, "preview", **{environment.RUN: "1"})
        assert parse(ran.stdout)["Message-ID"] == first

    @staticmethod
    def unplanned(fleet: Fleet) -> str:
        fleet.runs.ensure(NAMESPACE, NAME, fleet.run_id, fleet.definition)
        return told(fleet, 78, "preview", CAMPAIGN)

    def test_what_cannot_be_meant_is_refused(self, fleet: Fleet) -> None:
        assert "must be namespace/name" in told(fleet, 64, "preview", "campaign")
        assert "name the campaign" in told(fleet, 64, "preview")
        assert "knows no campaign test/other" in told(fleet, 78, "preview", "test/other")
        assert "from 1 to 500" in told(fleet, 2, "preview", CAMPAIGN, "--first", "501")
        assert "not allowed with" in told(fleet, 2, "preview", CAMPAIGN, "--first", "5", "--key", "1")
        away = f"postgresql://me:s3cret@127.0.0.1:{free_port()}/x"
        assert "s3cret" not in told(fleet, 75, "preview", CAMPAIGN, **{environment.LEDGER_URL: away})
        assert "s3cret" not in told(fleet, 78, "preview", CAMPAIGN, **{environment.DATABASE_URL: away})

    def test_nothing_is_written(self, fleet: Fleet) -> None:
        before = books(fleet)
        assert before["page"]
        shown(fleet, "--first", "20")
        assert books(fleet) == before


class TestTest:
    SEND = ("test", CAMPAIGN, "--relay", "relay", "--to", "Me@Example.org")

    def test_one_mail_arrives_and_the_ledger_is_as_before(self, fleet: Fleet) -> None:
        before, mail = books(fleet), parse(shown(fleet, "--key", "7"))
        said = told(fleet, 0, *self.SEND, "--key", "7")
        ((recipient, body),) = fleet.sink.messages()
        assert recipient == "Me@Example.org"
        message = parse(body)
        assert message["To"] == "Me@Example.org"
        assert message["Subject"] == mail["Subject"] == "Zoë 7, our news"
        assert message["List-Unsubscribe"] == "<https://example.com/u/7>"
        assert message.as_bytes().count(b"Message-ID") == 1
        assert message["Message-ID"] != mail["Message-ID"]
        assert "sent: 250" in said
        assert "of the recipient with the key 7" in said
        assert "xample.org" not in said
        assert books(fleet) == before
        run = fleet.runs.get(fleet.run)
        assert run
        assert run.state is RunState.PLANNED

    def test_each_test_has_a_message_id_of_its_own(self, fleet: Fleet) -> None:
        for _ in range(2):
            told(fleet, 0, *self.SEND)
        assert len({parse(body)["Message-ID"] for _, body in fleet.sink.messages()}) == 2

    def test_a_paused_campaign_can_be_tested_a_paused_relay_not(self, fleet: Fleet) -> None:
        account = fleet.relay().account
        with redis.Redis.from_url(fleet.redis_url) as client:
            admin = LimiterAdmin(client)
            admin.set_campaign(account, CAMPAIGN, paused=True)
            told(fleet, 0, *self.SEND)
            admin.set_paused(account, paused=True)
            assert "relay takes no mail now: paused" in told(fleet, 75, *self.SEND)
            campaigns = admin.state(account).campaigns
        assert set(campaigns) == {CAMPAIGN}
        assert len(fleet.sink.accepted()) == 1

    def test_it_takes_one_permit_of_the_quota_and_gives_it_back_if_nothing_was_handed_over(
        self, fleet: Fleet, redis_server: RedisServer
    ) -> None:
        fleet.relay_changes = {"limits": {"rate": "50/s", "quota": {"messages": 2}}}
        save_relay(fleet.engine, fleet.relay())
        redis_server.flush()  # it writes the limits and the usage again, from the ledger

        def used() -> int | None:
            with redis.Redis.from_url(fleet.redis_url) as client:
                quota = LimiterAdmin(client).state(fleet.relay().account).quota
            assert quota
            return quota.used

        told(fleet, 0, *self.SEND)
        assert used() == 1
        fleet.sink.behave({"phase": "rcpt", "reply": "550 5.1.1 no such user", "count": 1})
        assert "failed: 550 5.1.1" in told(fleet, 78, *self.SEND)
        assert used() == 1
        told(fleet, 0, *self.SEND)
        assert "takes no mail now: quota" in told(fleet, 75, *self.SEND)
        assert len(fleet.sink.accepted()) == 2

    @pytest.mark.parametrize(
        ("rule", "code", "words"),
        [
            ({"phase": "dot", "reply": "451 4.3.0 later"}, 75, "deferred: 451 4.3.0"),
            ({"phase": "mail", "reply": "530 5.7.0 no"}, 78, "sender_fault: 530"),
            ({"phase": "dot", "then": "reset"}, 75, "uncertain:"),
            ({"phase": "connect", "then": "close"}, 75, "not sent: "),
        ],
    )
    def test_what_the_relay_says_is_told(self, fleet: Fleet, rule: dict[str, object], code: int, words: str) -> None:
        fleet.sink.behave(rule)
        before = books(fleet)
        assert words in told(fleet, code, *self.SEND)
        assert books(fleet) == before

    def test_a_relay_with_a_login_and_a_ca_of_its_own_that_takes_ascii_alone(
        self, fleet: Fleet, tmp_path: Path
    ) -> None:
        (tmp_path / "secure").mkdir()
        made = Certificates.make(tmp_path / "secure")
        options = (f"--tls-cert={made.chain}", f"--tls-key={made.key}", "--require-tls", "--no-8bitmime")
        login = {environment.SMTP_USERNAME: "mailer", environment.SMTP_PASSWORD: "s3cret"}
        trust = {environment.SMTP_CA_FILE: str(made.ca)}
        with Sink(tmp_path / "secure", *options, "--auth=mailer:s3cret") as secure:
            fleet.relay_changes = {"host": "localhost", "port": secure.port, "tls": {"mode": "StartTLS"}}
            save_relay(fleet.engine, fleet.relay().model_copy(update={"authenticate": True}))
            told(fleet, 0, *self.SEND, "--key", "7", **login, **trust)
            ((_, body),) = secure.messages()
            assert "certificate" in told(fleet, 75, *self.SEND, **login)
            said = told(fleet, 78, *self.SEND, **trust)
            assert "auth.secretRef" in said
            assert len(secure.accepted()) == 1
        assert body.isascii()
        plain = parse(body).get_body(("plain",))
        assert plain
        assert plain.get_content() == "Hallo Zoë 7, bis 24. November 2026 für 7,50\xa0€\r\n"

    def test_what_cannot_be_meant_is_refused(self, fleet: Fleet) -> None:
        assert "--to must be an address" in told(fleet, 64, "test", CAMPAIGN, "--relay", "relay", "--to", "me")
        assert "--relay" in told(fleet, 64, "test", CAMPAIGN, "--to", "me@example.org")
        assert "knows no relay test/other" in told(fleet, 78, *self.SEND, "--relay", "other")
        pod = {environment.RUN: str(fleet.run), environment.RELAY: f"{NAMESPACE}/relay"}
        told(fleet, 0, "test", "--to", "me@example.org", **pod)
        away = {environment.REDIS_URL: f"redis://127.0.0.1:{free_port()}/0"}
        assert "not sent: " in told(fleet, 75, *self.SEND, **away)
        assert len(fleet.sink.accepted()) == 1
