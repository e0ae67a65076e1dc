"""Bytes of a relay become replies."""

from __future__ import annotations

import re
from functools import lru_cache

from .replies import Reply, enhanced_code

MAX_LINE_BYTES = 8_192
"""RFC 5321 4.5.3.1.5 allows 512; real relays send more."""
MAX_REPLY_BYTES = 32_768
"""All lines of one reply together: bounds what a mad server can make us keep."""
REMEMBERED = 64
"""Replies of one line that were read before: to MAIL, RCPT and DATA a relay says the same thing again and again."""

_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])(.*))?", re.DOTALL)


class ReplyParser:
    """Cuts a stream of bytes into replies (RFC 5321 4.2.1). Fed with any split of it, gives the same replies.

    Attributes:
        broken: why nothing that follows can be trusted, once something came that is no reply.
    """

    def __init__(self) -> None:
        self.broken: str | None = None
        self._rest = b""
        self._code: int | None = None
        self._lines: list[str] = []
        self._size = 0
        self._enhanced: str | None = None

    @property
    def empty(self) -> bool:
        """Whether no reply has been begun."""
        return not self._rest and self._code is None

    def feed(self, data: bytes) -> list[Reply]:
        """Take bytes from the server; the replies that they complete, up to where it is `broken`."""
        *lines, self._rest = (self._rest + data if self._rest else data).split(b"\n")
        replies: list[Reply] = []
        for line in lines:
            reply = (_alone(line) if self._code is None else None) or self._line(line.removesuffix(b"\r"))
            if self.broken is not None:
                return replies
            if reply is not None:
                replies.append(reply)
        if len(self._rest) > MAX_LINE_BYTES:
            self.broken = "the relay sent a line without an end"
        return replies

    def _line(self, line: bytes) -> Reply | None:
        found = _LINE.fullmatch(line)
        self._size += len(line)
        if found is None or self._size > MAX_REPLY_BYTES:
            self.broken = "the relay sent something that is no SMTP reply"
            return None
        code = int(found[1])
        if self._code is not None and code != self._code:
            self.broken = "the relay sent a reply whose lines contradict each other"
            return None
        text = (found[3] or b"").decode("utf-8", "replace")
        self._enhanced = self._enhanced or enhanced_code(code, text)
        self._lines.append(text)
        if found[2] == b"-":
            self._code = code
            return None
        reply = Reply(code, " ".join(self._lines), self._enhanced)
        self._code, self._lines, self._size, self._enhanced = None, [], 0, None
        return reply


@lru_cache(REMEMBERED)
def _alone(line: bytes) -> Reply | None:
    """A reply of one line; None: it is none, or a long one."""
    found = _LINE.fullmatch(line.removesuffix(b"\r"))
    if found is None or found[2] == b"-" or len(line) > MAX_LINE_BYTES:
        return None
    code, text = int(found[1]), (found[3] or b"").decode("utf-8", "replace")
    return Reply(code, text, enhanced_code(code, text))
