"""One campaign on its own stage: a namespace, a table, a relay, and what the oracle and the ledger say of it."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2e.house import SENDER_SECRET, query
from mailfleet_demo.installation import namespace
from mailfleet_demo.kubectl import Kubectl
from mailfleet_demo.oracle import peak
from mailfleet_demo.progress import condition, describe
from mailfleet_demo.why import explain
from services import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.board import Board
    from e2e.house import House

API = "mailfleet.dev/v1alpha1"
RELAY, DATABASE = "relay", "shop-db"


class TooLateError(AssertionError):
    """Something did not come true in time; the message holds what explains it."""


@dataclass
class Stage:
    """A namespace with one campaign.

    Attributes:
        name: of the test: in the namespace, the table and the addresses' domain.
        spec: of the campaign; `relay` of the relay.
        namespace: of another stage, to be there beside its campaign.
    """

    house: House
    board: Board
    name: str
    campaign: str = "news"
    rate: str = "1000/s"
    spec: dict[str, Any] = field(default_factory=dict)
    relay: dict[str, Any] = field(default_factory=dict)
    namespace: str = ""

    def __post_init__(self) -> None:
        self.namespace = self.namespace or f"e2e-{self.name}"
        self.table = self.name.replace("-", "_")
        self.domain = f"{self.name}.example"
        self.kubectl = Kubectl(self.namespace)
        self.relay = {
            "host": f"sink.{self.house.kubectl.namespace}.svc.cluster.local",
            "port": 2525,
            "tls": {"mode": "None"},
            "limits": {"rate": self.rate},
            **self.relay,
        }
        self.spec = {
            "relayRef": {"name": RELAY},
            "recipients": {"table": {"databaseSecretRef": {"name": DATABASE, "key": "url"}, "name": self.table}},
            "message": {
                "from": f"Example Shop <news@{self.domain}>",
                "subject": "{{ first_name | default('Hello') }}, our news",
                "text": "Dear {{ first_name | default('friend') }},\n\nthis is our news.\n",
            },
            "senders": {"maxReplicas": 3},
            "retry": {"initialDelaySeconds": 5},
            **self.spec,
        }

    # --- what a person prepares --------------------------------------------------------------------
    def prepare(self, *, sender_secret: bool = True, database_secret: bool = True) -> None:
        """The namespace with restricted pods only, and its Secrets."""
        namespace(self.namespace)
        if sender_secret:
            self.secret(SENDER_SECRET, self.house.sender_secret)
        if database_secret:
            self.secret(DATABASE, {"url": self.house.shop_inside})

    def secret(self, name: str, content: dict[str, str]) -> None:
        """Write a Secret."""
        data = {key: base64.b64encode(value.encode()).decode() for key, value in content.items()}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})

    def fill(self, rows: int, *, key: str = "id bigint PRIMARY KEY") -> None:
        """The table: of each hundred rows one has no address, one repeats another's in upper case, one is unnamed."""
        self.sql(f"CREATE TABLE {self.table} ({key}, email text, first_name text)")
        self.sql(
            f"INSERT INTO {self.table} SELECT g, CASE mod(g, 100) WHEN 7 THEN 'nobody.{self.domain}' "
            f"WHEN 9 THEN upper('user' || g - 1) || '@{self.domain}' ELSE 'user' || g || '@{self.domain}' END, "
            "CASE WHEN mod(g, 100) <> 11 THEN 'Zoë ' || g END FROM generate_series(1, %s) g",
            rows,
        )

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement in the shop's database."""
        return query(self.house.shop_url, statement, *values)

    def relay_manifest(self) -> dict[str, Any]:
        """The relay as a file."""
        return {"apiVersion": API, "kind": "EmailRelay", "metadata": {"name": RELAY}, "spec": self.relay}

    def manifest(self) -> dict[str, Any]:
        """The campaign as a file."""
        return {"apiVersion": API, "kind": "EmailCampaign", "metadata": {"name": self.campaign}, "spec": self.spec}

    def apply_relay(self) -> None:
        """`kubectl apply` of the relay."""
        self.kubectl.apply(self.relay_manifest())

    def apply(self, **changes: Any) -> None:
        """`kubectl apply` of the campaign; `changes` replace fields of its spec from now on."""
        self.spec |= changes
        self.kubectl.apply(self.manifest())

    def delete(self) -> None:
        """`kubectl delete` of the campaign; it must not hang."""
        self.kubectl("delete", "emailcampaign", self.campaign, "--timeout=240s", seconds=250)

    # --- what a person sees ------------------------------------------------------------------------
    @property
    def status(self) -> dict[str, Any]:
        """The newest status."""
        return self.board.campaign(self.namespace, self.campaign).get("status") or {}

    def count(self, outcome: str) -> int:
        """One term of status.recipients."""
        return int((self.status.get("recipients") or {}).get(outcome) or 0)

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition of the status."""
        return condition(self.status, kind)

    def holds(self, kind: str, status: str = "True", *, reason: str | None = None) -> bool:
        """Whether a condition has this status (and reason) for the generation that was applied last."""
        version = self.board.campaign(self.namespace, self.campaign)
        found = condition(version.get("status") or {}, kind)
        current = found.get("observedGeneration") == version.get("metadata", {}).get("generation")
        return current and found.get("status") == status and reason in (None, found.get("reason"))

    def until(self, what: str, probe: Callable[[], Any], *, seconds: float) -> None:
        """Wait for the campaign's status.

        Args:
            seconds: what a quiet machine needs at most; see `PATIENCE`.

        Raises:
            TooLateError: not in time; with all that explains it.
        """
        seconds *= PATIENCE
        deadline = self.board.deadline(seconds)
        while not probe():
            if self.board.passed(deadline):
                told = explain(self.kubectl, self.campaign)
                raise TooLateError(f"not within {seconds:g} s: {what}; {describe(self.status)}\n{told}")
            self.board.wait(0.3)

    def until_condition(self, kind: str, status: str = "True", *, reason: str | None = None, seconds: float) -> None:
        """Wait for a condition; see `until`."""
        self.until(
            f"{kind}={status} {reason or ''}".strip(),
            lambda: self.holds(kind, status, reason=reason),
            seconds=seconds,
        )

    def until_complete(self, *, seconds: float = 90) -> None:
        """`kubectl wait --for=condition=Complete`, with an explanation when it does not come."""
        self.until_condition("Complete", seconds=seconds)

    def until_accepted(self, count: int, *, seconds: float = 60) -> None:
        """Wait until the oracle has accepted so many."""
        self.until(f"{count} accepted", lambda: len(self.accepted()) >= count, seconds=seconds)

    def pods(self, component: str = "sender") -> list[dict[str, Any]]:
        """Its pods that are at work or about to be."""
        selector = f"mailfleet.dev/campaign={self.campaign},app.kubernetes.io/component={component}"
        pods: list[dict[str, Any]] = self.kubectl.json("get", "pods", "--selector", selector)["items"]
        return [p for p in pods if p["status"].get("phase") not in {"Succeeded", "Failed"}]

    # --- the books -----------------------------------------------------------------------------------
    def accepted(self) -> list[dict[str, Any]]:
        """The oracle's log for this campaign."""
        return self.house.oracle.accepted(self.domain)

    def arrived(self) -> Counter[str]:
        """Address -> how many mails the oracle accepted for it."""
        return Counter(e["recipient"] for e in self.accepted())

    def expected(self) -> dict[str, str]:
        """Key -> address of those who should get mail, by this test's own rule."""
        rows = self.sql(
            f"SELECT DISTINCT ON (lower(email)) id::text, email FROM {self.table} WHERE email LIKE '%@%' "
            "ORDER BY lower(email), id"
        )
        return dict(rows)

    def verdicts(self, run_id: str = "1") -> dict[str, list[str]]:
        """Key -> outcomes that the ledger holds now: the newest row of each place, and the pages skipped at plan."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        where = (self.namespace, self.campaign, run_id)
        run = "SELECT id FROM run WHERE (namespace, name, run_id) = (%s, %s, %s)"
        newest = f"SELECT DISTINCT ON (key) key, outcome FROM delivery WHERE run = ({run}) ORDER BY key, id DESC"
        planned = (
            "SELECT unnest(p.keys), 'skipped' FROM page p JOIN run r ON r.id = p.run AND r.plan_id = p.plan "
            f"WHERE r.id = ({run}) AND p.wave = -1"
        )
        for statement in (newest, planned):
            for key, outcome in query(self.house.ledger_url, statement, *where):
                found[key].append(outcome)
        return dict(found)

    def balance(self, *, uncertain: int = 0, run_id: str = "1") -> None:
        """Hold everything against everything, when the run is over.

        Every key of an independent SELECT has exactly one verdict; who should get mail got one, unless named as
        uncertain (at most so many); nobody else got any; the status says the same.
        """
        keys = {str(key) for (key,) in self.sql(f"SELECT id FROM {self.table}")}
        expected, verdicts, arrived = self.expected(), self.verdicts(run_id), self.arrived()
        assert {k: v for k, v in verdicts.items() if len(v) != 1} == {}, "one verdict for each key"
        assert verdicts.keys() == keys, f"without a verdict: {sorted(keys - verdicts.keys())[:10]}"
        outcome = {k: v[0] for k, v in verdicts.items()}
        doubted = {k for k, v in outcome.items() if v == "uncertain"}
        assert len(doubted) <= uncertain, f"{len(doubted)} uncertain, {uncertain} are allowed"
        mailed = {k for k, v in outcome.items() if v in {"sent", "uncertain"}}
        assert mailed == expected.keys(), f"verdict against SELECT: {sorted(mailed ^ expected.keys())[:10]}"
        lost = {k for k, address in expected.items() if not arrived[address]} - doubted
        assert lost == set(), f"never arrived and not named as uncertain: {sorted(lost)[:10]}"
        strangers = set(arrived) - set(expected.values())
        assert strangers == set(), f"mailed though nobody should: {sorted(strangers)[:10]}"
        duplicates = arrived.total() - len(arrived)
        assert duplicates == 0, f"{duplicates} duplicates"
        counts = Counter(outcome.values())
        recipients = self.status["recipients"]
        wanted = {**dict.fromkeys(recipients, 0), **counts, "planned": len(keys)}
        assert recipients == wanted, f"status {recipients}, ledger {wanted}"

    def peak(self) -> int:
        """The most mails in any second."""
        return peak([e["time"] for e in self.accepted()])
