"""A run's composer, the same for planner, sender, preview and test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .message import Composer

if TYPE_CHECKING:
    from .contract.materials import Materials
    from .ledger import Snapshot

FEEDBACK_SENDER = "mailfleet"
"""The last field of Feedback-ID: 5 to 15 characters, the same for all mail of one sender (Gmail's feedback loop)."""


def composer_of(snapshot: Snapshot, materials: Materials | None = None) -> Composer:
    """Compile a run's message.

    Args:
        snapshot: of the run.
        materials: of a plan that is being made; None: those of the published one.

    Raises:
        PlanError: the message cannot work, naming the field.
    """
    run_id = snapshot.run_key.rpartition("/")[2]
    return Composer(
        snapshot.campaign.message,
        run_key=snapshot.run_key,
        materials=snapshot.materials if materials is None else materials,
        list_id=f"{snapshot.name}.{snapshot.namespace}",
        feedback_id=f"{snapshot.name}:{run_id}:{snapshot.namespace}:{FEEDBACK_SENDER}",
    )
