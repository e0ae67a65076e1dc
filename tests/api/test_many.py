"""Two hundred campaigns at once on a real API server, as `make many` measures them, for fewer seconds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from many_campaigns import broken, measure, operator_of_many
from services import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path


def test_two_hundred_campaigns_are_seen_to_without_asking_the_api_server_for_lists(tmp_path: Path) -> None:
    with operator_of_many(tmp_path, 200) as (many, operator):
        result = measure(many, operator, seconds=20)
        log = operator.log.read_text()
    print(json.dumps(result))
    assert broken(result, patience=PATIENCE) == []
    assert result["requests_per_campaign_per_minute"] > 0, "they were counted"
    assert "Traceback" not in log, log[-6000:]
