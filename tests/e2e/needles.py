"""What must be found nowhere, and the search for it: recipients' addresses and names, and secrets. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

TOLD = {"news", "me"}
"""Local parts of addresses that are no recipient's: whom campaigns are from, and the person who types `test --to`."""
_ADDRESS = re.compile(r"([\w.+'=-]*)(@|%40|\bnobody\.)([a-z0-9-]+(?:\.[a-z0-9-]+)*\.example)\b", re.IGNORECASE)
"""At the domains of all stages; `nobody.` begins what `Stage.fill` writes where no address is."""
_SIGN = re.compile(r"@|%40|nobody\.", re.IGNORECASE)
_AROUND = 100
_NAMES = re.compile(r"Zo(?:ë|\\u00eb|\\xc3\\xab|\\xeb|=C3=AB|%C3%AB)", re.IGNORECASE)
"""What templates are filled with."""
_TOKEN = re.compile(r"eyJhbGciOi[\w-]+")
"""A service account's token: the beginning of a JWT."""
SHORTEST = 8
_PUBLIC = {"username"}


@dataclass
class Needles:
    """What is looked for.

    Attributes:
        secrets: each form of each secret, and what it is.
    """

    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, key: str, content: bytes) -> None:
        """Look for the content of a Secret's key, if it is secret.

        Raises:
            ValueError: a password is too short to be told from other words.
        """
        values = _secret_parts(key, content.decode(errors="backslashreplace"))
        for value in values:
            if len(value) < SHORTEST:
                raise ValueError(f"{where}, {key}: tests look for passwords, so give them {SHORTEST} letters or more")
            for form in (value.encode(), quote(value, safe="").encode(), base64.b64encode(value.encode())):
                self.secrets[form.decode()] = f"secret {key} of {where}"
        if values:
            self.secrets[base64.b64encode(content).decode()] = f"secret {key} of {where}"

    def found_in(self, text: str) -> Iterator[tuple[str, str]]:
        """Everything that is found, and what it is."""
        for match in _SIGN.finditer(text):
            begin = max(0, match.start() - _AROUND)
            for address in _ADDRESS.finditer(text, begin, match.end() + _AROUND):
                if address[1].rpartition("=")[2].lower() not in TOLD:
                    yield address[0], "address"
        for match in _NAMES.finditer(text):
            yield match[0], "name"
        for match in _TOKEN.finditer(text):
            yield match[0], "token"
        for secret, what in self.secrets.items():
            if secret in text:
                yield secret, what


def _secret_parts(key: str, value: str) -> list[str]:
    """Of a URL its password, of a private key a line from its middle, of a certificate nothing."""
    if key in _PUBLIC or "BEGIN CERTIFICATE" in value:
        return []
    if "PRIVATE KEY" in value:
        return [value.splitlines()[1]]
    if "://" in value:
        password = urlsplit(value).password
        return [unquote(password)] if password else []
    return [value]
