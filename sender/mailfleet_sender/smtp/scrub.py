"""Reply texts as people and the ledger may see them: without addresses, short, printable."""

from __future__ import annotations

import re

REPLY_BYTES = 256
"""What is kept of a reply's text (DESIGN section 5)."""

_LOOKED_AT = 2_048
"""Characters of a reply that are looked at at all: a server may send kilobytes."""

_ADDRESS = re.compile(r'<?(?:"[^"]{0,64}"|[^\s<>()\[\],;:"]{1,320})@(?:\[[^\]\s]{1,64}\]|[^\s<>()\[\],;:"]{1,255})>?')
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ufffd]+")


def scrubbed(text: str, *private: str) -> str:
    """The text with every address and every private string replaced by ``<recipient>``, at most 256 bytes of UTF-8.

    Args:
        text: a server's words.
        private: strings that must not be seen even where they do not look like an address.
    """
    if len(text) > _LOOKED_AT:
        text = text[:_LOOKED_AT].rpartition(" ")[0]  # a cut address would no longer look like one
    if not text.isprintable() or "  " in text or "\ufffd" in text:
        text = _UNPRINTABLE.sub(" ", text)
    text = text.strip()
    folded = text.casefold()
    for secret in private:
        if secret and secret.casefold() in folded:  # a pattern costs 300 us to compile: only where it is needed
            text = re.sub(f"<?{re.escape(secret)}>?", "<recipient>", text, flags=re.IGNORECASE)
    if "@" in text:
        text = _ADDRESS.sub("<recipient>", text)
    return capped(text, REPLY_BYTES)


def capped(text: str, size: int) -> str:
    """The longest beginning of a text that has at most `size` bytes of UTF-8."""
    if text.isascii() and len(text) <= size:
        return text
    data = text.encode("utf-8", "replace")
    return data[:size].decode("utf-8", "ignore")
