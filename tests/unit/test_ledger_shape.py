"""Which shapes of the ledger a version can work with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_sender.errors import SettingsError
from mailfleet_sender.ledger import must_migrate
from mailfleet_sender.ledger.shape import parts

CHAIN = [f"{n:04d}" for n in range(1, 9)]


@st.composite
def chains(draw: st.DrawFn) -> list[str]:
    """Revisions in their order; some of them begin another contract."""
    contract, chain = 1, []
    for number in range(1, draw(st.integers(2, 12)) + 1):
        contract += number > 1 and draw(st.integers(0, 4)) == 0
        chain.append(f"{number:04d}" if contract == 1 else f"{number:04d}.{contract}")
    return chain


@given(chain=chains(), data=st.data())
def test_any_version_migrates_upwards_and_goes_on_with_what_later_ones_added(
    chain: list[str], data: st.DataObject
) -> None:
    """Whichever version did the last migration, and whichever comes now."""
    ours = data.draw(st.integers(1, len(chain)))
    has = data.draw(st.integers(0, len(chain)))
    known, found = chain[:ours], chain[has - 1] if has else None
    if has <= ours:
        assert must_migrate(found, known) == (has < ours)
    elif (parts(chain[has - 1]) or (0, 0))[1] == (parts(known[-1]) or (0, 0))[1]:
        assert not must_migrate(found, known)
    else:
        with pytest.raises(SettingsError, match="newer version that took away"):
            must_migrate(found, known)


@pytest.mark.parametrize("has", ["0000", "9", "head", "0008.2", "ae1027a6acf"])
def test_a_shape_of_somebody_else_is_told(has: str) -> None:
    with pytest.raises(SettingsError, match="none of Mailfleet's"):
        must_migrate(has, CHAIN)


def test_the_next_one_is_newer() -> None:
    assert not must_migrate("0009", CHAIN)
    with pytest.raises(SettingsError, match=r"0012\.2, made by a newer version .* \(it knows 0008\).*contract 2"):
        must_migrate("0012.2", CHAIN)
