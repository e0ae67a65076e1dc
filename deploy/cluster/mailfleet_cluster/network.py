"""The addresses and names of a local cluster: a block of their own for each, so that several can run at once."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Network:
    """One of the 64 blocks of four /24 in 198.18.0.0/16, set aside for tests (RFC 2544) and routed nowhere.

    Attributes:
        number: 0 to 63.
    """

    number: int = 0

    @classmethod
    def of(cls, folder: Path, usual: Path) -> Network:
        """Block 0 for the usual folder of state, another one for another folder."""
        return cls(0 if folder == usual else 1 + zlib.crc32(bytes(folder)) % (BLOCKS - 1))

    @property
    def host(self) -> str:
        """The machine, as the cluster sees it."""
        return self._address(0, 1)

    @property
    def node(self) -> str:
        """The node: kubelet, API server and DNS."""
        return self._address(0, 2)

    @property
    def pods(self) -> str:
        """The range of the pods' addresses."""
        return f"{self._address(1, 0)}/24"

    @property
    def services(self) -> str:
        """The range of the Services' addresses."""
        return f"{self._address(2, 0)}/24"

    @property
    def api_service(self) -> str:
        """The Service `kubernetes`: always the first."""
        return self._address(2, 1)

    @property
    def link(self) -> str:
        """The host's end of the cable into the network namespace."""
        return f"mailfleet{self.number}"

    @property
    def cgroup(self) -> str:
        """The control group of the pods, at the root of each hierarchy."""
        return f"mailfleet{self.number}"

    def _address(self, part: int, last: int) -> str:
        return f"198.18.{4 * self.number + part}.{last}"
