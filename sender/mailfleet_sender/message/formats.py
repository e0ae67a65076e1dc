"""Filters for people's eyes: dates, times, numbers and money as a language writes them (Unicode CLDR, by Babel).

    {{ ends_on | date('long', 'de') }}                              24. November 2026
    {{ starts_at | datetime('short', 'en_GB', zone='Europe/London') }}
    {{ price | currency('EUR', 'de') }}                             1.234,50 and the sign of the euro
    {{ points | number('fr') }}

A format is short, medium, long, full or a pattern of CLDR ("EEEE, d. MMMM"). What is undefined stays undefined, so
`default` may stand before or after. Babel is loaded when a template first uses one of them.
"""

from __future__ import annotations

import datetime as dt
import functools
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import TemplateRuntimeError, Undefined, nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from babel import Locale

ARGUMENT_CHARACTERS = 100
"""The longest format, locale or zone; they may come from a row."""
DIGITS = 64
"""Of a number, before and after its point: 1e999999 would be a megabyte."""
CACHED = 4_096
"""Days, hours and prices recur from recipient to recipient."""


class FormatError(TemplateRuntimeError):
    """A value or an argument that cannot be meant; its text holds neither."""


def date(value: Any, format: str = "medium", locale: str = "en", zone: str | None = None) -> Any:  # noqa: A002
    """The day of a date or a moment, or of text as 2026-11-24; `zone` says whose day a moment is (UTC by default)."""
    if isinstance(value, Undefined):
        return value
    moment = _moment(value)
    if isinstance(moment, dt.time):
        raise FormatError("date: a time of day has no date")
    if isinstance(moment, dt.datetime):
        moment = _shown_in(moment, zone, "date").date()
    return _written("date", moment, 0, None, format_=_text(format, "format"), locale=_text(locale, "locale"))


def time(value: Any, format: str = "short", locale: str = "en", zone: str | None = None) -> Any:  # noqa: A002
    """The time of day of a moment; `zone` as for `date`."""
    if isinstance(value, Undefined):
        return value
    moment = _moment(value)
    if isinstance(moment, dt.datetime):
        moment = _shown_in(moment, zone, "time")
    elif not isinstance(moment, dt.time):
        raise FormatError("time: a date has no time of day")
    return _bare("time", moment, _text(format, "format"), _text(locale, "locale"))


def datetime(value: Any, format: str = "medium", locale: str = "en", zone: str | None = None) -> Any:  # noqa: A002
    """Day and time of a moment; `zone` as for `date`."""
    if isinstance(value, Undefined):
        return value
    moment = _moment(value)
    if not isinstance(moment, dt.datetime):
        raise FormatError("datetime: the value is a date or a time of day alone: use date or time")
    shown = _shown_in(moment, zone, "datetime")
    return _bare("datetime", shown, _text(format, "format"), _text(locale, "locale"))


def number(value: Any, locale: str = "en", format: str | None = None) -> Any:  # noqa: A002
    """A number with its separators; a pattern as "#,##0.00" sets the digits."""
    if isinstance(value, Undefined):
        return value
    pattern = None if format is None else _text(format, "format")
    return _counted(str(_number(value, "number")), _text(locale, "locale"), pattern, None)


def currency(value: Any, currency: str, locale: str = "en", format: str | None = None) -> Any:  # noqa: A002
    """An amount of a currency (ISO 4217: EUR), with as many decimals as that currency has."""
    if isinstance(value, Undefined):
        return value
    pattern = None if format is None else _text(format, "format")
    return _counted(str(_number(value, "currency")), _text(locale, "locale"), pattern, _text(currency, "currency"))


FILTERS: dict[str, Callable[..., Any]] = {
    "date": date, "time": time, "datetime": datetime, "number": number, "currency": currency,
}  # fmt: skip
_SAMPLE: dict[str, Any] = {
    "date": dt.date(2026, 11, 24),
    "time": dt.time(8, 30),
    "datetime": dt.datetime(2026, 11, 24, 8, 30, tzinfo=dt.UTC),
    "number": Decimal("1234.5"),
    "currency": Decimal("1234.5"),
}
_PARAMETERS = {
    "number": ("locale", "format"),
    "currency": ("currency", "locale", "format"),
}


def faults(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """What is wrong with arguments that stand in the template itself: line and words. Those out of rows wait."""
    for node in tree.find_all(nodes.Filter):
        if node.name not in FILTERS:
            continue
        try:
            FILTERS[node.name](_SAMPLE[node.name], **_constants(node))
        except FormatError as error:
            yield node.lineno, error.message or ""
        except TypeError:
            yield node.lineno, f"{node.name}: wrong arguments; it takes {', '.join(_names(node.name))}"


def _names(name: str) -> tuple[str, ...]:
    return _PARAMETERS.get(name, ("format", "locale", "zone"))


def _constants(node: nodes.Filter) -> dict[str, Any]:
    """Arguments by name, as far as the template itself gives them."""
    names = _names(node.name)
    if len(node.args) > len(names):
        raise TypeError
    given = [*zip(names, node.args, strict=False), *((pair.key, pair.value) for pair in node.kwargs)]
    found: dict[str, Any] = {}
    name: Any
    for name, value in given:
        try:
            found[name] = value.as_const()
        except nodes.Impossible:
            found |= {"currency": "EUR"} if name == "currency" else {}
    return found


def _moment(value: Any) -> dt.date | dt.datetime | dt.time:
    if isinstance(value, dt.date | dt.time):
        return value
    if isinstance(value, str):
        for kind in (dt.date, dt.datetime, dt.time):
            try:
                return kind.fromisoformat(value.strip())
            except ValueError:
                continue
    raise FormatError("the value is no date and no time; text must be as 2026-11-24 or 2026-11-24T08:30:00Z")


def _shown_in(moment: dt.datetime, zone: str | None, name: str) -> dt.datetime:
    """A moment that knows its zone, in the zone wanted; one that knows none, as it stands."""
    if moment.tzinfo is None:
        if zone is not None:
            raise FormatError(
                f"{name}: a moment without a time zone cannot be shown in a zone: use timestamptz, or leave zone out"
            )
        return moment
    try:
        return moment.astimezone(_zone(_text(zone or "UTC", "zone")))
    except OverflowError:
        raise FormatError(f"{name}: the moment lies outside of the years 1 to 9999") from None


@functools.lru_cache(CACHED)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise FormatError("the zone is not known: it must be as Europe/Berlin") from None


def _number(value: Any, name: str) -> Decimal:
    if isinstance(value, int | float | Decimal | str) and not isinstance(value, bool):
        try:
            found = Decimal(value.strip() if isinstance(value, str) else str(value))
        except (InvalidOperation, ValueError):  # ValueError: an int of more digits than Python turns into text
            found = Decimal("nan")
        if found.is_finite():
            if -DIGITS < found.adjusted() < DIGITS and len(found.as_tuple().digits) <= DIGITS:
                return found
            raise FormatError(f"{name}: the value has more than {DIGITS} digits")
    raise FormatError(f"{name}: the value is no number; text must be as 1234.5")


def _text(argument: Any, name: str) -> str:
    if not isinstance(argument, str) or not 0 < len(argument) <= ARGUMENT_CHARACTERS:
        raise FormatError(f"{name} must be a text of at most {ARGUMENT_CHARACTERS} characters")
    return str(argument)  # a Markup of autoescaping is a str too, and would change what it is put into


@functools.lru_cache(CACHED)
def _locale(name: str) -> Locale:
    from babel import Locale, UnknownLocaleError  # noqa: PLC0415 - 25 ms and 8 MB that most campaigns do without

    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        raise FormatError("the locale is not known: it must be as de or de_AT") from None


def _bare(kind: str, moment: dt.datetime | dt.time, format_: str, locale: str) -> str:
    """Without its zone and fold, which equality looks past: one moment in two zones would be one entry of the cache."""
    return _written(kind, moment.replace(tzinfo=None), moment.fold, moment.tzinfo, format_=format_, locale=locale)


@functools.lru_cache(CACHED)
def _written(kind: str, moment: Any, fold: int, zone: dt.tzinfo | None, *, format_: str, locale: str) -> str:
    from babel import dates  # noqa: PLC0415

    found = _locale(locale)
    if "%" in format_:
        raise FormatError(f"{kind}: the format is a pattern of CLDR, as d. MMMM y, not one of strftime with %")
    try:
        if kind == "date":
            return dates.format_date(moment, format_, locale=found)
        # Babel takes what has no zone for UTC and turns it; so each is told the zone that it is shown in.
        zone = zone or dt.UTC
        write = dates.format_time if kind == "time" else dates.format_datetime
        return write(moment.replace(tzinfo=zone, fold=fold), format_, tzinfo=zone, locale=found)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError):
        raise FormatError(
            f"{kind}: the format cannot be used: short, medium, long, full, or a pattern as d. MMMM y"
        ) from None


@functools.lru_cache(CACHED)
def _counted(digits: str, locale: str, pattern: str | None, code: str | None) -> str:
    from babel import numbers  # noqa: PLC0415

    found, value = _locale(locale), Decimal(digits)  # 1.0 and 1.00 are equal, and not written alike
    if code is not None and code not in _locale("en").currencies:
        raise FormatError("currency: the currency is not known: it must be a code of ISO 4217, as EUR")
    try:
        if code is None:
            return numbers.format_decimal(value, format=pattern, locale=found, decimal_quantization=pattern is not None)
        return numbers.format_currency(value, code, format=pattern, locale=found, currency_digits=pattern is None)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError, ArithmeticError):
        raise FormatError("the format cannot be used: it must be a pattern as #,##0.00") from None
