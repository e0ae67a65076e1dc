"""docs/troubleshooting.md has a paragraph for every reason that a condition can have, and for no other."""

from __future__ import annotations

import re

from custom_resources import ROOT
from reasons import of_campaigns, of_relays

PAGE = (ROOT / "docs/troubleshooting.md").read_text()


def test_page_has_every_reason_and_no_other() -> None:
    on_the_page = re.findall(r"^### `(\w+)`", PAGE, re.MULTILINE)
    assert len(on_the_page) == len(set(on_the_page)), "each once"
    assert sorted(on_the_page) == sorted(of_campaigns())


def test_each_says_what_it_means_and_what_to_do() -> None:
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        name = section.splitlines()[0]
        assert "**Do:**" in section, name
        assert len(section.split("**Do:**")[0].splitlines()) >= 2, name


def test_page_of_relays_has_every_reason_of_theirs() -> None:
    page = (ROOT / "docs/relays.md").read_text()
    reasons = of_relays()
    assert {"Ready", "SpecInvalid", "RelayThrottling", "Preflighting", "CredentialsMissing"} < reasons
    assert [r for r in sorted(reasons - {"Ready", "NotThrottled"}) if r not in page] == []


def test_code_is_really_read() -> None:
    """One of each way in which a reason is written."""
    assert {"RelayInvalid", "PodsRejected", "Planning", "SendersLimited", "StartTimeRequired"} <= of_campaigns()
