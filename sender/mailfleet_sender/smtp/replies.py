"""What a relay's reply means: one table, in the order in which it is read.

Sources: RFC 5321 4.2 (reply codes) and 4.3.2 (replies by command), RFC 3463 (enhanced status codes),
RFC 4954 (AUTH), RFC 3207 (STARTTLS), the relays' own manuals where a row says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache


class Phase(StrEnum):
    """What was said to the relay last; its reply is read in this light."""

    CONNECT = "connect"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    RSET = "RSET"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "the end of the message"


class Meaning(StrEnum):
    """What a reply means for a mail and its recipient."""

    GO_ON = "go on"
    SENT = "the relay is responsible for the mail now"
    DEFERRED = "not now: try this recipient later"
    FAILED = "never, for this recipient"
    UNKNOWN_RECIPIENT = "never, and nobody else should try this address"
    POLICY = "never, for what we are or say"
    THROTTLED = "slow down; nothing is said about the recipient"
    QUOTA_EXHAUSTED = "no more today; nothing is said about the recipient"
    CLOSING = "the relay closes the connection; nothing is said about the recipient"
    UNAVAILABLE = "the relay cannot serve us now"
    MISUNDERSTOOD = "the relay does not understand us; nothing is said about the recipient"
    SENDER_FAULT = "the relay refuses us, whoever the recipient is"
    GARBAGE = "no SMTP reply where one was due, and the mail was not handed over"
    UNKNOWABLE = "no SMTP reply where one was due, after the mail was handed over"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, its lines joined.

    Attributes:
        code: 200 to 559.
        enhanced: ``4.7.0``-like, only where its class agrees with the code's first digit (RFC 3463 section 2).
        text: all lines' texts, joined by a blank.
    """

    code: int
    text: str = ""
    enhanced: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: where phase, code, enhanced code and text all fit, this is what the reply means."""

    name: str
    meaning: Meaning
    phases: frozenset[Phase]
    codes: re.Pattern[str]
    enhanced: re.Pattern[str] | None = None
    text: re.Pattern[str] | None = None

    def fits(self, phase: Phase, reply: Reply) -> bool:
        """Whether this row says what the reply means."""
        return (
            phase in self.phases
            and self.codes.fullmatch(str(reply.code)) is not None
            and (self.enhanced is None or self.enhanced.fullmatch(reply.enhanced or "") is not None)
            and (self.text is None or self.text.search(reply.text) is not None)
        )


def _rule(
    name: str,
    meaning: Meaning,
    *phases: Phase,
    codes: str,
    enhanced: str | None = None,
    text: str | None = None,
) -> Rule:
    return Rule(
        name,
        meaning,
        frozenset(phases),
        re.compile(codes),
        re.compile(enhanced) if enhanced is not None else None,
        re.compile(text, re.IGNORECASE) if text is not None else None,
    )


_OPENING = (Phase.CONNECT, Phase.EHLO, Phase.STARTTLS, Phase.AUTH)
_MAILING = (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT)
_ANY = tuple(Phase)
_ABOUT_RECIPIENT = (Phase.RCPT, Phase.DATA, Phase.DOT)

_NO_SUCH_ADDRESS = r"5\.1\.(1|2|3|6|10)"
"""RFC 3463: bad mailbox, bad domain, bad syntax, mailbox moved; RFC 7505: null MX. "5.1.1 and kin"."""
_OUR_FAULT = r"5\.1\.[78]"
"""RFC 3463: bad sender's syntax, bad sender's system."""
_SLOW_DOWN = r"4\.(7\.0|7\.28|3\.2)"
"""4.7.0 and 4.7.28: Gmail's and others' rate limits; 4.3.2: the system takes no mail now."""

RULES: tuple[Rule, ...] = (
    # What one hopes for.
    _rule("2xx to the dot is sent (RFC 5321 6.1)", Meaning.SENT, Phase.DOT, codes="2.."),
    _rule("354 to DATA goes on (RFC 5321 4.1.1.4)", Meaning.GO_ON, Phase.DATA, codes="354"),
    _rule(
        "2xx goes on (RFC 5321 4.2.1)",
        Meaning.GO_ON,
        *(p for p in _ANY if p not in (Phase.DATA, Phase.DOT)),
        codes="2..",
    ),
    # The relay is busy: these say nothing about the recipient.
    _rule(
        "a quota in the relay's own words (Amazon SES)",
        Meaning.QUOTA_EXHAUSTED,
        *_MAILING,
        codes="4..",
        text=r"daily message quota exceeded|(?:daily|24.hour) (?:sending )?(?:quota|limit) (?:has been )?exceeded",
    ),
    _rule(
        "greylisting is about the recipient, whatever its code says",
        Meaning.DEFERRED,
        Phase.RCPT,
        Phase.DATA,
        Phase.DOT,
        codes="4..",
        text=r"gr[ae]y.?list",
    ),
    _rule(
        "throttling in the relay's own words (Amazon SES, Exchange, Postfix)",
        Meaning.THROTTLED,
        *_MAILING,
        codes="4..",
        text=r"maximum sending rate exceeded|sending rate exceeded|throttl|too many (?:messages|mails|e-?mails)"
        r"|rate.?limit|message rate|too much mail",
    ),
    _rule("throttling by enhanced code", Meaning.THROTTLED, *_MAILING, codes="4..", enhanced=_SLOW_DOWN),
    _rule("421 closes the connection (RFC 5321 3.8)", Meaning.CLOSING, *_ANY, codes="421"),
    # The relay refuses us.
    _rule("credentials are missing, wrong or too weak (RFC 4954 6)", Meaning.SENDER_FAULT, *_ANY, codes="530|53[458]"),
    _rule(
        "the sender's address is at fault (RFC 3463 X.1.7, X.1.8)",
        Meaning.SENDER_FAULT,
        *_MAILING,
        codes="5..",
        enhanced=_OUR_FAULT,
    ),
    _rule(
        "the sender's identity is not verified (Amazon SES)",
        Meaning.SENDER_FAULT,
        *_MAILING,
        codes="5..",
        text=r"address(?:es)? (?:is|are) not verified",
    ),
    # We and the relay do not understand each other, unless it says that the address is why.
    _rule(
        "a syntax error that is the address's own (RFC 3463 X.1.3)",
        Meaning.UNKNOWN_RECIPIENT,
        Phase.RCPT,
        codes="50[1-4]|555",
        enhanced=_NO_SUCH_ADDRESS,
    ),
    _rule(
        "500-504 and 555 are never a recipient's outcome (RFC 5321 4.2.4)",
        Meaning.MISUNDERSTOOD,
        *_MAILING,
        Phase.RSET,
        codes="50[0-4]|555",
    ),
    _rule("any other 5xx to MAIL or AUTH refuses us", Meaning.SENDER_FAULT, Phase.MAIL, Phase.AUTH, codes="5.."),
    _rule("a refusal before MAIL is the relay's state", Meaning.UNAVAILABLE, *_OPENING, Phase.RSET, codes="[45].."),
    # The recipient.
    _rule(
        "552 to RCPT is too many recipients or a full mailbox: later (RFC 5321 4.5.3.1.10)",
        Meaning.DEFERRED,
        Phase.RCPT,
        codes="552",
    ),
    _rule("4xx is later (RFC 5321 4.2.1)", Meaning.DEFERRED, *_MAILING, codes="4.."),
    _rule(
        "no such address (RFC 3463 X.1.1 and kin)",
        Meaning.UNKNOWN_RECIPIENT,
        *_ABOUT_RECIPIENT,
        codes="5..",
        enhanced=_NO_SUCH_ADDRESS,
    ),
    _rule(
        "no such address in words, where there is no enhanced code",
        Meaning.UNKNOWN_RECIPIENT,
        Phase.RCPT,
        codes="55[013]",
        enhanced="",
        text=r"^(?!.*\bsender).*?(?:user unknown|unknown user|no such (?:user|recipient|mailbox|address)"
        r"|(?:user|mailbox|recipient|account|address)\b.{0,80}\b(?:does not exist|doesn't exist|not found))",
    ),
    _rule("refused by policy (RFC 3463 X.7)", Meaning.POLICY, *_ABOUT_RECIPIENT, codes="5..", enhanced=r"5\.7\..*"),
    _rule("5xx is never (RFC 5321 4.2.1)", Meaning.FAILED, *_ABOUT_RECIPIENT, codes="5.."),
    # Anything else is no answer to what was said.
    _rule("no answer to the dot leaves the mail in doubt (RFC 1047)", Meaning.UNKNOWABLE, Phase.DOT, codes="..."),
    _rule("no answer to anything else", Meaning.GARBAGE, *_ANY, codes="..."),
)


def classify(phase: Phase, reply: Reply) -> Rule:
    """The first row that fits; the last row fits everything."""
    return by_code(phase, reply.code) or next(rule for rule in RULES if rule.fits(phase, reply))


@cache
def by_code(phase: Phase, code: int) -> Rule | None:
    """The row that fits whatever else the reply says; None: the words decide. Cached, as it is asked for each mail."""
    for rule in RULES:
        if phase in rule.phases and rule.codes.fullmatch(str(code)):
            return rule if rule.enhanced is None and rule.text is None else None
    raise AssertionError("unreachable: the last row fits everything")


def goes_on(phase: Phase) -> frozenset[int]:
    """The codes with which the conversation goes on."""
    return frozenset(
        code for code in range(200, 600) if (rule := by_code(phase, code)) and rule.meaning is Meaning.GO_ON
    )


_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|$)")


def enhanced_code(code: int, text: str) -> str | None:
    """The enhanced status code at the beginning of a reply line (RFC 2034 section 4), if its class fits the code."""
    found = _ENHANCED.match(text)
    return found[1] if found and found[1][0] == str(code)[0] else None


_POSTFIX = re.compile(r"2\.0\.0 Ok: queued as ([\w.-]+)")
"""What most relays say: found without the search below, which takes 3 us."""
_QUEUE_ID = re.compile(
    r"queued as (?P<postfix>[\w.-]+)"
    r"|\bid=(?P<exim>[\w-]+)"
    r"|\bInternalId=(?P<exchange>\d+)"
    r"|^(?:2\.\d\.\d )?(?P<sendmail>\w+) Message accepted for delivery"
    r"|^(?:2\.\d\.\d )?Ok:? (?P<ses>[\w-]{16,128})\b",
    re.IGNORECASE,
)


def queue_id(reply: Reply) -> str | None:
    """The relay's own name of the mail, as Postfix, Exim, Exchange, sendmail and Amazon SES tell it; <= 128 bytes."""
    text = reply.text[:512]
    found = _POSTFIX.match(text) or _QUEUE_ID.search(text)
    return found[found.lastindex or 0][:128] if found else None
