"""The MIME skeleton: which parts a message has, and all octets of it but the bodies.

text                       html                      text and html: multipart/alternative
+ inline images:           multipart/related around the html (RFC 2387)
+ attachments:             multipart/mixed around all (RFC 2046 5.1.3)
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from .attachments import Attached

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Node(NamedTuple):
    """A part that is still to be written: what comes before the bodies in it, between them, after."""

    octets: list[bytes]
    wide: bool


class Skeleton:
    """The frames of one message, each made when it is first needed.

    Attributes:
        mark: 32 hexadecimal digits that every boundary holds, and no body may.
        count: MIME parts, the containers among them.
    """

    def __init__(self, subtypes: Sequence[str], attached: Attached, mark: str) -> None:
        """Nothing is written yet.

        Args:
            subtypes: of the bodies, in order: plain, html.
            attached: the finished parts of files; inline ones need a body html.
            mark: 128 bits, random for each plan.
        """
        self.mark = mark.encode()
        self._subtypes, self._has_inline, self._has_files = tuple(subtypes), bool(attached.inline), bool(attached.files)
        self._frames: dict[tuple[str, ...], tuple[bytes, ...]] = {}
        containers = (len(self._subtypes) > 1) + self._has_inline + self._has_files
        self.count = len(self._subtypes) + containers + len(attached.inline) + len(attached.files)
        # The files are in it, and no transfer encoding is: so there is one for all frames.
        self._tail = self._made(("7bit",) * len(self._subtypes), attached)[-1]

    def frame(self, encodings: tuple[str, ...]) -> tuple[bytes, ...]:
        """What stands before the first body, between them, and after the last, for these transfer encodings."""
        if (frame := self._frames.get(encodings)) is None:
            frame = self._frames[encodings] = (*self._made(encodings, Attached())[:-1], self._tail)
        return frame

    def _made(self, encodings: tuple[str, ...], attached: Attached) -> list[bytes]:
        nodes = [
            _Node([_head(f"text/{subtype}; charset=utf-8", encoding), b""], encoding == "8bit")
            for subtype, encoding in zip(self._subtypes, encodings, strict=True)
        ]
        if self._has_inline:
            nodes[-1] = self._container("related", "r", [nodes[-1]], attached.inline, ' type="text/html";')
        top = self._container("alternative", "_", nodes) if len(nodes) > 1 else nodes[0]
        if self._has_files:
            top = self._container("mixed", "m", [top], attached.files)
        return top.octets

    def _container(
        self, subtype: str, letter: str, nodes: list[_Node], finished: Sequence[bytes] = (), parameter: str = ""
    ) -> _Node:
        """A multipart around nodes and finished parts. It is as wide as its widest part (RFC 2045 6.4)."""
        # No boundary begins with another one: readers are known that compare only so far.
        boundary = f"={letter}{self.mark.decode()}"
        wide = any(node.wide for node in nodes)
        head = _head(f'multipart/{subtype};{parameter}\r\n boundary="{boundary}"', "8bit" if wide else "7bit")
        opening, closing = f"--{boundary}\r\n".encode(), f"--{boundary}--\r\n".encode()
        octets = [head]
        for node in nodes:
            octets[-1] += opening + node.octets[0]
            octets.extend(node.octets[1:])
            if not octets[-1].endswith(b"\r\n"):  # a container has its own
                octets[-1] += b"\r\n"
        octets[-1] += b"".join(chain.from_iterable((opening, part) for part in finished)) + closing
        return _Node(octets, wide)


def _head(kind: str, encoding: str) -> bytes:
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
