"""Each field of the custom resources has a test that shows it: tests/reference/fields.yaml names it."""

from __future__ import annotations

from functools import cache

import pytest

from custom_resources import ROOT
from mailfleet_release import field_tests

SHOWN = field_tests.shown()
FIELDS = [(kind, field) for kind, fields in field_tests.fields().items() for field in fields]
WITHOUT: frozenset[tuple[str, str]] = frozenset()
"""Fields that may stay without a test; fields.yaml says why."""


@cache
def found_in(file: str) -> set[str]:
    return field_tests.tests_of((ROOT / file).read_text(encoding="utf-8"))


def test_every_field_is_there_once_and_no_other() -> None:
    named = [(kind, field) for kind, entries in SHOWN.items() for field in entries]
    assert sorted(named) == sorted(FIELDS)
    assert len(FIELDS) > 140
    assert field_tests.twice(field_tests.SOURCE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[f"{kind}:{field}" for kind, field in FIELDS])
def test_its_tests_exist(kind: str, field: str) -> None:
    tests = SHOWN[kind].get(field)
    if isinstance(tests, dict):
        assert (kind, field) in WITHOUT
        assert list(tests) == ["none"]
        assert len(tests["none"].split()) > 3
        return
    assert (kind, field) not in WITHOUT, "it has a test now: take it off the list"
    assert tests
    assert len(set(tests)) == len(tests)
    for test in tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), file
        assert name in found_in(file), test


def test_a_test_is_found_by_its_text_alone() -> None:
    source = "def test_a(): ...\nasync def test_b(): ...\n# def test_c\n"
    source += "class TestC:\n  def test_d(self): ...\n  def e(self): ...\n"
    assert field_tests.tests_of(source) == {"test_a", "test_b", "TestC::test_d"}


def test_a_key_that_stands_twice_is_seen() -> None:
    assert field_tests.twice("A: {x: [t], y: [t], x: [u]}\nB: {x: [t]}\nA: {}\n") == ["A", "x"]


def test_page_is_made_of_the_entries_as_they_are() -> None:
    """Mend it with: make api-reference"""
    assert field_tests.PAGE.read_text(encoding="utf-8") == field_tests.page()
