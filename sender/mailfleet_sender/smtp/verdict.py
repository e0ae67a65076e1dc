"""What became of one handing-over of one mail to the relay."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from mailfleet_sender.contract.accounts import OutcomeKind

from .replies import Meaning, Phase, Reply, Rule, classify, queue_id
from .scrub import scrubbed


class VerdictKind(StrEnum):
    """The verdicts of one `Connection.send`. The first four are outcomes for the ledger, the last two are not."""

    SENT = "sent"
    FAILED = "failed"
    DEFERRED = "deferred"
    UNCERTAIN = "uncertain"
    RETRY = "retry"
    """The relay has not taken the mail, and this says nothing about the recipient: try on another connection."""
    SENDER_FAULT = "sender_fault"
    """The relay refuses us, not the recipient: stop the campaign, burn nobody. The recipient stays unsent."""


_OUTCOMES = {
    VerdictKind.SENT: OutcomeKind.SENT,
    VerdictKind.FAILED: OutcomeKind.FAILED,
    VerdictKind.DEFERRED: OutcomeKind.DEFERRED,
    VerdictKind.UNCERTAIN: OutcomeKind.UNCERTAIN,
}

_KINDS = {
    Meaning.SENT: VerdictKind.SENT,
    Meaning.FAILED: VerdictKind.FAILED,
    Meaning.UNKNOWN_RECIPIENT: VerdictKind.FAILED,
    Meaning.POLICY: VerdictKind.FAILED,
    Meaning.DEFERRED: VerdictKind.DEFERRED,
    Meaning.THROTTLED: VerdictKind.RETRY,
    Meaning.QUOTA_EXHAUSTED: VerdictKind.RETRY,
    Meaning.CLOSING: VerdictKind.RETRY,
    Meaning.UNAVAILABLE: VerdictKind.RETRY,
    Meaning.MISUNDERSTOOD: VerdictKind.RETRY,
    Meaning.GARBAGE: VerdictKind.RETRY,
    Meaning.UNKNOWABLE: VerdictKind.UNCERTAIN,
    Meaning.SENDER_FAULT: VerdictKind.SENDER_FAULT,
}


_UNDERSTOOD = frozenset({VerdictKind.SENT, VerdictKind.FAILED, VerdictKind.DEFERRED, VerdictKind.SENDER_FAULT})


class Verdict(NamedTuple):
    """Exactly one of these ends every `Connection.send`.

    Attributes:
        kind: what it means for the recipient.
        phase: the command that was answered last, or in which the connection ended; None if nothing was said.
        code: the reply code, three digits; None if no reply decided.
        enhanced: the enhanced status code (RFC 3463), or a local one of the same form.
        reply: the reply's text for people, <= 256 bytes, addresses replaced by ``<recipient>``.
        queue_id: the relay's own name of a sent mail, when its reply tells one.
        suppress: the address does not exist; it should not be tried by later campaigns either.
        policy: refused for what we are or say (5.7.x), not for whom we write to; counted by the brake.
        throttled: the relay asks to slow down; the shared rate should.
        quota_exhausted: the relay's quota (of a day) is used up; try again in minutes, not seconds.
        misunderstood: the relay did not understand a command; try in a simpler mode.
        out_of_step: what the relay said is no answer to what was asked; nothing that it says next can be trusted.
    """

    kind: VerdictKind
    phase: Phase | None = None
    code: str | None = None
    enhanced: str | None = None
    reply: str | None = None
    queue_id: str | None = None
    suppress: bool = False
    policy: bool = False
    throttled: bool = False
    quota_exhausted: bool = False
    misunderstood: bool = False
    out_of_step: bool = False

    @property
    def outcome(self) -> OutcomeKind | None:
        """What the ledger records; None for RETRY and SENDER_FAULT, which are no outcomes."""
        return _OUTCOMES.get(self.kind)

    @property
    def handed_over(self) -> bool:
        """Whether the relay may have taken the mail, or counted it: the end of the message was sent."""
        return self.phase is Phase.DOT or self.kind in {VerdictKind.SENT, VerdictKind.UNCERTAIN}

    @classmethod
    def of(cls, phase: Phase, reply: Reply, *, recipient: str) -> Verdict | None:
        """The verdict that a reply is, or None: the conversation goes on."""
        rule = classify(phase, reply)
        return None if rule.meaning is Meaning.GO_ON else cls._by(rule, phase, reply, recipient)

    @classmethod
    def lost_before(cls, phase: Phase, why: str) -> Verdict:
        """The connection ended before the write that held the dot: the relay cannot have taken the mail."""
        return cls(VerdictKind.RETRY, phase, reply=f"{why}, before the end of the message was sent")

    @classmethod
    def lost_after(cls, why: str) -> Verdict:
        """The connection ended between the dot and its reply: the relay may have taken the mail (RFC 1047)."""
        return cls(VerdictKind.UNCERTAIN, Phase.DOT, reply=f"{why}, after the end of the message was sent")

    @classmethod
    def unsendable(cls, enhanced: str, why: str) -> Verdict:
        """Decided here, nothing was said to the relay: this mail can never be handed over as it is."""
        return cls(VerdictKind.FAILED, enhanced=enhanced, reply=why)

    @property
    def keeps_connection(self) -> bool:
        """Whether both sides still agree about where the conversation stands."""
        if self.code is None or self.code == "421":
            return False
        return self.throttled or self.quota_exhausted or self.kind in _UNDERSTOOD

    @classmethod
    def _by(cls, rule: Rule, phase: Phase, reply: Reply, recipient: str) -> Verdict:
        meaning = rule.meaning
        if meaning is Meaning.SENT:  # each mail comes here: only what can be
            return cls(
                VerdictKind.SENT,
                phase,
                str(reply.code),
                reply.enhanced,
                scrubbed(reply.text, recipient),
                queue_id(reply),
            )
        return cls(
            kind=_KINDS[meaning],
            phase=phase,
            code=str(reply.code),
            enhanced=reply.enhanced,
            reply=scrubbed(reply.text, recipient),
            suppress=meaning is Meaning.UNKNOWN_RECIPIENT,
            policy=meaning is Meaning.POLICY,
            throttled=meaning is Meaning.THROTTLED,
            quota_exhausted=meaning is Meaning.QUOTA_EXHAUSTED,
            misunderstood=meaning is Meaning.MISUNDERSTOOD,
            out_of_step=meaning in (Meaning.GARBAGE, Meaning.UNKNOWABLE),
        )
