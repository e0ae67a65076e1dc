"""What a policy says, and what the chain of them makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailfleet_operator.actions import Action
    from mailfleet_operator.conditions import Condition
    from mailfleet_operator.observation import Observation


@dataclass(frozen=True, slots=True)
class Step:
    """One policy's word: what to do, what is true, and whether the policies after it are heard at all."""

    actions: tuple[Action, ...] = ()
    conditions: tuple[Condition, ...] = ()
    last: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What all policies say together. Of two conditions of one type the earlier policy's counts."""

    actions: tuple[Action, ...] = ()
    conditions: tuple[Condition, ...] = ()


Policy: TypeAlias = "Callable[[Observation], Step | None]"


def chain(policies: tuple[Policy, ...], o: Observation) -> Plan:
    """Ask each policy in order until one is the last."""
    actions: list[Action] = []
    conditions: list[Condition] = []
    for policy in policies:
        if not (step := policy(o)):
            continue
        actions += step.actions
        conditions += step.conditions
        if step.last:
            break
    return Plan(tuple(actions), tuple(conditions))
