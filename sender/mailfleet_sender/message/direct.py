"""The short way for templates that only put values into text, as most of a campaign's do: no Jinja for each recipient.

It writes exactly what Jinja would, or nothing: whatever is out of the ordinary (a value that is missing, a list, a
text so long that the limit may be met) is left to Jinja, which then finds the words for it. A test holds the two
against each other.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING

from jinja2 import nodes
from markupsafe import escape

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_PLAIN = frozenset({int, float, bool, Decimal, dt.date, dt.datetime, dt.time})
"""Types that Jinja writes as str() does."""
_JINJAS_OWN = frozenset({"self", "super", "caller", "loop", "varargs", "kwargs"})
"""Names that mean something else in a template, whatever columns there are."""
_DEFAULT = frozenset({"default", "d"})


class Direct:
    """One template as a list of texts with places in it."""

    __slots__ = ("_body", "_fixed", "_html", "_places", "_slots", "_spread", "_texts")

    def __init__(self, pieces: list[str | tuple[str, str | None]], *, html: bool, body: bool) -> None:
        """Take the template apart.

        Args:
            pieces: in their order, texts and (column, what stands for it where it is NULL).
            html: values are escaped.
            body: newlines are written as CRLF.
        """
        self._html, self._body = html, body
        distinct = dict.fromkeys(p for p in pieces if not isinstance(p, str))
        texts = [p.replace("\n", "\r\n") if body else p for p in pieces if isinstance(p, str)]
        self._slots = tuple((len(texts) + n, name, default) for n, (name, default) in enumerate(distinct))
        place = {p: len(texts) + n for n, p in enumerate(distinct)}
        numbers = iter(range(len(texts)))
        order = [next(numbers) if isinstance(p, str) else place[p] for p in pieces]
        self._fixed, self._places = sum(map(len, texts)), len(pieces)
        self._texts = [*texts, *("" for _ in distinct), ""]
        self._spread = itemgetter(*order, -1, -1)  # of a single place itemgetter would make no tuple

    @classmethod
    def of(cls, tree: nodes.Template, columns: Collection[str], *, html: bool, body: bool) -> Direct | None:
        """The short way of a template, if it has one."""
        pieces = [*_pieces(tree, columns)]
        if None in pieces:
            return None
        return cls([p for p in pieces if p is not None], html=html, body=body)

    def render(self, values: Mapping[str, object], limit: int) -> str | None:
        """Its text for one row, of at most `limit` characters; None: ask Jinja."""
        texts, longest, body = self._texts.copy(), 0, self._body
        for at, name, default in self._slots:
            value = values.get(name, default)
            if type(value) is str:
                text = value
                if body:
                    if "\r" in text:  # it may belong to a newline that stands in the template
                        return None
                    if "\n" in text:
                        text = text.replace("\n", "\r\n")
            elif type(value) in _PLAIN:
                text = str(value)
            else:
                return None
            if self._html and not text.isalnum():  # letters and digits are never escaped
                text = escape(text)
            texts[at] = text
            if len(text) > longest:  # noqa: PLR1730 - max() takes three times as long
                longest = len(text)
        if self._fixed + longest * self._places > limit:
            return None
        return "".join(self._spread(texts))


def _pieces(tree: nodes.Template, columns: Collection[str]) -> Iterator[str | tuple[str, str | None] | None]:
    """Texts and places; None: something that only Jinja can do."""
    for statement in tree.body:
        if not isinstance(statement, nodes.Output):
            yield None
            return
        for node in statement.nodes:
            if isinstance(node, nodes.TemplateData):
                yield node.data
            else:
                yield _place(node, columns)


def _place(node: nodes.Expr, columns: Collection[str]) -> tuple[str, str | None] | None:
    default: str | None = None
    if isinstance(node, nodes.Filter) and node.name in _DEFAULT and node.node is not None:
        words = [arg.value for arg in node.args if isinstance(arg, nodes.Const) and type(arg.value) is str]
        if len(words) != 1 or len(node.args) != 1 or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return None
        default, node = words[0], node.node
    if isinstance(node, nodes.Name) and node.name in columns and node.name not in _JINJAS_OWN:
        return node.name, default
    return None
