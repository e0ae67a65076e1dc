"""Filters for dates, numbers and money: written as a language does; what cannot be meant says so, early if it can."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_sender.errors import PlanError, RenderError
from mailfleet_sender.message import LocalCode
from mailfleet_sender.message.templates import Compiled

DAY = dt.date(2026, 11, 24)
MOMENT = dt.datetime(2026, 11, 24, 23, 30, tzinfo=dt.UTC)
PLAIN_MOMENT = dt.datetime(2026, 11, 24, 23, 30)  # noqa: DTZ001 - what a column without a zone gives


def compiled(source: str, *, html: bool = False) -> Compiled:
    return Compiled("message.text", source, html=html, limit=10_000)


def rendered(source: str, value: object = None, **more: object) -> str:
    return compiled(source).render({"x": value, **more}).replace("\xa0", " ").replace("\u202f", " ")


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ("{{ x | date }}", DAY, "Nov 24, 2026"),
        ("{{ x | date('long', 'de') }}", DAY, "24. November 2026"),
        ("{{ x | date('EEEE, d. MMMM', locale='de-AT') }}", DAY, "Dienstag, 24. November"),
        ("{{ x | date('short', 'en_GB') }}", "2026-11-24", "24/11/2026"),
        ("{{ x | date('short', 'de') }}", MOMENT, "24.11.26"),
        ("{{ x | date('short', 'de', zone='Europe/Berlin') }}", MOMENT, "25.11.26"),
        ("{{ x | date('short', 'de') }}", PLAIN_MOMENT, "24.11.26"),
        ("{{ x | time('short', 'de') }}", MOMENT, "23:30"),
        ("{{ x | time('short', 'de', 'Europe/Berlin') }}", MOMENT, "00:30"),
        ("{{ x | time('short', 'en') }}", dt.time(8, 5), "8:05 AM"),
        ("{{ x | datetime('short', 'de', 'America/New_York') }}", MOMENT, "24.11.26, 18:30"),
        ("{{ x | datetime('short', 'de') }}", "2026-11-24T23:30:00Z", "24.11.26, 23:30"),
        ("{{ x | datetime('y-MM-dd HH:mm zzz', 'de', 'Europe/Berlin') }}", MOMENT, "2026-11-25 00:30 MEZ"),
        ("{{ x | datetime('short', 'de') }}", PLAIN_MOMENT, "24.11.26, 23:30"),
        ("{{ x | number('de') }}", 1234567, "1.234.567"),
        ("{{ x | number('en', '#,##0.00') }}", Decimal("1234.5"), "1,234.50"),
        ("{{ x | number('fr') }}", 1234.5, "1 234,5"),
        ("{{ x | currency('EUR', 'de') }}", Decimal("1234.5"), "1.234,50 €"),
        ("{{ x | currency('JPY') }}", 1234, "¥1,234"),
        ("{{ x | currency('USD', locale='en_US') }}", "19.9", "$19.90"),
        ("{{ x | currency('CHF', 'de_CH') }}", Decimal("-0.05"), "CHF-0.05"),
        ("{{ x.ends | date('short', x.language) }}", {"ends": "2026-11-24", "language": "de"}, "24.11.26"),
    ],
)
def test_written_as_the_language_writes_it(source: str, value: object, expected: str) -> None:
    assert rendered(source, value) == expected


def test_one_moment_in_two_zones_is_written_twice() -> None:
    source = "{{ x | time('HH:mm', 'de', 'UTC') }} {{ x | time('HH:mm', 'de', 'Asia/Tokyo') }}"
    assert rendered(source, MOMENT) == "23:30 08:30"
    berlin = "{{ x | time('HH:mm zzz', 'de', 'Europe/Berlin') }}"
    twice = [dt.datetime(2026, 10, 25, hour, 30, tzinfo=dt.UTC) for hour in (0, 1)]
    assert [rendered(berlin, moment) for moment in twice] == ["02:30 MESZ", "02:30 MEZ"]


def test_amounts_that_are_equal_are_written_as_they_are_given() -> None:
    digits = [rendered("{{ x | number('de') }}", Decimal(text)) for text in ("1.5", "1.50", "1.5")]
    assert digits[0] == digits[2]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\n{{ x | date('long', 'xx_YY') }}", "line 2: the locale is not known: it must be as de or de_AT"),
        ("{{ x | datetime(zone='Europe/Berln') }}", "line 1: the zone is not known"),
        ("{{ x | datetime(zone='../../etc/passwd') }}", "the zone is not known"),
        ("{{ x | date('dddd') }}", "date: the format cannot be used"),
        ("{{ x | date('%d.%m.%Y') }}", "date: the format is a pattern of CLDR, as d. MMMM y"),
        ("{{ x | currency('EURO') }}", "the currency is not known: it must be a code of ISO 4217, as EUR"),
        ("{{ x | currency }}", "currency: wrong arguments; it takes currency, locale, format"),
        ("{{ x | date('long', 'de', 'UTC', 1) }}", "date: wrong arguments; it takes format, locale, zone"),
        ("{{ x | date(style='long') }}", "date: wrong arguments"),
        ("{{ x | date(7) }}", "format must be a text"),
        ("{% if y %}{{ x | number('qq') }}{% endif %}", "the locale is not known"),
        ("{{ x | nosuch }}", "nosuch"),
    ],
)
def test_an_argument_that_cannot_be_meant_fails_the_plan(source: str, words: str) -> None:
    with pytest.raises(PlanError, match=r"message\.text: line") as caught:
        compiled(source)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("source", "value", "words"),
    [
        ("{{ x | date }}", "24.11.2026", "text must be as 2026-11-24"),
        ("{{ x | date }}", 7, "the value is no date"),
        ("{{ x | date }}", dt.time(8), "a time of day has no date"),
        ("{{ x | time }}", DAY, "a date has no time of day"),
        ("{{ x | datetime }}", DAY, "use date or time"),
        ("{{ x | datetime(zone='Europe/Berlin') }}", PLAIN_MOMENT, "use timestamptz, or leave zone out"),
        ("{{ x | date(zone='Asia/Tokyo') }}", dt.datetime.max.replace(tzinfo=dt.UTC), "years 1 to 9999"),
        ("{{ x | number }}", "many", "the value is no number"),
        ("{{ x | number }}", True, "the value is no number"),
        ("{{ x | number }}", float("nan"), "the value is no number"),
        ("{{ x | number }}", "1e999999", "more than 64 digits"),
        ("{{ x | number }}", "9" * 5000, "more than 64 digits"),
        pytest.param("{{ x | number }}", 10**5000, "the value is no number", id="an int of 5001 digits"),
        ("{{ 5 | number(x) }}", "nosuch", "the locale is not known"),
        ("{{ 5 | currency(x) }}", "<b>", "the currency is not known"),
        ("{{ 5 | number('en', x) }}", "#" * 1000, "format must be a text of at most 100"),
    ],
)
def test_a_value_that_cannot_be_meant_fails_its_recipient_without_being_told(
    source: str, value: Any, words: str
) -> None:
    with pytest.raises(RenderError) as caught:
        rendered(source, value)
    assert caught.value.code == LocalCode.RENDER_FAILED
    assert words in caught.value.detail
    assert str(caught.value.detail).startswith("message.text: ")


def test_null_stays_undefined_on_both_sides_of_a_default() -> None:
    before, after = "{{ x | default('soon') | upper }}", "{{ x | date('long', 'de') | default('soon') }}"
    assert compiled(after).render({}) == "soon"
    assert compiled(after).required == compiled(before).required == frozenset()
    assert compiled("{{ x | currency('EUR') | d('') }}").render({}) == ""
    for name in ("date", "time", "datetime", "number", "currency('EUR')"):
        with pytest.raises(RenderError) as caught:
            compiled(f"{{{{ x | {name} }}}}").render({})
        assert caught.value.code == LocalCode.VALUE_MISSING
        assert "'x'" in caught.value.detail
        assert compiled(f"{{{{ x | {name} }}}}").required == {"x"}
    assert compiled("{{ x | date | upper | default('a') }}").required == {"x"}


def test_html_is_still_escaped() -> None:
    source = """{{ x | date("'<b>' y", "de") }}"""
    assert compiled(source, html=True).render({"x": DAY}) == "&lt;b&gt; 2026"
    assert compiled("{{ x | number('en', f) }}", html=True).render({"x": 5, "f": "'<b>'0"}) == "&lt;b&gt;5"


@given(st.one_of(st.text(), st.integers(), st.floats(), st.decimals(), st.dates(), st.datetimes(), st.booleans()))
def test_whatever_a_column_holds_is_written_or_refused_never_worse(value: object) -> None:
    codes: set[str] = set()
    for name in ("date", "time", "datetime", "number('de')", "currency('EUR', 'de')"):
        try:
            assert len(rendered(f"{{{{ x | {name} }}}}", value)) < 200
        except RenderError as error:
            codes.add(error.code)
    assert codes <= {LocalCode.RENDER_FAILED}


def test_the_manual_tells_what_is_written() -> None:
    row = {
        "first_name": "Zoë", "ends_on": DAY, "starts_at": MOMENT, "price": Decimal("1234.5"), "language": "de",
        "note": "<b>", "profile": {"city": "Wien"},
    }  # fmt: skip
    lines = (Path(__file__).parents[2] / "docs/messages.md").read_text().splitlines()
    told = [re.fullmatch(r"\| `(.*)` \| (.*) \|", line) for line in lines]
    examples = [(found[1].replace(r"\|", "|"), found[2]) for found in told if found]
    assert len(examples) == 13
    for source, expected in examples:
        assert compiled(source).render(row).replace("\xa0", " ").replace("\u202f", " ") == expected, source
