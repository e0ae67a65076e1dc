"""Where the limiter keeps what in Redis: all keys of one account under one hash tag."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one relay account, hashes all (reserve.lua says what is in them).

    The braces keep them in one slot of a Redis Cluster.
    """

    account: str

    @property
    def limits(self) -> str:
        """What the operator says: limits of the account, settings of its campaigns, brakes that are applied."""
        return self._key("limits")

    @property
    def state(self) -> str:
        """What is booked (tat), virtual time (v), when and at which interval it was written, how slow it is."""
        return self._key("state")

    @property
    def pods(self) -> str:
        """campaign|pod -> when it asked last, whether it is hungry, campaign."""
        return self._key("pods")

    @property
    def tags(self) -> str:
        """campaign -> its finish tag in virtual time, weight, when it asked last."""
        return self._key("tags")

    @property
    def domains(self) -> str:
        """domain -> when its next permit may be used."""
        return self._key("domains")

    @property
    def quota(self) -> str:
        """Number of a bucket of five minutes -> permits taken in it."""
        return self._key("quota")

    @property
    def outcomes(self) -> str:
        """sent:C, failed:C, faults:C: what the brake judges."""
        return self._key("outcomes")

    @property
    def all(self) -> list[str]:
        """In the order in which reserve.lua takes them."""
        return [self.limits, self.state, self.pods, self.tags, self.domains, self.quota, self.outcomes]

    def _key(self, name: str) -> str:
        return f"mailfleet:{{{self.account}}}:{name}"
