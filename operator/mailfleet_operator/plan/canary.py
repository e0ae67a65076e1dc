"""`spec.canary`: a part of the audience is mailed first, and what became of it decides when the next part is.

Each step is a wave of its own. When all of its ranges have ended, it passes by itself if it is within its bounds and
its pause is over; or when a person approves it, whatever became of it. That it has passed is in the ledger, so an
operator that starts anew does not judge it again. Main begins after the last step and not before.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator.actions import EndStep, PassStep
from mailfleet_operator.conditions import Condition, Type, false, time_text
from mailfleet_operator.resources import Approval
from mailfleet_sender.contract.accounts import RunState

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation, StepView
    from mailfleet_operator.resources import Canary


def policy(o: Observation) -> Step | None:
    """Judge the step that has ended, and say what the next one waits for."""
    canary, step = (o.campaign.spec.canary if o.campaign.spec else None), present(o)
    if not (o.ledger and o.ledger.run and canary and step) or step.open:
        return None
    if step.ended_at is None:
        return Step((EndStep(o.ledger.run.id, step.number),))
    if o.held:
        return None
    if condition := _waits(o, canary, step):
        return Step(conditions=(condition,))
    return Step((PassStep(o.ledger.run.id, step.number),))


def _waits(o: Observation, canary: Canary, step: StepView) -> Condition | None:
    """What a step that has ended waits for; None: it passes."""
    if is_approved(o, canary, step) or step.ended_at is None:
        return None
    name, remedy = f"canary step {step.number} of {len(canary.steps)}", f"set spec.canary.approvedStep to {step.number}"
    if is_older_than_the_run(o, canary):
        remedy += f" (take it out first: the {canary.approved_step} that is there is older than this run)"
    if why := out_of_bounds(canary, step):
        message = f"{name}: {why}. Nobody is mailed. Mend it, then {remedy} to go on, or spec.cancel to end it"
        return false(Type.SENDING, "WaitingForApproval", message)
    figures = f"{step.sent} sent, {step.failed} failed, {step.deferred} deferred"
    if o.now < (goes_on := step.ended_at + timedelta(seconds=canary.pause_seconds)):
        message = f"{name} is done: {figures}. Its pause is over at {time_text(goes_on)}"
        return false(Type.SENDING, "CanaryPause", message)
    if canary.approval is Approval.MANUAL:
        return false(Type.SENDING, "WaitingForApproval", f"{name} is done: {figures}. To go on, {remedy}")
    return None


def present(o: Observation) -> StepView | None:
    """The last step that has begun, if the wave after it has not."""
    if not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN:
        return None
    return next((s for s in reversed(o.ledger.steps) if not s.held), None)


def is_halted(o: Observation) -> bool:
    """Whether a step is out of its bounds and nobody has approved it: then not even the deferred are tried again."""
    canary, step = (o.campaign.spec.canary if o.campaign.spec else None), present(o)
    if not (canary and step) or step.open:
        return False
    return not is_approved(o, canary, step) and out_of_bounds(canary, step) is not None


def is_approved(o: Observation, canary: Canary, step: StepView) -> bool:
    """Whether a person has let it pass, and meant this run."""
    return step.number <= (canary.approved_step or 0) and not is_older_than_the_run(o, canary)


def is_older_than_the_run(o: Observation, canary: Canary) -> bool:
    """Whether what is approved was left from another run of this campaign, which was deleted and applied anew."""
    run = o.ledger.run if o.ledger else None
    return bool(run and run.approved_before and run.approved_before == canary.approved_step)


def out_of_bounds(canary: Canary, step: StepView) -> str | None:
    """Which bound it has passed, with figures; None: none. Shares are of those of whom the relay was asked."""
    for count, what, most, name in (
        (step.failed, "failed", canary.max_failed_percent, "maxFailedPercent"),
        (step.deferred, "were deferred", canary.max_deferred_percent, "maxDeferredPercent"),
    ):
        if count * 100 > most * step.tried:
            with_code = f", most with {step.code}" if step.code and count == step.failed else ""
            share = f"{count * 100 / step.tried:.3g} %"
            return f"{count} of {step.tried} {what} ({share}{with_code}; {name} is {most})"
    return None
