"""The operator's side of the limiter: limits, what a campaign may do, and what is going on."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError

from .account import CAMPAIGN_FIELDS, OUTCOME_FIELDS, AccountState, Brake, read_account
from .keys import Keys
from .limits import usage_arguments
from .scripts import LIMITS, STATE, USAGE
from .trouble import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from redis import Redis, RedisCluster

    from .limits import AccountLimits


class LimiterAdmin:
    """Writes what the script reads. Every write may be repeated, and is meant to be: Redis may have lost it."""

    def __init__(self, client: Redis | RedisCluster) -> None:
        self._redis = client

    def ping(self) -> None:
        """Whether Redis answers.

        Raises:
            LimiterUnavailable: it does not.
        """
        with _answering():
            self._redis.ping()

    def write_limits(self, account: str, version: int, limits: AccountLimits) -> bool:
        """Write an account's limits unless Redis has them in this or a newer version.

        Returns:
            whether they were written.

        Raises:
            LimiterUnavailable: Redis does not answer.
        """
        keys = Keys(account)
        with _answering():
            arguments = limits.arguments(version, datetime.now(UTC))
            return bool(self._run(LIMITS, [keys.limits, keys.quota], arguments))

    def write_usage(self, account: str, usage: Iterable[tuple[datetime, int]]) -> bool:
        """Tell what is used of an account's quota, when Redis has lost it: see `seed_usage`.

        Raises:
            LimiterUnavailable: Redis does not answer.
        """
        with _answering():
            return bool(self._run(USAGE, [Keys(account).quota], usage_arguments(usage)))

    def set_paused(self, account: str, *, paused: bool) -> None:
        """Pause the whole account, or let it go on.

        Raises:
            LimiterUnavailable: Redis does not answer.
        """
        with _answering():
            self._redis.hset(Keys(account).limits, "paused", str(int(paused)))

    def set_campaign(
        self,
        account: str,
        campaign: str,
        *,
        weight: int = 100,
        paused: bool = False,
        open_until: datetime | None = None,
        reopens: Sequence[tuple[datetime, datetime]] = (),
        brake: Brake | None = None,
    ) -> None:
        """Say a campaign's weight, whether it is paused, when it may send, and its brake.

        Args:
            account: of the relay.
            campaign: namespace/name.
            weight: its share, at least 1.
            paused: whether it gets no permits at all.
            open_until: when it closes (None: never; a time that has passed: it is closed).
            reopens: when it opens and closes again after that, in order. After the last it stays closed.
            brake: when it stops by itself.

        Raises:
            LimiterUnavailable: Redis does not answer.
            ValueError: the weight is not positive, the times are not in order, or the brake's numbers make no sense.
        """
        turns = [] if open_until is None else [open_until, *(t for opening in reopens for t in opening)]
        if turns != sorted(turns) or (reopens and not turns):
            raise ValueError("a campaign closes and opens by turns, in order, closing first")
        if weight < 1:
            raise ValueError(f"a weight is at least 1, not {weight}")
        if brake and not (0 <= brake.max_failed_percent <= 100 and brake.minimum_sample >= 1):
            raise ValueError(f"a brake has 0 to 100 percent and a sample of at least 1, not {brake}")
        said: dict[str, str | int] = {
            "weight": weight,
            "paused": int(paused),
            "until": " ".join(str(int(t.timestamp() * 1e6)) for t in turns),
            "brake-percent": brake.max_failed_percent if brake else "",
            "brake-sample": brake.minimum_sample if brake else "",
        }
        with _answering():
            self._redis.hset(Keys(account).limits, mapping={f"{field}:{campaign}": x for field, x in said.items()})

    def release_brake(self, account: str, campaign: str) -> None:
        """Let a braked campaign go on; its outcomes are counted anew.

        Raises:
            LimiterUnavailable: Redis does not answer.
        """
        keys = Keys(account)
        with _answering():
            self._redis.hdel(keys.outcomes, *(f"{field}:{campaign}" for field in OUTCOME_FIELDS))
            self._redis.hdel(keys.limits, f"braked:{campaign}")

    def forget(self, account: str, campaign: str) -> None:
        """Take an ended campaign out.

        Raises:
            LimiterUnavailable: Redis does not answer.
        """
        keys = Keys(account)
        with _answering():
            self._redis.hdel(keys.limits, *(f"{field}:{campaign}" for field in sorted(CAMPAIGN_FIELDS)))
            self._redis.hdel(keys.outcomes, *(f"{field}:{campaign}" for field in OUTCOME_FIELDS))

    def forget_account(self, account: str) -> None:
        """Take out an account that no relay uses any more.

        Raises:
            LimiterUnavailable: Redis does not answer.
        """
        with _answering():
            self._redis.delete(*Keys(account).all)

    def state(self, account: str) -> AccountState:
        """What Redis knows about an account: limits, bookings, who asks.

        Raises:
            LimiterUnavailable: Redis does not answer.
        """
        keys = Keys(account)
        with _answering():
            found = self._run(STATE, [keys.limits, keys.state, keys.pods, keys.quota, keys.outcomes], [])
        limits, state, pods, quota, outcomes = map(_text, found[:5])
        seconds, microseconds = map(int, found[5])
        return read_account(limits, state, pods, seconds * 1_000_000 + microseconds, quota=quota, outcomes=outcomes)

    def _run(self, script: str, keys: list[str], arguments: Sequence[str | int | float]) -> Any:
        """EVAL: so seldom that Redis need not remember the text."""
        return self._redis.eval(script, len(keys), *keys, *arguments)


def _text(pairs: Sequence[Any]) -> dict[str, str]:
    return {_string(k): _string(v) for k, v in zip(*[iter(pairs)] * 2, strict=True)}


def _string(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        raise unavailable(error) from error
