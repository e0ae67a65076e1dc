"""The HTTP side: what was accepted, and how to behave.

GET  /healthz              "ok"
GET  /summary[?since=T]    counts, duplicates, peak per sliding second, first, last (record.Summary.as_json)
GET  /accepted[?skip=N]    the log, JSON lines
GET  /messages[?recipient=ADDRESS]   the kept messages, newest last: log entries with `body` in base64
GET  /messages/last        the newest message as it came
GET  /behaviour            the rules, with how often each was applied
POST /behaviour            replace the rules: a JSON list (behaviour.Rule)
POST /disconnect           reset every open SMTP connection
POST /reset                forget messages, log and rules
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qs, urlsplit

from .behaviour import RuleError
from .record import summarise

if TYPE_CHECKING:
    from .behaviour import Behaviour
    from .record import Record
    from .server import Session

_Query: TypeAlias = dict[str, str]
_Answer: TypeAlias = tuple[int, str, bytes]
"""Status, content type, body."""

_MAX_BODY = 1_000_000
_STATUS = {200: "OK", 400: "Bad Request", 404: "Not Found"}


class Control:
    """Answers HTTP requests, one a connection."""

    def __init__(self, behaviour: Behaviour, record: Record, sessions: set[Session]) -> None:
        self._behaviour, self._record, self._sessions = behaviour, record, sessions
        self._routes = {
            "GET /healthz": self._healthz,
            "GET /summary": self._summary,
            "GET /accepted": self._accepted,
            "GET /messages": self._messages,
            "GET /messages/last": self._last,
            "GET /behaviour": self._rules,
            "POST /behaviour": self._behave,
            "POST /disconnect": self._disconnect,
            "POST /reset": self._reset,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            async with asyncio.timeout(30):
                request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = request.split("\r\n", 1)[0].split(" ", 2)
                headers = dict(line.lower().split(":", 1) for line in request.split("\r\n")[1:] if ":" in line)
                length = min(int(headers.get("content-length", "0")), _MAX_BODY)
                body = await reader.readexactly(length)
                status, kind, answer = await self._answer(method, target, body)
                head = (
                    f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError, ValueError):
            pass  # no client, or none that speaks HTTP
        finally:
            writer.close()

    async def _answer(self, method: str, target: str, body: bytes) -> _Answer:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if route := self._routes.get(f"{method} {parts.path}"):
            return await route(query, body)
        return _json({"error": f"no {method} {parts.path}", "see": __doc__}, 404)

    async def _healthz(self, _query: _Query, _body: bytes) -> _Answer:
        return 200, "text/plain", b"ok\n"

    async def _summary(self, query: _Query, _body: bytes) -> _Answer:
        if "since" not in query:
            return _json(self._record.summary.as_json())
        since = float(query["since"])
        return _json((await asyncio.to_thread(summarise, self._record.path, since)).as_json())

    async def _accepted(self, query: _Query, _body: bytes) -> _Answer:
        log = await asyncio.to_thread(self._record.path.read_bytes)
        if skip := int(query.get("skip", "0")):
            log = b"".join(log.splitlines(keepends=True)[skip:])
        return 200, "application/jsonl", log

    async def _messages(self, query: _Query, _body: bytes) -> _Answer:
        recipient = query.get("recipient")
        return _json(
            [
                {**entry, "body": base64.b64encode(message).decode()}
                for entry, message in self._record.messages
                if recipient in (None, entry["recipient"])
            ]
        )

    async def _last(self, _query: _Query, _body: bytes) -> _Answer:
        if not self._record.messages:
            return _json({"error": "no message is kept"}, 404)
        return 200, "message/rfc822", self._record.messages[-1][1]

    async def _rules(self, _query: _Query, _body: bytes) -> _Answer:
        return _json(
            [
                {"phase": rule.phase, "reply": rule.reply, "then": rule.then, "applied": rule.applied}
                for rule in self._behaviour.rules
            ]
        )

    async def _behave(self, _query: _Query, body: bytes) -> _Answer:
        try:
            self._behaviour.set(json.loads(body))
        except (RuleError, TypeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        return _json({"rules": len(self._behaviour.rules)})

    async def _disconnect(self, _query: _Query, _body: bytes) -> _Answer:
        sessions = list(self._sessions)
        for session in sessions:
            session.cut()
        return _json({"disconnected": len(sessions)})

    async def _reset(self, _query: _Query, _body: bytes) -> _Answer:
        self._record.reset()
        self._behaviour.set([])
        return _json({})


def _json(value: object, status: int = 200) -> _Answer:
    return status, "application/json", json.dumps(value).encode() + b"\n"
