"""What the sink does instead of accepting: rules, the first that applies decides."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any

PHASES = ("connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "dot", "rset", "quit")
THEN = ("continue", "reset", "close", "stall")


class RuleError(ValueError):
    """A rule that cannot be meant."""


@dataclass
class Rule:
    """One rule. Written as a JSON object with these names; only `phase` is needed.

    When it applies:
        phase: connect, ehlo, starttls, auth, mail, rcpt, data, body (some of the message has come), dot, rset,
            quit; or a list of them.
        recipient: a regular expression to find in the recipient's address (phases from rcpt on).
        share: of the cases to which all else applies, 0 to 1, drawn from `seed`.
        count: apply so many times, then never again.
        once_per_recipient: apply at the first time for each recipient only (phases from rcpt on).
        after_bytes: phase body: when so many bytes of the message have come.

    What it does, in this order:
        delay: wait so many seconds.
        reply: answer this instead of the usual (lines separated by newline; sent as they are, so garbage is possible).
        then: continue | reset (cut with RST, no answer) | close (answer, if there is a `reply`, then close)
            | stall (never answer).
        accept: phase dot: whether the message counts as accepted and is logged, whatever the answer, and even if
            the client went away during the delay. Default: if it is still there and is answered with 2xx. So
            `{"phase": "dot", "then": "reset", "accept": true}` takes the mail and dies before it says so.
    """

    phase: list[str]
    recipient: re.Pattern[str] | None = None
    share: float = 1.0
    seed: int = 0
    count: int | None = None
    once_per_recipient: bool = False
    after_bytes: int = 0
    delay: float = 0.0
    reply: str | None = None
    then: str = "continue"
    accept: bool | None = None
    applied: int = 0
    _random: random.Random = field(default_factory=random.Random, repr=False)
    _seen: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Rule:
        """Read a rule from JSON.

        Raises:
            RuleError: an unknown name or an impossible value; the message tells which.
        """
        known = {n for n in cls.__dataclass_fields__ if not n.startswith("_") and n != "applied"}
        if unknown := set(data) - known:
            raise RuleError(f"unknown: {', '.join(sorted(unknown))}; a rule has {', '.join(sorted(known))}")
        phases = data.get("phase", [])
        phases = [phases] if isinstance(phases, str) else list(phases)
        if not phases or (strange := set(phases) - set(PHASES)):
            raise RuleError(f"phase must be of {', '.join(PHASES)}, not {', '.join(strange) if phases else 'empty'}")
        if data.get("then", "continue") not in THEN:
            raise RuleError(f"then must be one of {', '.join(THEN)}")
        rest = {k: v for k, v in data.items() if k not in ("phase", "recipient")}
        rule = cls(phases, re.compile(data["recipient"]) if data.get("recipient") else None, **rest)
        rule._random = random.Random(rule.seed)
        return rule

    def applies(self, phase: str, recipient: str | None, received: int) -> bool:
        """Whether this rule decides this case. Counts it if so."""
        if phase not in self.phase or (self.count is not None and self.applied >= self.count):
            return False
        if phase == "body" and received < self.after_bytes:
            return False
        if self.recipient is not None and (recipient is None or not self.recipient.search(recipient)):
            return False
        if self.once_per_recipient and (recipient is None or recipient in self._seen):
            return False
        if self.share < 1.0 and self._random.random() >= self.share:
            return False
        if self.once_per_recipient and recipient is not None:
            self._seen.add(recipient)
        self.applied += 1
        return True


class Behaviour:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self._phases: frozenset[str] = frozenset()

    def set(self, rules: list[dict[str, Any]]) -> None:
        """Replace all rules.

        Raises:
            RuleError: one of them cannot be meant; the old ones stay in force.
        """
        self.rules = [Rule.parse(rule) for rule in rules]
        self._phases = frozenset(phase for rule in self.rules for phase in rule.phase)

    def decide(self, phase: str, recipient: str | None = None, received: int = 0) -> Rule | None:
        """The first rule that applies to this case, or None: behave well."""
        if phase not in self._phases:
            return None
        return next((rule for rule in self.rules if rule.applies(phase, recipient, received)), None)
