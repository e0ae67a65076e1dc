"""Recipients from CSV files: loaded into the ledger by the real verb, planned, read back, killed, erased, forgotten."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csv_desk import PEOPLE, Desk
from mailfleet_sender.audience import Row
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.ledger import Runs, load_address_key, migrate, open_ledger, retain
from mailfleet_sender.ledger.erasure import erase
from mailfleet_sender.ledger.suppression import AddressHasher
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mailfleet_sender.contract.campaign import Campaign


@pytest.fixture
def desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    migrate(database_url)
    ledger = open_ledger(database_url, application_name="test", pool_size=2)
    yield Desk(database_url, ledger, tmp_path)
    ledger.dispose()


def test_a_file_is_planned_with_its_lines_as_keys(desk: Desk) -> None:
    desk.write(PEOPLE)
    assert desk.plan() is Exit.DONE
    assert (desk.row.state, desk.row.planned, desk.row.skipped, desk.row.key_type) == ("Planned", 3, 0, "bigint")
    assert desk.planned() == {None: ["2", "3", "4"]}
    rows = desk.audience(desk.campaign(), ["first_name", "plan"]).rows(["2", "3", "4", "5"])
    assert rows["2"] == Row("2", "ann@example.com", {"first_name": "Ann", "plan": "gold"})
    assert rows["3"] == Row("3", "bob@example.com", {"first_name": "Bob"}), "an empty field is undefined"
    assert rows["4"] == Row("4", "cy@example.com", {"plan": "silver"})
    assert "5" not in rows


def test_lines_are_sorted_as_numbers_and_the_first_of_a_double_is_mailed(desk: Desk) -> None:
    people = [f"u{n}@example.com,N" for n in range(2, 12)] + [
        "U3@Example.com ,N",
        "nobody,N",
        "jürgen@example.com,N",
        ",N",
    ]
    desk.write("email,first_name\n" + "\n".join(people))
    assert desk.plan() is Exit.DONE
    assert desk.planned() == {
        None: [str(n) for n in range(2, 12)],
        "DuplicateAddress": ["12"],
        "InvalidAddress": ["13"],
        "AddressNotAscii": ["14"],
        "NoAddress": ["15"],
    }
    told = Runs(desk.ledger).audience(desk.run)
    read_at = datetime.fromisoformat(told.pop("fileReadAt"))
    (loaded_at,) = desk.sql("SELECT at FROM csv_load")[0]
    assert read_at <= loaded_at.astimezone(UTC) + timedelta(seconds=1), "when it was opened, not when it was done"
    assert told == {
        "domains": [["example.com", 100]],
        "lines": {"InvalidAddress": ["13"], "AddressNotAscii": ["14"], "NoAddress": ["15"]},
    }
    assert desk.plan(desk.campaign({"duplicateAddresses": "Send"})) is Exit.DONE
    assert desk.planned()[None] == [str(n) for n in range(2, 13)]


def test_addresses_are_in_the_column_that_is_named(desk: Desk) -> None:
    desk.write("email,first_name,mail\n,Ann,ann@example.com\nbob@example.com,Bob,\n")
    assert desk.plan(desk.campaign(emailColumn="mail")) is Exit.DONE
    assert desk.planned() == {None: ["2"], "NoAddress": ["3"]}


def test_match_compares_fields_as_text(desk: Desk) -> None:
    desk.write(PEOPLE)
    gold = [{"column": "plan", "operator": "In", "values": ["gold", "x"]}]
    assert desk.plan(desk.campaign(match=gold)) is Exit.DONE
    assert desk.planned() == {None: ["2"]}
    assert desk.audience(desk.campaign(match=gold)).rows(["2", "3"]).keys() == {"2"}
    none = [{"column": "plan", "operator": "IsNull"}]
    assert desk.plan(desk.campaign(match=none)) is Exit.DONE
    assert desk.planned() == {None: ["3"]}


def test_a_column_gives_the_keys(desk: Desk) -> None:
    desk.write('id,email,first_name\n"b\\""\t",b@example.com,B\na,a@example.com,A\n007,c@example.com,C\n')
    keyed = desk.campaign(keyColumn="id")
    assert desk.plan(keyed) is Exit.DONE
    assert (desk.planned(), desk.row.key_type) == ({None: ["007", "a", 'b\\"\t']}, "text")
    rows = desk.audience(keyed, ["id"]).rows(['b\\"\t', "007", "2"])
    assert {key: row.values for key, row in rows.items() if isinstance(row, Row)} == {
        'b\\"\t': {"id": 'b\\"\t'}, "007": {"id": "007"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "csv_fields", "reason", "words"),
    [
        ("email,first_name\na@example.com\n", {}, ReportReason.CSV_INVALID, ["line 2 has 1 field, the header 2"]),
        (b"email,first_name\n\xff,x\n", {}, ReportReason.CSV_INVALID, ["line 2 is not UTF-8"]),
        ("email;first_name\n", {}, ReportReason.CSV_INVALID, ["'email;first_name'", "by commas"]),
        ("mail,first_name\n", {}, ReportReason.COLUMN_NOT_FOUND, ["csv.emailColumn", "mean mail?", "mail, first_name"]),
        (
            "email,name\n",
            {},
            ReportReason.COLUMN_NOT_FOUND,
            ["message names the column 'first_name', which the file has not"],
        ),
        ("email,first_name\n", {"keyColumn": "id"}, ReportReason.COLUMN_NOT_FOUND, ["recipients.csv.keyColumn"]),
        (
            "email,first_name\na@example.com,1\nb@example.com,\n",
            {"keyColumn": "first_name"},
            ReportReason.KEY_NULL,
            ["line 3 has nothing in 'first_name'", "leave keyColumn out"],
        ),
        (
            "email,first_name\na@example.com,1\nb@example.com,2\nb@example.com,1\n",
            {"keyColumn": "first_name"},
            ReportReason.KEY_NOT_UNIQUE,
            ["lines 2 and 4", "leave keyColumn out"],
        ),
        (
            "email,first_name\n",
            {"match": [{"column": "plan", "operator": "IsNull"}]},
            ReportReason.COLUMN_NOT_FOUND,
            ["recipients.csv.match"],
        ),
    ],
)
def test_what_cannot_be_planned_is_reported_with_its_remedy(
    desk: Desk, content: str | bytes, csv_fields: dict[str, Any], reason: ReportReason, words: list[str]
) -> None:
    desk.write(content)
    ended, seen, message = desk.refused(desk.campaign(**csv_fields))
    assert (ended, seen) == (Exit.IMPOSSIBLE, reason)
    assert all(word in message for word in words), message


def test_a_missing_config_map_may_come(desk: Desk) -> None:
    ended, reason, message = desk.refused()
    assert (ended, reason) == (Exit.INTERRUPTED, ReportReason.CONFIG_MAP_NOT_FOUND)
    assert "ConfigMap vip with the key people.csv" in message
    desk.write(PEOPLE)
    assert desk.plan() is Exit.DONE
    assert Runs(desk.ledger).reports([desk.run]) == []


def test_an_edit_before_the_start_reads_the_file_again_and_the_old_rows_go(desk: Desk) -> None:
    desk.write(PEOPLE)
    assert desk.plan() is Exit.DONE
    desk.write("email,first_name\nnew@example.com,New\n")
    assert desk.plan() is Exit.DONE, "nothing to do: the definition is planned"
    assert desk.planned() == {None: ["2", "3", "4"]}
    edited = desk.campaign({"duplicateAddresses": "Send"})
    assert desk.plan(edited) is Exit.DONE
    assert desk.planned() == {None: ["2"]}
    assert desk.sql("SELECT count(*), count(DISTINCT plan) FROM csv_row") == [(1, 1)]
    assert desk.sql("SELECT count(*) FROM csv_load") == [(1,)]


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ['"', "\\", "\\N", "\\.", "{}", "NULL", "\t", "\r\n", "=1+1", ",", '\\\\"', "%s", ":x", "'"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=6), quoting=st.sampled_from([0, 1]))
def test_what_the_csv_module_writes_is_what_the_templates_get(
    desk: Desk, rows: list[tuple[str, str, str]], quoting: int
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting)
    writer.writerow(["email", "first_name", "b", "c"])
    writer.writerows((f"u{n}@example.com", *row) for n, row in enumerate(rows))
    desk.write(text.getvalue())
    desk.sql("DELETE FROM page; DELETE FROM csv_row; DELETE FROM csv_load; DELETE FROM run_message; DELETE FROM run")
    assert desk.plan() is Exit.DONE
    names = ("first_name", "b", "c")
    keys = desk.planned()[None]
    found = desk.audience(desk.campaign(), names).rows(keys)
    expected = [{name: value for name, value in zip(names, row, strict=True) if value} for row in rows]
    assert [row.values for key in keys if isinstance(row := found[key], Row)] == expected


# --- killed, twice, too late ------------------------------------------------------------------------------

MANY = 60_000


@pytest.fixture
def slow(desk: Desk) -> Desk:
    """A file of many, above a ledger that takes a second for it: time enough to die in."""
    desk.write("email,first_name\n" + "".join(f"u{n}@example.com,N\n" for n in range(MANY)))
    desk.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.line % 1000 = 0 THEN PERFORM pg_sleep(0.02); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON csv_row FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    desk.run = Runs(desk.ledger).ensure("marketing", "news", "1", desk.campaign()).id
    return desk


def planned_once(desk: Desk) -> bool:
    rows = "SELECT count(*) = {many}, count(DISTINCT line) = {many}, count(DISTINCT plan) = 1, min(plan) FROM csv_row"
    ((*right, plan),) = desk.sql(rows.format(many=MANY))
    return all(right) and (desk.row.planned, desk.row.plan_id) == (MANY, plan) and len(desk.planned()[None]) == MANY


@pytest.mark.parametrize("least", [0, 1, 20_000, 50_000])
def test_a_planner_killed_while_it_loads_leaves_the_work_to_the_next(slow: Desk, least: int) -> None:
    planner = slow.planner()
    wait_for("it has begun", lambda: slow.sql("SELECT plan_wanted FROM run") == [(1,)], interval=0.01)
    wait_for("so much is loaded", lambda: slow.sql(f"SELECT count(*) >= {least} FROM csv_row")[0][0], interval=0.01)
    planner.kill()
    planner.communicate()
    last = slow.planner()
    last.communicate()
    assert last.returncode == Exit.DONE
    assert planned_once(slow)


def test_planners_that_run_at_once_publish_one_load_and_leave_no_other(slow: Desk) -> None:
    planners = [slow.planner() for _ in range(3)]
    for planner in planners:
        planner.communicate()
    assert {p.returncode for p in planners} == {Exit.DONE}
    assert slow.plan() is Exit.DONE
    assert planned_once(slow)


def test_what_a_planner_left_that_nobody_followed_is_swept_after_a_day(slow: Desk) -> None:
    planner = slow.planner()
    wait_for("some are loaded", lambda: slow.sql("SELECT count(*) > 0 FROM csv_row")[0][0], interval=0.01)
    planner.kill()
    planner.communicate()
    retain(slow.ledger, months=12)
    assert slow.sql("SELECT count(*) > 0 FROM csv_row") == [(True,)]
    slow.sql("UPDATE csv_load SET at = at - interval '25 hours'")
    retain(slow.ledger, months=12)
    assert slow.sql("SELECT (SELECT count(*) FROM csv_row), (SELECT count(*) FROM csv_load)") == [(0, 0)]
    last = slow.planner()
    last.communicate()
    assert planned_once(slow)


def test_a_file_of_many_needs_no_more_memory_than_one_of_few(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    peaks = {}
    for count in (60_000, 240_000):
        desk.write("email,first_name\n" + "".join(f"user{n}@example.com,Name {n}\n" for n in range(count)))
        desk.run = Runs(desk.ledger).ensure("marketing", "news", str(count), desk.campaign()).id
        planner = desk.planner()
        said = json.loads(planner.communicate()[1].splitlines()[-1])
        assert (planner.returncode, said["planned"]) == (0, count)
        peaks[count] = said["peak_rss_kib"]
        with capsys.disabled():
            print(f"\nplan of a file of {count}: {said['seconds']} s, peak RSS {said['peak_rss_kib']} KiB")
    assert peaks[240_000] < peaks[60_000] * 1.1


# --- persons ------------------------------------------------------------------------------------------------


def test_a_days_after_the_end_of_the_run_the_rows_are_gone(desk: Desk) -> None:
    desk.write(PEOPLE)
    assert desk.plan() is Exit.DONE
    desk.sql("UPDATE run SET state = 'Complete', ended_at = clock_timestamp() - interval '23 hours'")
    retain(desk.ledger, months=12)
    assert desk.sql("SELECT count(*) FROM csv_row") == [(3,)]
    desk.sql("UPDATE run SET ended_at = ended_at - interval '2 hours'")
    retain(desk.ledger, months=12)
    assert desk.sql("SELECT (SELECT count(*) FROM csv_row), (SELECT count(*) FROM csv_load)") == [(0, 0)]
    assert desk.audience(desk.campaign()).rows(["2"]) == {}, "who is retried after that is gone"


def test_erased_by_address_before_a_mail_was_sent(desk: Desk) -> None:
    desk.write(PEOPLE)
    assert desk.plan() is Exit.DONE
    hashed = AddressHasher(load_address_key(desk.ledger))("bob@example.com")
    assert hashed
    assert erase(desk.ledger, [hashed], ["Bob@Example.com"]) == 1
    assert desk.planned() == {None: ["2", None, "4"]}
    assert desk.sql("SELECT line FROM csv_row ORDER BY 1") == [(2,), (4,)]
    assert erase(desk.ledger, [hashed], ["Bob@Example.com"]) == 0


def test_erased_by_an_outcome_whatever_its_key_looks_like(desk: Desk) -> None:
    desk.write("id,email,first_name\nk-1,ann@example.com,Ann\n7,bob@example.com,Bob\n")
    assert desk.plan(desk.campaign(keyColumn="id")) is Exit.DONE
    hasher = AddressHasher(load_address_key(desk.ledger))
    found = hasher("old@example.com")
    assert found
    desk.sql(
        "INSERT INTO delivery (run, range, pos, key, attempt, outcome, address_hash) "
        f"VALUES ({desk.run}, 1, 0, 'k-1', 1, 'sent', '\\x{found.hex()}')"
    )
    assert erase(desk.ledger, [found], ["old@example.com"]) == 1
    assert desk.sql("SELECT key FROM csv_row") == [("7",)]


def test_a_line_of_another_load_is_another_person(desk: Desk) -> None:
    """A newer file is being loaded: erasing whom a line of the older means must not touch that line of the newer."""
    desk.write(PEOPLE)
    assert desk.plan() is Exit.DONE
    desk.sql("INSERT INTO csv_load SELECT run, plan + 1, columns, email, keyed FROM csv_load")
    desk.sql("INSERT INTO csv_row SELECT run, plan + 1, line, key, '{x@example.com,X,gold}' FROM csv_row")
    assert erase(desk.ledger, [b"?"], ["bob@example.com"]) == 1
    assert desk.sql("SELECT plan, line FROM csv_row ORDER BY 1, 2") == [(1, 2), (1, 4), (2, 2), (2, 3), (2, 4)]


# --- a volume -------------------------------------------------------------------------------------------------


def in_volume(desk: Desk, path: str) -> Campaign:
    (desk.folder / "volume").mkdir(exist_ok=True)
    return desk.campaign(persistentVolumeClaim={"claimName": "lists", "path": path})


def test_a_file_of_a_volume_is_read(desk: Desk) -> None:
    campaign = in_volume(desk, "lists/vip.csv")
    (desk.folder / "volume/lists").mkdir()
    (desk.folder / "volume/lists/vip.csv").write_text(PEOPLE)
    assert desk.plan(campaign) is Exit.DONE
    assert desk.planned() == {None: ["2", "3", "4"]}


def test_a_link_within_the_volume_is_followed_and_one_out_of_it_is_not(desk: Desk) -> None:
    campaign = in_volume(desk, "newest.csv")
    link = desk.folder / "volume/newest.csv"
    link.symlink_to("/proc/self/environ")
    ended, reason, message = desk.refused(campaign)
    assert (ended, reason) == (Exit.IMPOSSIBLE, ReportReason.SOURCE_REFUSED)
    assert "newest.csv of volume lists leads out of the volume" in message
    link.unlink()
    (desk.folder / "volume/2026.csv").write_text(PEOPLE)
    link.symlink_to("2026.csv")
    assert desk.plan(campaign) is Exit.DONE


@pytest.mark.parametrize(
    ("make", "reason", "words"),
    [
        (lambda path: None, ReportReason.SOURCE_UNAVAILABLE, "is not there"),
        (os.mkfifo, ReportReason.SOURCE_REFUSED, "is no regular file"),
        (os.mkdir, ReportReason.SOURCE_REFUSED, "is no regular file"),
    ],
)
def test_what_is_no_file_of_the_volume_is_said(desk: Desk, make: Any, reason: ReportReason, words: str) -> None:
    campaign = in_volume(desk, "vip.csv")
    make(desk.folder / "volume/vip.csv")
    _, seen, message = desk.refused(campaign)
    assert seen is reason
    assert words in message


def test_a_volume_larger_than_any_list_is_refused(desk: Desk) -> None:
    campaign = in_volume(desk, "vip.csv")
    with (desk.folder / "volume/vip.csv").open("wb") as file:
        file.truncate(4 * 1024**3 + 1)
    _, reason, message = desk.refused(campaign)
    assert reason is ReportReason.SOURCE_REFUSED
    assert "larger than" in message
