"""What a relay offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Offer:
    """What a preflight sees of a relay.

    Attributes:
        capabilities: keywords of EHLO, before and after TLS, in upper case and sorted.
        mechanisms: of AUTH, in upper case and in the relay's order.
        tls: the version that was agreed on, as TLSv1.3; None: not encrypted.
    """

    capabilities: tuple[str, ...]
    mechanisms: tuple[str, ...]
    tls: str | None


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the relay offered in its reply to EHLO.

    Attributes:
        eight_bit: 8BITMIME (RFC 6152).
        pipelining: PIPELINING (RFC 2920).
        chunking: CHUNKING (RFC 3030).
        size: SIZE (RFC 1870) is offered.
        size_limit: the largest message in bytes; None if the relay names none.
    """

    eight_bit: bool = False
    pipelining: bool = False
    chunking: bool = False
    size: bool = False
    size_limit: int | None = None

    @classmethod
    def of(cls, offered: Mapping[str, str]) -> Self:
        """From keyword -> parameters, keywords in lower case."""
        limit = offered.get("size", "").strip()
        return cls(
            eight_bit="8bitmime" in offered,
            pipelining="pipelining" in offered,
            chunking="chunking" in offered,
            size="size" in offered,
            size_limit=int(limit) if limit.isascii() and limit.isdigit() and int(limit) > 0 else None,
        )
