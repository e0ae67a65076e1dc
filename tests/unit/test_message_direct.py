"""The short way of simple templates writes what Jinja writes, or leaves it to Jinja."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfleet_sender.errors import RenderError
from mailfleet_sender.message.content import crlf
from mailfleet_sender.message.templates import Compiled

NOISE = ["\n", "\r\n", "\r", "<b>", "&amp;", "%s", "%(a)s", "}}", "'", '"', "é", "\0", " ", "  \n", "\\n", "#"]
TEXT = st.lists(
    st.sampled_from(NOISE) | st.text(alphabet=st.characters(exclude_characters="{", exclude_categories=["Cs"]))
)
PLACE = st.sampled_from(
    ["{{ a }}", "{{a}}", "{{- b }}", "{{ b -}}", "{{ c|default('<none> & \"none\"') }}", '{{ a | d("x\ny") }}',
     "{# no #}",
     "{% raw %}{{ a }}{% endraw %}"]
)  # fmt: skip
TEMPLATE = st.lists(TEXT.map("".join) | PLACE, max_size=12).map("".join)
VALUE = st.one_of(
    st.lists(st.sampled_from(NOISE)).map("".join), st.text(max_size=30), st.integers(), st.floats(), st.booleans(),
    st.decimals(), st.dates(), st.datetimes(timezones=st.none() | st.just(dt.UTC)), st.times(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
ROW = st.dictionaries(st.sampled_from(["a", "b", "c", "other"]), VALUE)


def outcome(write: object, *arguments: object) -> object:
    try:
        return write(*arguments)  # type: ignore[operator]
    except RenderError as error:
        return error.code, error.detail
    except UnicodeEncodeError:
        return "half a character"


@settings(max_examples=600)
@given(TEMPLATE, ROW, st.booleans())
@example("{{ a }}\n", {"a": "\r"}, True)
@example("{{ a }}{{ b }}", {"a": "\r", "b": "\n"}, False)
@example("{{ a }}", {}, True)
@example("{{ a }}", {"a": "\ud800"}, False)
@example("{{ a }}{{ a }}", {"a": True}, True)
def test_it_writes_what_jinja_writes(source: str, row: dict[str, object], html: bool) -> None:
    header = Compiled("f", source, html=html, limit=10_000)
    body = Compiled("f", source, html=html, body=True, limit=10_000)
    assert header._direct is not None
    assert body._direct is not None
    assert outcome(header.render, row) == outcome(header._rendered, row)
    assert outcome(body.octets, row) == outcome(lambda: crlf(body._rendered(row)))


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "x\ny",
        "<x>",
        7,
        1.5,
        True,
        Decimal("1.50"),
        dt.date(2026, 1, 2),
        dt.time(8),
        dt.datetime.min.replace(tzinfo=dt.UTC),
    ],
)
def test_it_does_so_for_ordinary_values(value: object) -> None:
    made = Compiled("f", "Dear {{ a }},\n", html=True, body=True, limit=100)
    assert made._direct
    assert made._direct.render({"a": value}, 100) is not None


@pytest.mark.parametrize(
    "source",
    [
        "{{ a|upper }}", "{{ a.b }}", "{{ a + b }}", "{{ 'x' }}", "{% if a %}x{% endif %}", "{{ a|default(b) }}",
        "{{ a|default('x', true) }}", "{{ a|default(default_value='x') }}", "{{ a|default }}", "{{ a|default(1) }}",
        "{{ range(a) }}", "{{ self }}", "{% set b = 1 %}{{ b }}", "{{ a|safe }}", "{{ a|default('x')|upper }}",
    ],
)  # fmt: skip
def test_all_else_is_jinjas(source: str) -> None:
    assert Compiled("f", source, limit=100)._direct is None


def test_the_limit_holds() -> None:
    made = Compiled("f", "{{ a }}{{ a }}", limit=100)
    assert made.render({"a": "x" * 50}) == "x" * 100
    with pytest.raises(RenderError, match="longer than 100"):
        made.render({"a": "x" * 51})
