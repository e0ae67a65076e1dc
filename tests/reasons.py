"""The reasons of conditions, read from the operator's code: what documents and health checks must know."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from custom_resources import ROOT
from mailfleet_operator.conditions import SILENT
from mailfleet_sender.contract.accounts import EndReason, PauseReason, ReportReason, RunState
from mailfleet_sender.contract.preflight import RelayFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPERATOR = ROOT / "operator/mailfleet_operator"
CAMEL = re.compile(r"[A-Z][a-z]+([A-Z][a-z]+)*")
NEVER_STOPS = {ReportReason.INTERNAL_ERROR}
"""Told as PlanFailed by planners; as itself by senders."""


def told(file: Path) -> Iterator[str]:
    """Reasons in a module: the second argument of `true` and `false`, and pairs of a reason and a message."""
    for node in ast.walk(ast.parse(file.read_text())):
        words: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"true", "false"}:
            words = node.args[1] if len(node.args) > 1 else None
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            words = node.value.elts[0]
        elif isinstance(node, ast.Assign):
            words = assigned(node)
        for part in ast.walk(words) if words is not None else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and CAMEL.fullmatch(part.value):
                yield part.value


def assigned(node: ast.Assign) -> ast.expr | None:
    """What a variable `reason` (or `doing`, or a constant REASON) is set to."""
    target = node.targets[0]
    names = [ast.unparse(part).lower() for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    values = node.value.elts if isinstance(node.value, ast.Tuple) and len(names) > 1 else [node.value]
    found = [value for name, value in zip(names, values, strict=False) if name in {"reason", "doing"}]
    return found[0] if found else None


def of_campaigns() -> set[str]:
    """Each reason that a condition of a campaign can have."""
    modules = [*OPERATOR.glob("plan/*.py"), OPERATOR / "apply.py", OPERATOR / "status.py"]
    found = {reason for file in modules for reason in told(file)}
    ends = {str(RunState.CANCELLED), str(RunState.SUPERSEDED), *map(str, EndReason)}
    silent = {reason for reason, _ in SILENT.values()}
    pauses = {str(reason) for reason in PauseReason}
    return found | ends | silent | pauses | {str(r) for r in ReportReason if r not in NEVER_STOPS} | {"InternalError"}


def of_relays() -> set[str]:
    """Each reason that a condition of a relay can have."""
    modules = [ast.parse(file.read_text()) for file in OPERATOR.glob("relay_plan/*.py")]
    named: dict[str, ast.expr] = {}
    for node in (node for module in modules for node in module.body if isinstance(node, ast.Assign)):
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            named |= zip(map(ast.unparse, target.elts), value.elts, strict=True)
        else:
            named[ast.unparse(target)] = value
    reasons = {str(fault) for fault in RelayFault} | set(told(OPERATOR / "apply.py"))
    for call in (call for module in modules for call in ast.walk(module)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in {"yes", "no", "unknown"}:
            word = call.args[0]
            word = named.get(ast.unparse(word), word)
            if isinstance(word, ast.Constant):
                reasons.add(str(word.value))
    return reasons
