"""What a mail costs to make, in microseconds of one core: `python benchmarks/render.py`.

The composer beside the standard library's EmailMessage over the same templates and rows. Writes
build/bench-render.json.
"""

from __future__ import annotations

import timeit
from email import policy
from email.message import EmailMessage
from email.utils import formatdate

from jinja2 import Environment
from measuring import machine, save

from mailfleet_sender.audience import Row
from mailfleet_sender.contract.campaign import Message
from mailfleet_sender.message import Composer

LINES = 25
TEXT = "Hello {{ first_name }},\n\n" + "A fairly ordinary sentence of the newsletter, line after line.\n" * LINES
HTML = (
    "<h1>Hello {{ first_name }}</h1>\n" + "<p>Your <b>{{ plan }}</b> plan, and another paragraph of it.</p>\n" * LINES
)
SUBJECT = "{{ first_name }}, your {{ plan }} plan"
NEWS = Message.model_validate(
    {
        "from": "Example Shop <news@example.com>",
        "subject": SUBJECT,
        "text": TEXT,
        "html": HTML,
        "unsubscribe": {"url": "https://example.com/u/{{ token }}"},
    }
)
ROWS = [
    Row(str(n), f"user{n}@example.net", {"first_name": name, "plan": "Gold", "token": f"{n:032x}"})
    for n, name in enumerate(["Anna", "Bob", "Cid", "Zoë", "日本"] * 40)
]


def standard_library() -> tuple[str, float]:
    """A message as most programs make it."""
    plain, html = Environment(autoescape=False), Environment(autoescape=True)
    subject, text, page = plain.from_string(SUBJECT), plain.from_string(TEXT), html.from_string(HTML)

    def make() -> None:
        for row in ROWS:
            message = EmailMessage(policy=policy.SMTP)
            message["From"], message["To"] = NEWS.from_, row.email
            message["Subject"], message["Date"] = subject.render(row.values), formatdate()
            message.set_content(text.render(row.values))
            message.add_alternative(page.render(row.values), subtype="html")
            message.as_bytes()

    return show("EmailMessage, three templates", make)


def composer(*, eight_bit: bool) -> tuple[str, float]:
    """What a sender does."""
    made = Composer(NEWS, run_key="marketing/autumn-news/1", list_id="autumn-news.marketing")

    def make() -> None:
        for row in ROWS:
            made.compose(row, key=row.key, eight_bit=eight_bit)

    return show(f"Composer, {'8BITMIME' if eight_bit else 'ASCII only'}", make)


def show(what: str, make: object) -> tuple[str, float]:
    """Best of five, in microseconds a message."""
    best = min(timeit.repeat(make, number=1, repeat=5)) / len(ROWS)  # type: ignore[arg-type]
    print(f"{what:32} {best * 1e6:8.1f} us a message {1 / best:10,.0f} messages/s")
    return what, best * 1e6


if __name__ == "__main__":
    where = machine()
    made = dict([composer(eight_bit=True), composer(eight_bit=False), standard_library()])
    save("bench-render", {"machine": where, "microseconds": made})
    fast, slow = made["Composer, 8BITMIME"], made["EmailMessage, three templates"]
    print(f"bench-render: composer_us={fast:.1f} email_message_us={slow:.0f} ratio={slow / fast:.0f}x")
