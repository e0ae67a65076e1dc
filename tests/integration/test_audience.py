"""The audience on a real Postgres: what is planned, what is refused with which words, what a page read gives."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledgers import keys_of
from mailfleet_sender.audience import Audience, KeyType, Row, SkipReason, UnusableRow, open_recipients, statement
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.campaign import DuplicateAddresses, Exclusion, Match, MatchOperator, Table
from mailfleet_sender.errors import AudienceUnavailable, PlanError
from mailfleet_sender.message import LocalCode, is_address
from mailfleet_sender.message.address import BLANKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from services import PostgresServer

    Make = Callable[..., Audience]

BASIC = """
    CREATE TABLE subscribers (id bigint PRIMARY KEY, email text, first_name text, plan varchar(4), active boolean);
    INSERT INTO subscribers VALUES
        (1, 'ann@example.com', 'Ann', 'gold', true), (2, 'bob@example.com', NULL, 'free', false),
        (3, 'ANN@example.COM', 'Ann again', 'gold', true), (4, NULL, 'No', 'free', true), (5, '  ', 'No', 'free', true),
        (6, 'nonsense', 'Bad', 'free', true), (7, 'jürgen@example.com', 'J', 'free', true),
        (8, E' \\tcid@example.com\\r\\n', 'Cid', NULL, NULL);
"""


def run_sql(url: str, sql: str, *args: Any) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, args or None)
    finally:
        connection.close()


@pytest.fixture
def make(database_url: str) -> Make:
    """Runs SQL, then gives an Audience over the table `subscribers` (or as told)."""

    def make(
        sql: str = BASIC,
        columns: tuple[str, ...] = (),
        *,
        exclude: tuple[dict[str, str], ...] = (),
        duplicates: DuplicateAddresses = DuplicateAddresses.SKIP,
        **table: Any,
    ) -> Audience:
        run_sql(database_url, sql)
        engine = open_recipients(database_url, application_name="test")
        return Audience(
            engine,
            Table.model_validate({"name": "subscribers", **table}),
            columns,
            exclude=[Exclusion.model_validate({"table": one}) for one in exclude],
            duplicate_addresses=duplicates,
        )

    return make


def match(column: str, operator: MatchOperator, *values: str) -> Match:
    return Match(column=column, operator=operator, values=values)


def planned(audience: Audience) -> dict[SkipReason | None, list[str]]:
    found: dict[SkipReason | None, list[str]] = {}
    for page in audience.pages():
        found.setdefault(page.reason and SkipReason(page.reason), []).extend(keys_of(page))
    return found


def test_every_row_is_planned_once_with_the_reason_to_skip_it(make: Make) -> None:
    assert planned(make()) == {
        None: ["1", "2", "8"],
        SkipReason.DUPLICATE_ADDRESS: ["3"],
        SkipReason.NO_ADDRESS: ["4", "5"],
        SkipReason.INVALID_ADDRESS: ["6"],
        SkipReason.ADDRESS_NOT_ASCII: ["7"],
    }


def test_duplicates_may_be_sent(make: Make) -> None:
    assert planned(make(duplicates=DuplicateAddresses.SEND))[None] == ["1", "2", "3", "8"]


STAFF = """
    CREATE TABLE staff (email text);
    INSERT INTO staff VALUES (NULL), (''), ('nonsense'), ('jürgen@example.com'), (E' \\tBOB@example.com\\n'),
        ('bob@example.com'), ('stranger@example.com'), (repeat('x', 100000));
    CREATE SCHEMA "old%"; CREATE TYPE "old%".kind AS ENUM ('ANN@example.com');
    CREATE TABLE "old%"."Left" ("E-Mail" "old%".kind); INSERT INTO "old%"."Left" VALUES ('ANN@example.com'), (NULL);
"""
LEFT = {"schema": "old%", "name": "Left", "emailColumn": "E-Mail"}


@pytest.mark.parametrize("duplicates", DuplicateAddresses)
def test_excluded_addresses_are_skipped_in_any_case_of_letters(make: Make, duplicates: DuplicateAddresses) -> None:
    """All rows of an excluded address are excluded, none of them is a duplicate; what gets no mail stays so named."""
    audience = make(BASIC + STAFF, exclude=({"name": "staff"}, LEFT), duplicates=duplicates)
    audience.check()
    assert planned(audience) == {
        None: ["8"],
        SkipReason.EXCLUDED: ["1", "2", "3"],
        SkipReason.NO_ADDRESS: ["4", "5"],
        SkipReason.INVALID_ADDRESS: ["6"],
        SkipReason.ADDRESS_NOT_ASCII: ["7"],
    }


def test_an_exclusion_of_nobody_excludes_nobody(make: Make) -> None:
    audience = make(
        BASIC + "CREATE TABLE none (email text); CREATE VIEW nulls AS SELECT NULL::text AS email FROM subscribers",
        exclude=({"name": "none"}, {"name": "nulls"}),
    )
    assert planned(audience)[None] == ["1", "2", "8"]


def test_a_campaign_may_exclude_rows_of_its_own_table_by_a_view(make: Make) -> None:
    view = "CREATE VIEW gone AS SELECT email FROM subscribers WHERE NOT active"
    assert planned(make(BASIC + view, exclude=({"name": "gone"},)))[None] == ["1", "8"]


def test_excluded_rows_are_neither_sampled_nor_asked_for_values(make: Make) -> None:
    """Row 2 alone has no first name."""
    audience = make(BASIC + STAFF, ("first_name",), exclude=({"name": "staff"},))
    assert audience.nulls(["first_name"]) == {}
    assert [row.key for row in audience.sample(2)] == ["1", "3"]
    audience = make("SELECT 1", ("first_name",), exclude=(LEFT,))
    assert audience.nulls(["first_name"]) == {"first_name": 1}
    assert [row.key for row in audience.sample(2)] == ["2", "8"]


def test_exclusion_is_decided_by_the_plan_alone(make: Make) -> None:
    assert set(make(BASIC + STAFF, exclude=({"name": "staff"},)).rows(["1", "2"])) == {"1", "2"}


def test_pages_are_full_numbered_and_in_key_order(make: Make) -> None:
    audience = make(
        "CREATE TABLE subscribers (id int PRIMARY KEY, email text);"
        "INSERT INTO subscribers SELECT g, CASE WHEN g % 4 > 1 THEN 'u' || g || '@example.com' "
        "WHEN g % 4 = 1 THEN 'bad' END FROM generate_series(1, 5000) g ORDER BY random()"
    )
    pages = list(audience.pages())
    main = [p for p in pages if p.reason is None]
    assert [p.number for p in main] == list(range(5))
    assert [p.keys.count for p in main] == [500] * 5
    keys = [int(k) for p in main for k in keys_of(p)]
    assert keys == sorted(keys) == [g for g in range(1, 5001) if g % 4 > 1]
    skipped = [p for p in pages if p.reason is not None]
    assert [p.number for p in skipped] == list(range(6))
    assert sum(p.keys.count for p in skipped) == 2500
    assert all(p.keys.count == len(keys_of(p)) > 0 for p in pages)


def test_an_empty_table_is_an_empty_plan(make: Make) -> None:
    assert list(make("CREATE TABLE subscribers (id int PRIMARY KEY, email text)").pages()) == []


@pytest.mark.parametrize(
    ("declared", "values", "kind"),
    [
        ("smallint", ["-3", "7"], KeyType.SMALLINT),
        ("integer", ["-2147483648", "7"], KeyType.INTEGER),
        ("bigint", ["-9223372036854775808", "9223372036854775807"], KeyType.BIGINT),
        ("uuid", [str(uuid.UUID(int=5)), str(uuid.UUID(int=2**128 - 1))], KeyType.UUID),
        ("varchar(30)", ["", "A'\"\\%s:x{}", "a"], KeyType.VARCHAR),
        ("text", [" ", "B", "a", "ä\n\t", "日本"], KeyType.TEXT),
    ],
)
def test_keys_travel_as_text_and_find_their_rows_again(
    make: Make, database_url: str, declared: str, values: list[str], kind: KeyType
) -> None:
    audience = make(f"CREATE TABLE subscribers (id {declared} PRIMARY KEY, email text, name text)", ("name",))
    for n, value in enumerate(values):
        run_sql(database_url, "INSERT INTO subscribers VALUES (%s, %s, %s)", value, f"u{n}@example.com", f"n{n}")
    assert audience.check() is kind
    assert planned(audience)[None] == values
    rows = audience.rows(values)
    assert rows == {v: Row(v, f"u{n}@example.com", {"name": f"n{n}"}) for n, v in enumerate(values)}


def test_of_text_keys_the_smallest_by_octets_wins_in_any_locale(make: Make) -> None:
    found = planned(
        make(
            'CREATE TABLE subscribers (id text COLLATE "und-x-icu" PRIMARY KEY, email text);'
            "INSERT INTO subscribers VALUES ('a', 'x@example.com'), ('B', 'X@example.com'), ('b', 'y@example.com')"
        )
    )
    assert found == {None: ["B", "b"], SkipReason.DUPLICATE_ADDRESS: ["a"]}


@pytest.mark.parametrize(
    ("matches", "keys"),
    [
        ([match("active", MatchOperator.EQUALS, "true")], ["1", "3", "4", "5", "6", "7"]),
        ([match("active", MatchOperator.NOT_EQUALS, "true")], ["2"]),
        ([match("plan", MatchOperator.IN, "gold", "free")], ["1", "2", "3", "4", "5", "6", "7"]),
        ([match("plan", MatchOperator.NOT_IN, "gold")], ["2", "4", "5", "6", "7"]),
        ([match("plan", MatchOperator.EQUALS, "golden")], []),
        ([match("plan", MatchOperator.IS_NULL)], ["8"]),
        ([match("plan", MatchOperator.IS_NOT_NULL), match("id", MatchOperator.EQUALS, "2")], ["2"]),
        ([match("first_name", MatchOperator.EQUALS, "' OR true --")], []),
    ],
)
def test_match_chooses_the_rows(make: Make, matches: list[Match], keys: list[str]) -> None:
    audience = make(match=[m.model_dump() for m in matches])
    audience.check()
    assert sorted(k for ks in planned(audience).values() for k in ks) == keys


def test_any_identifier_works(make: Make, database_url: str) -> None:
    audience = make(
        'CREATE SCHEMA "sele%ct :x"; CREATE TYPE "sele%ct :x"."ty%pe" AS ENUM (\'a\', \'b\');'
        'CREATE TABLE "sele%ct :x"."or""der" ("gro%up" int PRIMARY KEY, "E-Mail ✉" text, "user" text, '
        '"naïve" text, k "sele%ct :x"."ty%pe");'
        "INSERT INTO \"sele%ct :x\".\"or\"\"der\" VALUES (1, 'a@example.com', 'u', 'n', 'b')",
        ("user", "naïve"),
        schema="sele%ct :x",
        name='or"der',
        keyColumn="gro%up",
        emailColumn="E-Mail ✉",
        match=[{"column": "k", "operator": "In", "values": ["b"]}],
    )
    assert audience.check() is KeyType.INTEGER
    assert planned(audience) == {None: ["1"]}
    assert audience.nulls(["user"]) == {}
    assert audience.rows(["1"]) == {"1": Row("1", "a@example.com", {"user": "u", "naïve": "n"})}


def test_a_view_is_a_table(make: Make) -> None:
    audience = make(
        BASIC + "CREATE VIEW people AS SELECT id::text AS id, email, upper(first_name) AS n FROM subscribers", ("n",),
        name="people",
    )  # fmt: skip
    assert audience.check() is KeyType.TEXT
    assert planned(audience)[None] == ["1", "2", "8"]
    assert audience.rows(["1"]) == {"1": Row("1", "ann@example.com", {"n": "ANN"})}


def test_rows_come_live_and_only_those_that_still_match(make: Make, database_url: str) -> None:
    audience = make(columns=("first_name",), match=[{"column": "active", "operator": "IsNotNull"}])
    assert set(audience.rows(["1", "2", "3", "8"])) == {"1", "2", "3"}
    run_sql(database_url, "DELETE FROM subscribers WHERE id = 1; UPDATE subscribers SET active = NULL WHERE id = 2")
    run_sql(database_url, "UPDATE subscribers SET first_name = 'Anna' WHERE id = 3")
    assert audience.rows(["1", "2", "3"]) == {"3": Row("3", "ANN@example.COM", {"first_name": "Anna"})}


def test_null_is_left_out_and_types_are_pythons_own(make: Make) -> None:
    audience = make(
        "CREATE TYPE mood AS ENUM ('happy');"
        "CREATE TABLE subscribers (id int PRIMARY KEY, email text, a text, b boolean, c date, d timestamptz, "
        "e numeric, f jsonb, g uuid, h bytea, i text[], j mood, k float8, l json, m char(5), n interval);"
        "INSERT INTO subscribers VALUES (1, 'a@example.com', NULL, false, '2026-02-01', '2026-02-01 10:00+00', 1.50, "
        "'{\"x\": [1, null]}', '00000000-0000-0000-0000-000000000005', 'ab', '{x,y}', 'happy', 0.5, "
        "'null', 'ab', '1 day')",
        tuple("abcdefghijklmn"),
    )
    row = audience.rows(["1"])["1"]
    assert isinstance(row, Row)
    assert row.values == {
        "b": False,
        "c": dt.date(2026, 2, 1),
        "d": dt.datetime(2026, 2, 1, 10, tzinfo=dt.UTC),
        "e": Decimal("1.50"),
        "f": {"x": [1, None]},
        "g": "00000000-0000-0000-0000-000000000005",
        "h": "\\x6162",
        "i": "{x,y}",
        "j": "happy",
        "k": 0.5,
        "m": "ab",
        "n": "1 day",
    }


def test_a_value_over_a_megabyte_is_that_recipients_failure_alone(make: Make) -> None:
    audience = make(
        "CREATE TABLE subscribers (id int PRIMARY KEY, email text, a text, b jsonb);"
        "INSERT INTO subscribers VALUES (1, 'a@example.com', repeat('x', 1048576), '1'), "
        "(2, 'b@example.com', repeat('ä', 524289), '1'), (3, 'c@example.com', 'x', to_jsonb(repeat('y', 1048577))),"
        "(4, repeat('d', 1048577), 'x', '1')",
        ("a", "b"),
    )
    rows = audience.rows(["1", "2", "3", "4"])
    assert isinstance(rows["1"], Row)
    for key, column in (("2", "a"), ("3", "b"), ("4", "email")):
        bad = rows[key]
        assert isinstance(bad, UnusableRow)
        assert bad.code is LocalCode.ROW_TOO_LARGE
        assert f"'{column}'" in bad.detail


def test_a_value_that_python_has_not_is_that_recipients_failure_alone(make: Make) -> None:
    audience = make(
        "CREATE TABLE subscribers (id int PRIMARY KEY, email text, d date, j json);"
        "INSERT INTO subscribers SELECT g, 'u' || g || '@example.com', '2026-01-01', '{}' "
        "FROM generate_series(1, 100) g;"
        "UPDATE subscribers SET d = '20260-01-01' WHERE id = 17;"
        "UPDATE subscribers SET d = '0044-03-15 BC' "
        "WHERE id = 18;"
        "UPDATE subscribers SET j = (repeat('[', 3000) || repeat(']', 3000))::json WHERE id = 99",
        ("d", "j"),
    )
    rows = audience.rows([str(n) for n in range(1, 101)])
    bad = {key: row.code for key, row in rows.items() if isinstance(row, UnusableRow)}
    assert bad == dict.fromkeys(("17", "18", "99"), LocalCode.ROW_UNREADABLE)
    assert len(rows) == 100


def test_the_transaction_cannot_write(make: Make) -> None:
    audience = make(
        "CREATE TABLE t (n int); CREATE TABLE base (id int PRIMARY KEY, email text); INSERT INTO base VALUES (1, 'x');"
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ INSERT INTO t VALUES (1) RETURNING 'a@example.com' $$;"
        "CREATE VIEW subscribers AS SELECT id, f() AS email FROM base"
    )
    with pytest.raises(sa.exc.DBAPIError, match=r"read-only|INSERT"):
        list(audience.pages())


# --- what fails a plan -------------------------------------------------------------------------------


def refusal(audience: Audience) -> PlanError:
    with pytest.raises(PlanError) as caught:
        audience.check()
    assert len(caught.value.message.encode()) <= 256
    return caught.value


def test_a_missing_table_is_named_with_its_likely_spelling(make: Make) -> None:
    error = refusal(make(name="Subscribers"))
    assert error.reason is ReportReason.TABLE_NOT_FOUND
    assert "public.Subscribers" in error.message
    assert "did you mean subscribers?" in error.message


@pytest.mark.parametrize(
    ("columns", "table", "words"),
    [
        (("frist_name",), {}, ["'frist_name'", "message", "Did you mean first_name?", "Columns: id, email"]),
        ((), {"keyColumn": "key"}, ["'key'", "keyColumn"]),
        ((), {"emailColumn": "mail"}, ["'mail'", "emailColumn", "email"]),
        ((), {"match": [{"column": "x", "operator": "IsNull"}]}, ["'x'", "match"]),
    ],
)
def test_a_missing_column_is_named_with_those_that_are_there(
    make: Make, columns: tuple[str, ...], table: dict[str, Any], words: list[str]
) -> None:
    error = refusal(make(columns=columns, **table))
    assert error.reason is ReportReason.COLUMN_NOT_FOUND
    assert all(word in error.message for word in words)


@pytest.mark.parametrize(
    ("exclude", "reason", "words"),
    [
        ({"name": "staf"}, ReportReason.TABLE_NOT_FOUND, ["exclude[1].table:", "public.staf ", "did you mean staff?"]),
        (
            {"name": "staff", "schema": "nowhere"},
            ReportReason.TABLE_NOT_FOUND,
            ["exclude[1].table:", "schema and name"],
        ),
        (
            {"name": "staff", "emailColumn": "mail"},
            ReportReason.COLUMN_NOT_FOUND,
            ["exclude[1].table.emailColumn names the column 'mail'", "Did you mean email?"],
        ),
    ],
)
def test_what_is_missing_of_an_exclusion_is_named_by_its_field(
    make: Make, exclude: dict[str, str], reason: ReportReason, words: list[str]
) -> None:
    error = refusal(make(BASIC + STAFF, exclude=(LEFT, exclude)))
    assert error.reason is reason
    assert error.message.startswith("spec.recipients.")
    assert all(word in error.message for word in words), error.message


def test_an_exclusion_that_the_role_may_not_read_says_what_to_grant(make: Make, database_url: str) -> None:
    make(BASIC + STAFF + "CREATE ROLE reader LOGIN; GRANT SELECT ON subscribers TO reader")
    engine = open_recipients(database_url.replace("postgres@", "reader@"), application_name="test")
    exclusion = Exclusion.model_validate({"table": {"name": "staff"}})
    error = refusal(Audience(engine, Table(name="subscribers"), (), exclude=[exclusion]))
    run_sql(database_url, "DROP OWNED BY reader; DROP ROLE reader")
    assert error.reason is ReportReason.DATABASE_REFUSED
    assert "'email' of public.staff" in error.message
    assert "GRANT" in error.message


def test_a_table_with_very_many_columns_fits_the_message(make: Make) -> None:
    wide = ", ".join(f"column_number_{n} int" for n in range(300))
    error = refusal(make(f"CREATE TABLE subscribers (id int PRIMARY KEY, email text, {wide})", ("zzz",)))
    assert error.message.endswith("...")


@pytest.mark.parametrize("declared", ["numeric", "char(3)", "timestamptz", "bytea", "boolean", "float8"])
def test_other_key_types_are_refused(make: Make, declared: str) -> None:
    error = refusal(make(f"CREATE TABLE subscribers (id {declared} PRIMARY KEY, email text)"))
    assert error.reason is ReportReason.KEY_TYPE_UNSUPPORTED
    assert "'id'" in error.message


def test_null_keys_are_counted(make: Make) -> None:
    sql = "CREATE TABLE subscribers (id int, email text); INSERT INTO subscribers VALUES (NULL, 'a'), (1, 'b')"
    error = refusal(make(sql))
    assert error.reason is ReportReason.KEY_NULL
    assert "'id' is NULL in 1 rows" in error.message


def test_null_keys_outside_of_match_do_no_harm(make: Make) -> None:
    sql = (
        "CREATE TABLE subscribers (id int, email text);INSERT INTO subscribers VALUES (NULL, 'a'), (1, 'b@example.com')"
    )
    assert planned(make(sql, match=[{"column": "id", "operator": "IsNotNull"}])) == {None: ["1"]}


def test_doubled_keys_are_counted(make: Make) -> None:
    sql = (
        "CREATE TABLE subscribers (id int NOT NULL, email text);"
        "INSERT INTO subscribers SELECT g % 7 FROM generate_series(1, 9) g"
    )
    error = refusal(make(sql))
    assert error.reason is ReportReason.KEY_NOT_UNIQUE
    assert "'id' holds 2 doubled values" in error.message


def test_a_childs_double_is_found_behind_its_parents_primary_key(make: Make) -> None:
    sql = (
        "CREATE TABLE subscribers (id int PRIMARY KEY, email text); CREATE TABLE more () INHERITS (subscribers);"
        "INSERT INTO subscribers VALUES (1); INSERT INTO more VALUES (1)"
    )
    assert refusal(make(sql)).reason is ReportReason.KEY_NOT_UNIQUE


@pytest.mark.parametrize(
    "one",
    [
        match("active", MatchOperator.EQUALS, "perhaps"),
        match("id", MatchOperator.IN, "1", "two"),
        match("id", MatchOperator.EQUALS, "99999999999999999999"),
        match("plan", MatchOperator.EQUALS),
        match("plan", MatchOperator.EQUALS, "a", "b"),
        match("plan", MatchOperator.IN),
        match("plan", MatchOperator.IS_NULL, "x"),
        match("plan", MatchOperator.EQUALS, "a\0b"),
        match("doc", MatchOperator.EQUALS, "{}"),
    ],
)
def test_a_match_that_cannot_work_is_named(make: Make, one: Match) -> None:
    error = refusal(make(BASIC + "ALTER TABLE subscribers ADD doc json", match=[one.model_dump()]))
    assert error.reason is ReportReason.MATCH_INVALID
    assert repr(one.column) in error.message


def test_a_database_that_does_not_answer_is_unavailable(postgres: PostgresServer) -> None:
    engine = open_recipients("postgresql://me:s3cret@127.0.0.1:1/x", application_name="test")
    error = refusal(Audience(engine, Table(name="t"), ()))
    assert isinstance(error, AudienceUnavailable)
    assert error.reason is ReportReason.DATABASE_UNAVAILABLE
    assert "s3cret" not in repr(error) + error.message + str(engine.url)


@pytest.mark.parametrize(
    ("user", "database", "words"),
    [("nobody_here", "postgres", "user or password"), ("postgres", "no_such_database", "no database of that name")],
)
def test_a_refused_login_says_so_without_the_url(
    postgres: PostgresServer, user: str, database: str, words: str
) -> None:
    url = f"postgresql+psycopg2://{user}:s3cret@127.0.0.1:{postgres.port}/{database}"
    error = refusal(Audience(open_recipients(url, application_name="test"), Table(name="t"), ()))
    assert error.reason is ReportReason.DATABASE_REFUSED
    assert words in error.message
    assert not any(secret in error.message for secret in ("s3cret", "127.0.0.1", user + ":"))


def test_a_url_that_is_none_is_refused_without_telling_it() -> None:
    with pytest.raises(AudienceUnavailable) as caught:
        open_recipients("postgresql://me:s3cret@[oops/x", application_name="test")
    assert caught.value.reason is ReportReason.DATABASE_REFUSED
    assert "s3cret" not in str(caught.value)


def test_a_role_without_the_right_to_read_is_told_what_to_grant(make: Make, database_url: str) -> None:
    make(BASIC + "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; GRANT SELECT (id) ON subscribers TO reader")
    engine = open_recipients(database_url.replace("postgres@", "reader@"), application_name="test")
    error = refusal(Audience(engine, Table(name="subscribers"), ()))
    run_sql(database_url, "DROP OWNED BY reader; DROP ROLE reader")
    assert error.reason is ReportReason.DATABASE_REFUSED
    assert "'email'" in error.message
    assert "GRANT" in error.message


def test_a_table_that_goes_while_sending_is_waited_for(make: Make, database_url: str) -> None:
    audience = make(columns=("first_name",))
    assert audience.rows(["1"])
    run_sql(database_url, "ALTER TABLE subscribers RENAME first_name TO given_name")
    with pytest.raises(AudienceUnavailable) as caught:
        audience.rows(["1"])
    assert caught.value.reason is ReportReason.COLUMN_NOT_FOUND
    run_sql(database_url, "ALTER TABLE subscribers RENAME given_name TO first_name")
    assert audience.rows(["1"])


def test_a_database_that_restarts_is_read_again(make: Make, database_url: str) -> None:
    audience = make()
    assert audience.rows(["1"])
    run_sql(database_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'")
    with pytest.raises(AudienceUnavailable) as caught:
        audience.rows(["1"])
    assert caught.value.reason is ReportReason.DATABASE_UNAVAILABLE
    assert audience.rows(["1"])


# --- a database that promises nothing about its bytes ------------------------------------------------


@pytest.fixture
def ascii_url(postgres: PostgresServer) -> str:
    """A SQL_ASCII database: it stores any octets as text."""
    name = f"ascii_{uuid.uuid4().hex[:8]}"
    run_sql(postgres.url("postgres"), f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    return postgres.url(name)


def test_a_key_that_is_not_utf8_fails_the_plan_with_its_place(ascii_url: str) -> None:
    run_sql(
        ascii_url,
        "CREATE TABLE subscribers (id text PRIMARY KEY, email text);"
        r"INSERT INTO subscribers VALUES ('a', 'a@example.com'), (E'k\xff', 'b@example.com'), ('z', 'c@example.com')",
    )
    audience = Audience(open_recipients(ascii_url, application_name="test"), Table(name="subscribers"), ())
    audience.check()
    with pytest.raises(PlanError, match=r"number 2 .* at its octet 2") as caught:
        list(audience.pages())
    assert caught.value.reason is ReportReason.KEY_NOT_UTF8


def test_a_row_that_is_not_utf8_is_that_recipients_failure_alone(ascii_url: str) -> None:
    run_sql(
        ascii_url,
        "CREATE TABLE subscribers (id int PRIMARY KEY, email text, name text);"
        r"INSERT INTO subscribers VALUES (1, 'a@example.com', E'Zo\xc3\xab'), (2, 'b@example.com', E'Zo\xeb'),"
        r"(3, E'\xff', 'x')",
    )
    audience = Audience(open_recipients(ascii_url, application_name="test"), Table(name="subscribers"), ("name",))
    assert planned(audience) == {None: ["1", "2"], SkipReason.ADDRESS_NOT_ASCII: ["3"]}
    rows = audience.rows(["1", "2", "3"])
    assert rows["1"] == Row("1", "a@example.com", {"name": "Zoë"})
    assert {key for key, row in rows.items() if isinstance(row, UnusableRow)} == {"2", "3"}


# --- one rule, two engines ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sql_judges(postgres: PostgresServer) -> Callable[[list[str]], list[bool]]:
    engine = sa.create_engine(postgres.url("postgres").replace("postgresql:", "postgresql+psycopg2:"))

    def judge(texts: list[str]) -> list[bool]:
        with engine.connect() as connection:
            values = (
                sa.func.unnest(sa.cast(texts, sa.ARRAY(sa.Text)))
                .table_valued("t", with_ordinality="n")
                .render_derived()
            )
            query = sa.select(statement.usable(sa.func.lower(values.c.t.collate("C")))).order_by(values.c.n)
            return list(connection.execute(query).scalars())

    return judge


ADDRESSES = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
    st.text(alphabet="aZ9.-@_+'\n é\"<>", max_size=40),
    st.from_regex(r"[a-z.!'+-]{1,66}@([a-z0-9-]{1,66}\.){1,4}[a-z0-9-]{1,66}", fullmatch=True),
    st.emails(),
    st.builds(lambda n, m: f"{'l' * n}@{'d' * m}.com", st.integers(60, 70), st.integers(60, 70)),
    st.builds(lambda n: f"a@{'d.' * n}com", st.integers(120, 130)),
)


def folded(text: str) -> str:
    """Without blanks and in small letters, ASCII alone: U+212A is no K, in no locale."""
    return re.sub("[A-Z]+", lambda found: found[0].lower(), text.strip(BLANKS))


def verdicts(rows: list[tuple[int, str | None]], barred: list[str | None]) -> dict[SkipReason | None, list[str]]:
    """What a plan must say, in Python: rows by key, one after the other."""
    seen: set[str] = set()
    found: dict[SkipReason | None, list[str]] = {}
    trimmed = {folded(text or "") for text in barred}
    for key, stored in sorted(rows):
        text = (stored or "").strip(BLANKS)
        if not text:
            reason: SkipReason | None = SkipReason.NO_ADDRESS
        elif not is_address(text):
            reason = SkipReason.INVALID_ADDRESS if text.isascii() else SkipReason.ADDRESS_NOT_ASCII
        elif folded(text) in trimmed:
            reason = SkipReason.EXCLUDED
        else:
            reason = SkipReason.DUPLICATE_ADDRESS if folded(text) in seen else None
            seen.add(folded(text))
        found.setdefault(reason, []).append(str(key))
    return found


ALIKE = ["a@example.com", "A@Example.com", " a@example.com\t", "b@example.com", "b@EXAMPLE.com", "c@example.com"]
ODD = ["", " ", "a@", "K@example.com", "k@example.com", "\u212a@example.com", "İ@example.com"]
FEW = st.none() | st.sampled_from(ALIKE + ODD)


@pytest.fixture(scope="module")
def people(postgres: PostgresServer) -> str:
    url = postgres.database()
    run_sql(url, "CREATE TABLE subscribers (id int PRIMARY KEY, email text); CREATE TABLE staff (email text)")
    return url


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 99), FEW), max_size=30, unique_by=lambda row: row[0]), st.lists(FEW, max_size=5)
)
@example(rows=[(0, "K@example.com")], barred=["\u212a@example.com"])
def test_a_plan_judges_as_python_would(
    people: str, rows: list[tuple[int, str | None]], barred: list[str | None]
) -> None:
    run_sql(people, "TRUNCATE subscribers, staff")
    for row in rows:
        run_sql(people, "INSERT INTO subscribers VALUES (%s, %s)", *row)
    for text in barred:
        run_sql(people, "INSERT INTO staff VALUES (%s)", text)
    exclusion = Exclusion.model_validate({"table": {"name": "staff"}})
    engine = open_recipients(people, application_name="test")
    audience = Audience(engine, Table(name="subscribers"), (), exclude=[exclusion])
    assert planned(audience) == verdicts(rows, barred)
    engine.dispose()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ADDRESSES, min_size=1, max_size=50))
def test_python_and_postgres_agree_about_every_address(
    sql_judges: Callable[[list[str]], list[bool]], texts: list[str]
) -> None:
    assert sql_judges(texts) == [is_address(t) for t in texts]
