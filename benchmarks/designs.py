"""The designs that `bench.py` measures: the modes of Mailfleet's sender, its features with their price, its peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newsletter import LIMITED_DOMAIN, newsletter

if TYPE_CHECKING:
    from newsletter import Newsletter

PLENTY = "1000000/s,max_burst=10000000"
"""Of the relay: the limiter is asked and books, and never says "wait"; a permit is kept for 10 s, not 100 ms."""
PLAIN_RATE = "100000/s"
"""The same as people write it: a permit that is not used within 100 ms lapses."""
LIMITS = {"quota": {"messages": 1_000_000_000}, "domains": [{"name": LIMITED_DOMAIN, "rate": "1000000/s"}]}
"""A quota and a domain's limit that are asked, booked and never reached."""
HEADERS = {
    "reply_to": "Shop <service@example.com>",
    "headers": {"X-Campaign": "{{ plan }}", "Feedback-ID": "autumn:news:example"},
}
LOGIN = ("bench", "bench-password")
WORKERS = {"bullmq": (1, 4, 10), "go": (20, 40)}
"""The declared sweep: jobs at once, goroutines. The fastest is measured."""
KNOWN = {"bullmq": (589, 1719), "go": (3555, 294)}
"""Messages a second and CPU us a message when these peers were first judged (2 cores, PERFORMANCE.md)."""
UTF8 = " für Zoë"


@dataclass(frozen=True, slots=True)
class Sender:
    """One design under test.

    Attributes:
        kind: mailfleet, bullmq, go or floor.
        pipelining: Mailfleet's setting of the relay.
        rate: of the relay.
        tls: STARTTLS at the sink.
        login: AUTH PLAIN at the sink.
        mark: put into each paragraph; not ASCII makes the bodies UTF-8.
        files: an inline image and an attached file, from ConfigMaps.
        headers: more headers, Reply-To.
        limits: a quota, and a limit of the domain of a quarter of the recipients.
        workers: of a peer.
    """

    name: str
    kind: str
    pipelining: str = "Auto"
    rate: str = PLENTY
    tls: bool = False
    login: bool = False
    mark: str = ""
    files: bool = False
    headers: bool = False
    limits: bool = False
    workers: int = 0

    @property
    def letter(self) -> Newsletter:
        """What it sends."""
        return newsletter(self.mark, files=self.files)

    @property
    def message(self) -> dict[str, Any]:
        """`spec.message` of Mailfleet's campaign."""
        letter = self.letter
        return {
            "from": "News <news@example.com>",
            **letter.templates,
            "unsubscribe": {"url": "https://example.com/u/{{ token }}"},
            "attachments": letter.attachments,
            **(HEADERS if self.headers else {}),
        }

    def relay(self, connections: int) -> dict[str, Any]:
        """What its relay has beyond the usual."""
        return {
            "tls": {"mode": "StartTLS", "verification": "None"} if self.tls else {"mode": "None"},
            "authenticate": self.login,
            "limits": {"rate": self.rate, **(LIMITS if self.limits else {})},
            "pipelining": self.pipelining,
            "connections": {"per_sender": connections, "messages_per_connection": 1_000_000_000},
        }

    def sink(self, delay: int) -> tuple[str, ...]:
        """Options of the sink it sends to, `delay` milliseconds away."""
        options = [f"-delay={delay}ms", f"-chunking={str(self.pipelining == 'Chunking').lower()}"]
        options += ["-tls=starttls"] if self.tls else []
        options += [f"-login={':'.join(LOGIN)}"] if self.login else []
        return tuple(options)


COMPARED = (
    Sender("bullmq", "bullmq"),
    Sender("go", "go"),
    Sender("sequential", "mailfleet", "Sequential"),
    Sender("grouped", "mailfleet", "Grouped"),
    Sender("pipelined", "mailfleet", "Pipelined"),
    Sender("chunking", "mailfleet", "Chunking"),
    Sender("floor", "floor"),
)
PRICED = (
    Sender("pipelined+rate", "mailfleet", "Pipelined", rate=PLAIN_RATE),
    Sender("pipelined+tls", "mailfleet", "Pipelined", tls=True),
    Sender("pipelined+utf8", "mailfleet", "Pipelined", mark=UTF8),
    Sender("pipelined+files", "mailfleet", "Pipelined", files=True),
    Sender("pipelined+limits", "mailfleet", "Pipelined", limits=True),
    Sender(
        "pipelined+all", "mailfleet", "Pipelined", rate=PLAIN_RATE, tls=True, login=True, mark=UTF8, files=True,
        headers=True, limits=True,
    ),
)  # fmt: skip
