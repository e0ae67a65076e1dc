"""What all campaigns say of themselves while the tests run: every version of every status, and the ledger beside it.

One watch and one thread for the whole session. Each version and each look into the ledger is a sample of the promise
that planned is the sum of all other terms; the first sample that breaks it fails the test that was running.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

import psycopg2

from mailfleet_demo.errors import CommandError
from mailfleet_demo.oracle import adds_up
from mailfleet_sender.ledger import Runs, open_ledger

if TYPE_CHECKING:
    from mailfleet_demo.kubectl import Kubectl

INTERVAL_SECONDS = 0.2
"""Between two looks into the ledger."""


class Board:
    """The newest version of each campaign, and the count of samples.

    Attributes:
        broken: samples that did not add up, in words.
        looks: samples taken so far, by (namespace, name).
    """

    def __init__(self, kubectl: Kubectl, ledger_url: str) -> None:
        """Not watching yet; use it as a context manager."""
        self._kubectl, self._ledger_url = kubectl, ledger_url
        self._campaigns: dict[tuple[str, str], dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._watch, self._look)]
        self.broken: list[str] = []
        self.looks: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def campaign(self, namespace: str, name: str) -> dict[str, Any]:
        """The newest version; empty if there is none."""
        return self._campaigns.get((namespace, name), {})

    def wait(self, seconds: float) -> None:
        """Until some campaign has changed, or so many seconds have passed."""
        with self._changed:
            self._changed.wait(seconds)

    @staticmethod
    def deadline(seconds: float) -> float:
        """The moment in so many seconds, for `passed`."""
        return time.monotonic() + seconds

    @staticmethod
    def passed(deadline: float) -> bool:
        """Whether it is over."""
        return time.monotonic() > deadline

    def _sample(self, namespace: str, name: str, recipients: dict[str, int], where: str) -> None:
        self.looks[namespace, name] += 1
        if not adds_up(recipients):
            self.broken.append(f"{namespace}/{name}, {where}: {recipients}")

    def _watch(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(CommandError):  # the API server ends a watch now and then: begin again
                self._follow()

    def _follow(self) -> None:
        with self._kubectl.watch("emailcampaigns", "--all-namespaces", "--output-watch-events") as following:
            while not self._stop.is_set():
                if not (event := following(0.5)):
                    continue
                if event["type"] == "ERROR":  # the watch is over: an old version is compacted, or a definition changed
                    return
                version = event["object"]
                namespace, name = version["metadata"]["namespace"], version["metadata"]["name"]
                if recipients := (version.get("status") or {}).get("recipients"):
                    self._sample(namespace, name, recipients, "status")
                with self._changed:
                    if event["type"] == "DELETED":
                        self._campaigns.pop((namespace, name), None)
                    else:
                        self._campaigns[namespace, name] = version
                    self._changed.notify_all()

    def _look(self) -> None:
        """The ledger's totals of all runs, each in one statement."""
        engine = open_ledger(self._ledger_url, application_name="e2e-sampler")
        try:
            while not self._stop.wait(INTERVAL_SECONDS):
                named = self._runs()
                for run, totals in Runs(engine).totals(list(named)).items():
                    terms = {term: getattr(totals, term) for term in totals.__dataclass_fields__}
                    self._sample(*named[run], terms, "ledger")
        except Exception as error:  # noqa: BLE001 - told by the next test; a thread has nobody to raise to
            self.failure = error
        finally:
            engine.dispose()

    def _runs(self) -> dict[int, tuple[str, str]]:
        with contextlib.closing(psycopg2.connect(self._ledger_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id, namespace, name FROM run")
            return {run: (namespace, name) for run, namespace, name in cursor}
