"""Virtual time, and what may go wrong on a wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
BEGIN = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)


class OperatorDiedError(BaseException):
    """The operator's process ends here, whatever it was about to do."""


@dataclass
class Clock:
    """True time, as ledger and API server have it; the operator's own wall clock may be wrong by `offset` seconds."""

    seconds: float = 0.0
    offset: float = 0.0

    @property
    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    @property
    def operators(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds + self.offset)


class OperatorTime:
    """Stands in for `datetime` and `time` in the operator's modules that ask for the time."""

    clock = Clock()

    @classmethod
    def now(cls, _zone: Any = None) -> datetime:
        return cls.clock.operators

    @classmethod
    def monotonic(cls) -> float:
        return cls.clock.seconds


class Wire:
    """Every call of one operator passes here. It may die before or after any of them, or lose an answer."""

    def __init__(self) -> None:
        self.fuse: int | None = None
        """Half calls until the operator dies: odd before a call, even after it."""
        self.dies_after = ""
        """The operator dies after a call of this name."""
        self._lost: tuple[tuple[str, ...], Callable[[], BaseException]] | None = None

    def lose_answers_of(self, names: tuple[str, ...], error: Callable[[], BaseException]) -> None:
        """The next call whose name begins so is done, and its answer is lost."""
        self._lost = names, error

    def reset(self) -> None:
        """Nothing goes wrong any more."""
        self.fuse = self._lost = None
        self.dies_after = ""

    def call(self, what: str, do: Callable[[], T]) -> T:
        self._burn(what)
        done = do()
        self._burn(f"{what} done")
        if what == self.dies_after:
            raise OperatorDiedError(what)
        if self._lost and what.startswith(self._lost[0]):
            error, self._lost = self._lost[1], None
            raise error()
        return done

    def _burn(self, what: str) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.fuse = None
                raise OperatorDiedError(what)
