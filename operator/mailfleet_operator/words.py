"""Words of others - servers, databases, Kubernetes - as a status may show them: short, and without an address. Pure."""

from __future__ import annotations

import re

LOOKED_AT = 2_048
"""Characters of a text that are looked at at all."""

_ADDRESS = re.compile(
    r'<?(?:"[^"]{0,64}"|[^\s<>()\[\],;:"]{1,320})@(?!sha\d+:)(?:\[[^\]\s]{1,64}\]|[^\s<>()\[\],;:"]{1,255})>?'
)
"""An address, or a login within a URL; not the digest of an image (name@sha256:...)."""
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\ufffd]+")


def clipped(text: str, size: int) -> str:
    """On one line, addresses replaced by ``<recipient>``, at most `size` bytes of UTF-8, with an ellipsis if cut."""
    if len(text) > LOOKED_AT:
        text = text[:LOOKED_AT].rpartition(" ")[0]  # a cut address would no longer look like one
    text = _UNPRINTABLE.sub(" ", text).strip()
    if "@" in text:
        text = _ADDRESS.sub("<recipient>", text)
    data = text.encode()
    return text if len(data) <= size else data[: max(0, size - 3)].decode(errors="ignore") + "…" * (size >= 3)
