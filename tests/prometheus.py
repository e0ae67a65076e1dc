"""What Prometheus would see: a scrape, and promtool's opinion of it."""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from services import wait_for

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

CACHE = Path(os.environ.get("MAILFLEET_CACHE") or Path.home() / ".cache" / "mailfleet")
PROMTOOL = CACHE / "debian" / "prometheus" / "usr" / "bin" / "promtool"


class Scrape:
    """One scrape.

    Attributes:
        text: as it was served.
        samples: as they are read.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: list[Sample] = [s for f in text_string_to_metric_families(text) for s in f.samples]

    @classmethod
    def of(cls, port: int) -> Scrape:
        """Of a process on loopback, as soon as it answers."""

        def probe() -> str | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    text: str = answer.read().decode()
                    return text
            except urllib.error.URLError:
                return None

        return cls(wait_for(f"port {port} serves metrics", probe))

    def values(self, name: str, **labels: str) -> list[float]:
        """Of all series of that name with these labels among theirs."""
        return [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def about(self, **labels: str) -> list[Sample]:
        """All series with these labels among theirs."""
        return [s for s in self.samples if labels.items() <= s.labels.items()]

    def check(self) -> None:
        """`promtool check metrics` finds nothing to say.

        Raises:
            AssertionError: it does; its words are in the message.
        """
        assert PROMTOOL.exists(), "run deploy/debian-packages.sh tests"
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=self.text, capture_output=True, text=True, timeout=30, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert not said, said
