"""What makes a definition another one: its hash is over a canonical form, and old hashes stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

from mailfleet_sender.contract.campaign import Campaign

# Of a manifest as the API server fills it in, computed before `exclude` was a field.
BEFORE = "9d12b3b2bc15e9db3ad4bcf91edda93c0e1a9f6e2f10cbad32edd505d54773b9"


def campaign(**recipients: Any) -> Campaign:
    table = {"schema": "public", "name": "subscribers", "keyColumn": "id", "emailColumn": "email"}
    message = {"from": "Shop <news@example.com>", "subject": "Hi {{ first_name }}", "text": "x"}
    return Campaign.model_validate(
        {"recipients": {"table": table, "duplicateAddresses": "Skip", **recipients}, "message": message}
    )


@pytest.mark.parametrize("recipients", [{}, {"exclude": []}])
def test_a_definition_of_an_older_version_keeps_its_hash(recipients: dict[str, Any]) -> None:
    assert campaign(**recipients).definition_hash() == BEFORE


def test_an_exclusion_makes_another_definition_whether_its_defaults_are_said_or_not() -> None:
    short = campaign(exclude=[{"table": {"name": "staff"}}])
    full = campaign(exclude=[{"table": {"schema": "public", "name": "staff", "emailColumn": "email"}}])
    other = campaign(exclude=[{"table": {"schema": "hr", "name": "staff"}}])
    assert short.definition_hash() == full.definition_hash()
    assert len({BEFORE, short.definition_hash(), other.definition_hash()}) == 3
    assert Campaign.from_snapshot(other.snapshot()) == other
