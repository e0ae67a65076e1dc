"""The verb `suppress`, as a person runs it."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from mailfleet_sender.contract import environment
from mailfleet_sender.ledger import AddressHasher, load_address_key, migrate, open_ledger, suppressed
from services import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine


@pytest.fixture
def ledger(database_url: str) -> Iterator[Engine]:
    migrate(database_url)
    engine = open_ledger(database_url, application_name="test")
    yield engine
    engine.dispose()


def suppress(url: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the verb with nothing but the ledger's URL."""
    return verb(url, "suppress", *words, stdin=stdin)


def verb(url: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mailfleet_sender", *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), environment.LEDGER_URL: url},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def done(url: str, *words: str, stdin: str = "") -> str:
    ran = suppress(url, *words, stdin=stdin)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(url: str, *words: str, stdin: str = "") -> str:
    ran = suppress(url, *words, stdin=stdin)
    assert ran.returncode == 64, (ran.stdout, ran.stderr)
    return ran.stderr


def held(engine: Engine, namespace: str, *addresses: str) -> dict[str, str]:
    hasher = AddressHasher(load_address_key(engine))
    hashes = {h: a for a in addresses if (h := hasher(a))}
    return {hashes[h]: reason for h, reason in suppressed(engine, namespace, list(hashes)).items()}


def test_added_listed_exported_and_removed(ledger: Engine, database_url: str) -> None:
    url, ann, bob = database_url, "ann@example.com", "bob@example.com"
    assert done(url, "add", "--namespace", "shop", " Ann@Example.com", bob) == "2 suppressed\n"
    assert done(url, "add", "--global", "--reason", "Complaint", "--expires", "2999-01-31", bob) == "1 suppressed\n"
    assert held(ledger, "shop", ann, bob) == {ann: "Manual", bob: "Manual"}
    assert held(ledger, "other", ann, bob) == {bob: "Complaint"}
    exported = list(csv.DictReader(io.StringIO(done(url, "export"))))
    assert [(r["reason"], r["scope"], r["expires"]) for r in exported] == [
        ("Complaint", "Global", "2999-01-31T00:00:00+00:00"),
        ("Manual", "shop", ""),
        ("Manual", "shop", ""),
    ]
    assert {len(r["hash"]) for r in exported} == {64}
    assert datetime.fromisoformat(exported[0]["created"]) <= datetime.now(UTC)
    header, one = done(url, "list", "--namespace", "shop", ann).splitlines()
    assert header.split() == ["HASH", "REASON", "SCOPE", "CREATED", "EXPIRES"]
    assert one.split()[1:3] == ["Manual", "shop"]
    assert one.split()[-1] == "never"
    assert len(done(url, "list").splitlines()) == 4
    assert done(url, "list", "nobody@example.com").splitlines() == [header]
    assert "example.com" not in done(url, "list") + done(url, "export")
    assert done(url, "remove", "--namespace", "shop", bob, "nobody@example.com") == "1 removed\n"
    assert held(ledger, "shop", ann, bob) == {ann: "Manual", bob: "Complaint"}
    assert done(url, "add", "--namespace", "shop", "--expires", "2020-01-01", ann) == "1 suppressed\n"
    assert held(ledger, "shop", ann) == {}


def test_what_cannot_be_meant_is_refused_and_changes_nothing(ledger: Engine, database_url: str, tmp_path: Path) -> None:
    url, good = database_url, "good@example.com"
    assert "address 2 is no address" in refused(url, "add", "--global", good, "bad@@example.com")
    assert "--namespace must be" in refused(url, "add", "--namespace", "", good)
    assert "--namespace must be" in refused(url, "add", "--namespace", "Shop", good)
    assert "--reason must be" in refused(url, "add", "--global", "--reason", "no word", good)
    assert "--expires must be" in refused(url, "add", "--global", "--expires", "tomorrow", good)
    assert "cannot be read" in refused(url, "import", "--global", str(tmp_path / "none.csv"))
    assert "first line" in refused(url, "import", "--global", "-", stdin=f"mail\n{good}\n")
    told = refused(
        url,
        *("import", "--global", "-"),
        stdin=f"address,reason,expires\n{good},,\nbad-one@,,\n{good},Word,never\n{good},two words,\n{good},A,,more\n",
    )
    for line in (
        "line 3 is no address",
        "line 4: expires must",
        "line 5: reason must",
        "line 6 has more fields",
        "nothing was imported",
    ):
        assert line in told
    assert "bad-one" not in told
    assert suppress(url, "add", good).returncode == 2  # no scope
    assert suppress(url, "remove", "--namespace", "shop", "--global", good).returncode == 2
    assert held(ledger, "shop", good) == {}
    assert "MAILFLEET_LEDGER_URL is not set" in refused("", "list")
    assert suppress(f"postgresql://postgres@127.0.0.1:{free_port()}/none", "list").returncode == 75


def test_a_hundred_thousand_rows_are_imported_and_again(ledger: Engine, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    rows = "".join(f"user{i}@example.com,{'Complaint' if i % 2 else ''}\n" for i in range(100_000))
    file.write_text(f"\ufeffaddress,reason\n{rows}USER7@example.com,Law\n")
    for _ in range(2):
        assert done(database_url, "import", "--namespace", "shop", str(file)) == "100000 suppressed\n"
        with ledger.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM suppression").scalar() == 100_000
    asked = [f"user{i}@example.com" for i in (1, 2, 7, 99_999)]
    assert held(ledger, "shop", *asked) == dict(zip(asked, ("Complaint", "Manual", "Law", "Complaint"), strict=True))
    assert done(database_url, "import", "--global", "-", stdin="expires,address\n2999-01-01,x@example.com\n") == (
        "1 suppressed\n"
    )


def test_erased_by_address(ledger: Engine, database_url: str) -> None:
    ann = AddressHasher(load_address_key(ledger))("ann@example.com")
    with ledger.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO delivery (run, range, pos, key, attempt, outcome, address_hash)"
            " VALUES (1, 1, 0, 'k0', 1, 'sent', %s)",
            (ann,),
        )
    assert verb(database_url, "erase", "Ann@example.com", "bob@example.com").stdout == "1 erased\n"
    with ledger.connect() as connection:
        rows = connection.exec_driver_sql("SELECT key, address_hash, outcome FROM delivery").all()
    assert rows == [(None, None, "sent")]
    bad = verb(database_url, "erase", "ann")
    assert (bad.returncode, "address 1 is no address" in bad.stderr) == (64, True)


def test_addresses_are_read_from_standard_input_so_that_no_process_list_shows_them(
    ledger: Engine, database_url: str
) -> None:
    url, both = database_url, "Ann@example.com\nbob@example.com\n"
    assert done(url, "add", "--global", "-", stdin=both) == "2 suppressed\n"
    assert held(ledger, "shop", "ann@example.com", "bob@example.com").keys() == {"ann@example.com", "bob@example.com"}
    assert done(url, "remove", "--global", "-", stdin="bob@example.com") == "1 removed\n"
    assert held(ledger, "shop", "ann@example.com", "bob@example.com").keys() == {"ann@example.com"}
    assert verb(url, "erase", "-", stdin=both).stdout.endswith(" erased\n")
    assert (verb(url, "erase", "-").returncode, verb(url, "erase", "-", stdin="ann").returncode) == (64, 64)
