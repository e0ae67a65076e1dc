"""Templates: sandboxed Jinja2 over one recipient's columns, compiled once and rendered for each.

What a template may do is listed, not what it may not: no attribute of a Python object but the methods in
`METHODS`, no import, no unbounded range, no product that grows without bounds, a bounded output. SQL NULL is
undefined, so `default` works and everything else says which column it was (docs/decisions/0032-templates.md).
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import StrictUndefined, TemplateError, Undefined, UndefinedError, filters, meta, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import PlanError, RenderError

from . import formats
from .content import crlf
from .direct import Direct
from .mail import LocalCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jinja2 import Template

RANGE = 1_000
"""The longest `range()`."""
REPEATED = 10_000
"""The longest text or list that `*` may make."""
EXPONENT = 64
"""The largest exponent of `**`."""

_TEXT = frozenset(
    {
        "upper", "lower", "title", "capitalize", "casefold", "swapcase", "strip", "lstrip", "rstrip", "removeprefix",
        "removesuffix", "startswith", "endswith", "split", "rsplit", "splitlines", "partition", "rpartition",
        "replace", "find", "rfind", "count", "isdigit", "isalpha", "isalnum",
    }
)  # fmt: skip
_DATE = frozenset({"year", "month", "day", "weekday", "isoweekday", "isocalendar", "isoformat", "strftime"})
_TIME = frozenset({"hour", "minute", "second", "microsecond", "isoformat", "strftime", "tzname", "utcoffset"})
METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, _TEXT),
    (dt.datetime, _DATE | _TIME | {"date", "time", "timestamp"}),
    (dt.date, _DATE),
    (dt.time, _TIME),
    (dict, frozenset({"get", "items", "keys", "values"})),
    (list, frozenset({"count", "index"})),
    (int, frozenset()),
    (float, frozenset()),
    (decimal.Decimal, frozenset()),
)
"""What a column's value may be asked, by its type. Anything else of Jinja's own (loop, namespace) follows Jinja."""

_WIDTH = re.compile(r"%[^a-zA-Z%]*(?:[0-9]{4}|[*])")

# What an expression over hostile data may raise. Nothing here is an error of the program: templates are data too.
_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, narrowed to what mail needs."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, names in METHODS:
            if isinstance(obj, kind):
                return attr in names
        return True

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            if abs(right) > EXPONENT or abs(left) > REPEATED:
                raise SecurityError(f"the exponent or its base is too large (at most {EXPONENT}, {REPEATED})")
        elif operator == "%":
            _check_format(left)
        elif isinstance(left, int) != isinstance(right, int):
            sequence, times = (right, left) if isinstance(left, int) else (left, right)
            if hasattr(sequence, "__len__") and len(sequence) * times > REPEATED:
                raise SecurityError(f"a product longer than {REPEATED} characters or items")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, _value: Any) -> None:
        """No way around `METHODS` for str.format, though Jinja could make it safe: widths have no bound."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self._known(super().getitem(obj, argument), obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # `{{ profile.name }}` over JSON means the key, never a method that happens to have its name.
        if isinstance(obj, dict) and attribute in obj:
            return self._known(obj[attribute], obj, attribute)
        return self._known(super().getattr(obj, attribute), obj, attribute)

    def _known(self, value: Any, obj: Any, name: Any) -> Any:
        """A null inside JSON is as undefined as a NULL column: it must never print "None"."""
        return self.undefined(obj=obj, name=name) if value is None else value


def _range(*args: int) -> range:
    made = range(*args)
    if len(made) > RANGE:
        raise SecurityError(f"a range of more than {RANGE}")
    return made


def _check_format(text: Any) -> None:
    """A width of many digits, or one taken from the arguments, would make any amount of text."""
    if isinstance(text, str) and _WIDTH.search(text):
        raise SecurityError("a format with a width of more than three digits")


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    _check_format(value)
    return filters.do_format(value, *args, **kwargs)


def _center(value: str, width: int = 80) -> str:
    return filters.do_center(value, min(width, RANGE))


def _printable(value: Any) -> Any:
    """What `{{ }}` may write: never "None", never a method whose parentheses were forgotten."""
    if type(value) is str:
        return value
    if value is None:
        raise UndefinedError("an expression gives null: use default")
    if callable(value) and not isinstance(value, Undefined):
        raise SecurityError(f"{getattr(value, '__name__', 'a function')} is a function: write it with parentheses")
    return value


def _environment(*, autoescape: bool) -> _Sandbox:
    environment = _Sandbox(
        autoescape=autoescape, undefined=StrictUndefined, keep_trailing_newline=True, finalize=_printable
    )
    environment.filters |= {"format": _format, "center": _center, **formats.FILTERS}
    environment.globals = {
        "range": _range,
        "dict": dict,
        "namespace": environment.globals["namespace"],
        "joiner": environment.globals["joiner"],
        "cycler": environment.globals["cycler"],
    }
    return environment


_PLAIN = _environment(autoescape=False)
_HTML = _environment(autoescape=True)


class Compiled:
    """One template, ready to be rendered fast.

    Attributes:
        field: where it stands in the campaign, for messages: `message.subject`.
        columns: the columns that it names.
        required: those of them that it also uses where a NULL would fail.
        constant: what it always gives, if it names no column and runs no statement; else None.
    """

    __slots__ = ("_direct", "_globals", "_limit", "_template", "columns", "constant", "field", "required")

    def __init__(self, field: str, source: str, *, html: bool = False, body: bool = False, limit: int) -> None:
        """Compile it.

        Args:
            field: for messages.
            source: the template.
            html: values are escaped.
            body: it is read by `octets`, not by `render`.
            limit: characters; a longer output is that recipient's failure.

        Raises:
            PlanError: TemplateInvalid, with field and line.
        """
        self.field, self._limit = field, limit
        environment = _HTML if html else _PLAIN
        try:
            tree = environment.parse(source)
            self.columns = frozenset(meta.find_undeclared_variables(tree)) - environment.globals.keys()
            if any(True for _ in meta.find_referenced_templates(tree)):
                _invalid(field, "include, import and extends are not available: write it out")
            self._template: Template = environment.from_string(source)
        except TemplateSyntaxError as error:
            _invalid(field, f"line {error.lineno}: {error.message}")
        except (TemplateError, RecursionError, SyntaxError, ValueError) as error:
            _invalid(field, f"it cannot be compiled ({type(error).__name__})")
        for line, fault in formats.faults(tree):
            _invalid(field, f"line {line}: {fault}")
        self.required = frozenset(_required(tree, self.columns))
        self._globals = environment.globals
        self._direct = Direct.of(tree, self.columns, html=html, body=body)
        static = all(isinstance(node, nodes.Output | nodes.TemplateData) for node in _statements(tree))
        try:
            self.constant = self._rendered({}) if static and not self.columns else None
        except RenderError as error:
            _invalid(field, error.detail.removeprefix(f"{field}: "))

    def render(self, values: Mapping[str, object]) -> str:
        """Render it for one row.

        Raises:
            RenderError: ValueMissing, RenderFailed or MessageTooLarge; never with a value of the row.
        """
        if self._direct and (text := self._direct.render(values, self._limit)) is not None:
            return text
        return self._rendered(values)

    def octets(self, values: Mapping[str, object]) -> bytes:
        """Render it for one row, in UTF-8 with every newline as CRLF.

        Raises:
            RenderError: as `render`.
            UnicodeEncodeError: a value holds half a character.
        """
        if self._direct and (text := self._direct.render(values, self._limit)) is not None:
            return text.encode()
        return crlf(self._rendered(values))

    def _rendered(self, values: Mapping[str, object]) -> str:
        template = self._template
        # new_context(shared=True) takes the dict as it is; Template.render copies it twice.
        context = template.new_context({**self._globals, **values}, shared=True)
        try:
            return self._joined(template.root_render_func(context))
        except UndefinedError as error:
            raise RenderError(LocalCode.VALUE_MISSING, f"{self.field}: {_plain(error)}") from None
        except RenderError:
            raise
        except _FAILURES as error:
            text = _plain(error) if isinstance(error, SecurityError | formats.FormatError) else type(error).__name__
            raise RenderError(LocalCode.RENDER_FAILED, f"{self.field}: {text}") from None

    def _joined(self, chunks: Iterator[str]) -> str:
        out: list[str] = []
        left = self._limit
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                raise RenderError(
                    LocalCode.MESSAGE_TOO_LARGE,
                    f"{self.field}: longer than {self._limit} characters for this recipient",
                )
            out.append(chunk)
        return "".join(out)


def _invalid(field: str, what: str) -> NoReturn:
    raise PlanError(ReportReason.TEMPLATE_INVALID, f"{field}: {what}")


def _plain(error: TemplateError) -> str:
    """Jinja's own words; they name variables and attributes, never values."""
    return (error.message or type(error).__name__)[:120]


def _statements(tree: nodes.Template) -> Iterator[nodes.Node]:
    yield from tree.iter_child_nodes()


def _required(tree: nodes.Template, columns: frozenset[str]) -> Iterator[str]:
    """Columns that a NULL would fail: used without `default`, and never tested with `is defined`."""
    cared_for = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name in {"defined", "undefined"} and isinstance(test.node, nodes.Name)
    }
    defaulted = {
        id(_filtered(f.node)) for f in tree.find_all(nodes.Filter) if f.name in {"default", "d"} and f.node is not None
    }
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and name.name in columns and name.name not in cared_for and id(name) not in defaulted:
            yield name.name


def _filtered(node: nodes.Expr) -> nodes.Expr:
    """What stands before filters that leave the undefined undefined: `{{ ends_on | date | default('soon') }}`."""
    while isinstance(node, nodes.Filter) and node.name in formats.FILTERS and node.node is not None:
        node = node.node
    return node
