"""A campaign whose spec cannot be read is left alone, and says so.

The schema of the CRD refuses such specs; they come from a CRD of another version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.conditions import Type, false, true

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Stop before anything that needs the spec."""
    if not o.campaign.invalid:
        return None
    message = f"the spec cannot be read: {o.campaign.invalid}. Install the CRDs of this operator's version"
    return Step(
        conditions=(false(Type.PLANNED, "SpecInvalid", message), true(Type.STALLED, "SpecInvalid", message)), last=True
    )
