"""A range that has ended stays as it is, whoever comes late."""

from __future__ import annotations

from uuid import uuid4

from ledgers import FAST, Desk, send_all
from mailfleet_sender.ledger.connection import transaction
from mailfleet_sender.ledger.statements import close, take


def test_an_ended_range_is_not_taken_settled_or_closed_again(database_url: str) -> None:
    with Desk(database_url) as desk:
        owned = desk.own()
        send_all(owned)
        before = desk.sql("SELECT epoch, seq, state, owner FROM range WHERE id = %s", owned.id)
        assert not desk.runs.settle(owned.id)
        with transaction(desk.engine()) as connection:  # one that had seen it Open, and comes too late
            assert not take(connection, owned.id, uuid4(), FAST)
            assert not close(connection, owned.id, FAST)
        assert desk.sql("SELECT epoch, seq, state, owner FROM range WHERE id = %s", owned.id) == before
        assert desk.totals() == {"planned": 2_000, "sent": 500, "remaining": 1_500}
