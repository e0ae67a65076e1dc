"""One mail on one connection: what was said for it, what was answered, and what that makes of it. Pure.

The rules, for every mode (DESIGN section 8):

- A mail is `sent` if its own end of message got a 2xx, and its own MAIL and RCPT had one before.
- A refusal before the end of the message is definite. It stays so when, in `Mode.CHUNKING`, the message was already on
  its way, as long as the relay refused the recipient too: then no transaction can have taken it.
- Lost before the write that held the end of the message: try again. Lost after it without a reply: uncertain.
- A relay that says 421 and closes has not done what was said to it behind the command that it answered so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .replies import Phase, Reply, goes_on
from .verdict import Verdict, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A command whose reply is waited for.

    Attributes:
        phase: in whose light the reply is read.
        goes_on: the codes with which the transaction goes on, from the one table.
    """

    phase: Phase
    goes_on: frozenset[int]


RESET, MAIL, RCPT, DATA, DOT = (
    Step(phase, goes_on(phase)) for phase in (Phase.RSET, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT)
)
CHUNK = Step(Phase.DOT, frozenset())
"""The reply to the only and last chunk of a message."""
LONE_DOT = Step(Phase.DOT, frozenset())
"""The reply to the end of no message: a relay said 354 though it refused the only recipient (RFC 2920 3.1)."""


class Transaction:
    """One mail.

    Attributes:
        mail, rcpt: the commands, with CRLF.
        body: the message, dots not stuffed, CRLF at its end.
        recipient: the address, to be kept out of reply texts.
        ended: called with the verdict, once.
        at: what is said or to be said next.
        mail_ok, rcpt_ok: whether MAIL and RCPT were accepted; None: no answer, or none that makes sense.
        refusal: the first refusal of a command of its own.
        handed_over: the write that held the end of its message was handed to the transport.
    """

    __slots__ = ("at", "body", "ended", "handed_over", "mail", "mail_ok", "rcpt", "rcpt_ok", "recipient", "refusal")

    def __init__(self, mail: bytes, rcpt: bytes, body: bytes, recipient: str, ended: Callable[[Verdict], None]) -> None:
        self.mail, self.rcpt, self.body = mail, rcpt, body
        self.recipient, self.ended = recipient, ended
        self.at = MAIL
        self.mail_ok: bool | None = None
        self.rcpt_ok: bool | None = None
        self.refusal: Verdict | None = None
        self.handed_over = False

    def answered(self, step: Step, reply: Reply) -> bool:
        """The reply to one of RSET, MAIL, RCPT and DATA; whether all is well so far."""
        positive = reply.code in step.goes_on
        if step is MAIL:
            self.mail_ok = positive
        elif step is RCPT and (positive or reply.code >= 400):
            self.rcpt_ok = positive
        if not positive and self.refusal is None:
            self.refusal = Verdict.of(step.phase, reply, recipient=self.recipient)
        return self.refusal is None

    def finished(self, reply: Reply) -> Verdict:
        """The verdict by the reply to the end of its message."""
        verdict = Verdict.of(Phase.DOT, reply, recipient=self.recipient)
        assert verdict is not None, "the table has no GO_ON for the end of a message"
        if self.refusal is None:
            return verdict
        if self.rcpt_ok is not False and verdict.kind in (VerdictKind.SENT, VerdictKind.UNCERTAIN):
            return Verdict.lost_after("the relay refused MAIL, and took recipient and message all the same")
        return self.refusal

    def lost(self, why: str, goodbye: Reply | None, *, closed: bool) -> Verdict:
        """The verdict if no further reply comes.

        Args:
            why: for people.
            goodbye: the 421 that the relay has said, if it has.
            closed: it closed the connection then.
        """
        if self.handed_over:
            return self._lost_after(why, goodbye if closed else None)
        if self.refusal is not None:
            return self.refusal
        closing = goodbye and Verdict.of(self.at.phase, goodbye, recipient=self.recipient)
        return closing or Verdict.lost_before(self.at.phase, why)

    def _lost_after(self, why: str, goodbye: Reply | None) -> Verdict:
        refusal = self.refusal
        if refusal is not None:
            no_transaction = refusal.phase is Phase.MAIL and not (refusal.misunderstood or refusal.out_of_step)
            if self.rcpt_ok is False or (no_transaction and self.rcpt_ok is None):
                return refusal
        closing = goodbye and Verdict.of(Phase.MAIL, goodbye, recipient=self.recipient)
        return closing or Verdict.lost_after(why)
