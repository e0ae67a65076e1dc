"""What a person reads when Redis cannot be used."""

from __future__ import annotations

from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from mailfleet_sender.errors import LimiterUnavailable


def unavailable(error: Exception) -> LimiterUnavailable:
    """The error to raise instead of redis-py's own, with the remedy; never with the URL, which may hold a password."""
    match error:
        case AuthenticationError():
            return LimiterUnavailable("Redis refuses the user or password: correct redis-url in the sender Secret")
        case NoPermissionError():
            return LimiterUnavailable(
                "the Redis user may not do this: allow it +eval +evalsha +script +time and hashes on keys mailfleet:*"
            )
        case ResponseError():
            return LimiterUnavailable(f"Redis refuses the call: {str(error)[:160]}")
        case _:
            return LimiterUnavailable(
                f"Redis does not answer ({type(error).__name__}): check redis-url in the sender Secret and its server"
            )
