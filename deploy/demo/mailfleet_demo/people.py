"""Made-up subscribers, the same at each run: names as they are in life, and addresses as they are in tables.

Most rows are plain. Some are not, and each kind is there for a reason: scripts of the world, quotes, commas and
backslashes (a header's display name), template syntax and HTML (data must stay data), very long ones (folding),
NULL first names (the template's `default`), repeated addresses, equal but for the case, and what is no address.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20_261_124


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """(as written, as in an address) of each entry."""
    return tuple((entry.rpartition(" ")[0].strip(), entry.rpartition(" ")[2]) for entry in text.strip().split(","))


FIRST = _pairs("""
Anna anna, Zoë zoe, José jose, Jürgen juergen, Søren soeren, Łukasz lukasz, Chloé chloe, Ngọc Ánh n.anh,
Siobhán siobhan, Þórunn thorunn, Ольга olga, Γιώργος giorgos, فاطمة fatima, נועה noa, さくら sakura, 伟 wei,
민준 minjun, อรทัย orathai, अनन्या ananya, D'Arcy darcy, Anne-Marie anne-marie, Jean Luc jean_luc, Ali ali, X Æ x.ae,
Bo bo, MARÍA Maria, éloïse eloise, Kwame kwame
""")
LAST = _pairs("""
Nowak nowak, Müller-Lüdenscheidt mueller-luedenscheidt, O'Brien o'brien, García Lorca garcia, van der Berg vdberg,
Иванова ivanova, Παπαδόπουλος papadopoulos, 王 wang, 佐藤 sato, Nguyễn nguyen, St. John st.john,
Ó Súilleabháin osullivan, al-Rashid al-rashid, Æbelø aebeloe, Lee lee, Öztürk ozturk, Ðorđević djordjevic
""")
ODD_FIRST = (
    *('Robert "Bob"', "Smith, Jr.", "{{ 7 * 7 }}", "{% raw %}", "<b>Bold</b>", "Back\\slash", "Tab\tbed", "$HOME"),
    *("🎉 Emoji 👩‍👩‍👧", "=?utf-8?q?b?=", "Zalgo" + "\u0301\u0323" * 12, " padded ", "100 % off", "', DROP TABLE"),
    "Wolfe" + "schlegelsteinhausenberger" * 9,
)
NO_ADDRESS = (
    *(None, "", "unknown", "two@@example.com", "nobody@", "@example.com", "spaced name@example.com"),
    *("line\r\nbreak@example.com", "dot..dot@example.com", ".first@example.com", "a" * 65 + "@example.com"),
)
DOMAINS = ("example.com", "example.net", "example.org", "mail.example.com", "xn--bcher-kva.example", "post.Example.NET")
CITIES = ("København", "São Paulo", "Kraków", "Αθήνα", "Владивосток", "東京", "N'Djamena", "Aix-en-Provence", None)
PLANS = ("free", "basic", "family", "business")


class Person(NamedTuple):
    """One row of the table, in the order of its columns. None is NULL."""

    id: int
    email: str | None
    first_name: str | None
    last_name: str
    city: str | None
    plan: str
    unsubscribe_token: str


def people(count: int, seed: int = SEED) -> Iterator[Person]:
    """`count` rows with ids from 1, the same for the same seed; memory does not grow with `count`.

    Of 1,000 rows about 5 have no address, 5 repeat an earlier address (half of them in another case), 20 have no
    first name and 20 an odd one.
    """
    rng = random.Random(seed)
    earlier: list[str] = []
    for number in range(1, count + 1):
        person = _person(rng, number)
        chance = rng.random()
        if chance < 0.005:
            person = person._replace(email=rng.choice(NO_ADDRESS))
        elif chance < 0.010 and earlier:
            again = rng.choice(earlier)
            person = person._replace(email=again.swapcase() if rng.random() < 0.5 else again)
        elif person.email and (len(earlier) < 1_000 or rng.random() < 0.01):
            earlier[rng.randrange(1_000) : 1_000] = [person.email] if len(earlier) < 1_000 else []
        yield person


def _person(rng: random.Random, number: int) -> Person:
    first, first_slug = rng.choice(FIRST)
    last, last_slug = rng.choice(LAST)
    tag = rng.choice(("", "", "", "+news", "+shop/2026", "_", "-x"))
    shown: str | None = first
    if (chance := rng.random()) < 0.02:
        shown = None
    elif chance < 0.04:
        shown = rng.choice(ODD_FIRST)
    return Person(
        id=number,
        email=f"{first_slug}.{last_slug}.{number}{tag}@{rng.choice(DOMAINS)}",
        first_name=shown,
        last_name=last,
        city=rng.choice(CITIES),
        plan=rng.choice(PLANS),
        unsubscribe_token=f"{rng.getrandbits(128):032x}",
    )
