"""`make demo`: install, fill a table, apply a campaign, watch it, and hold the outcome against the oracle.

The cluster and the images are there already (`make cluster images`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import urllib.request
from email import policy
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any

import psycopg2
import yaml
from rich.console import Console

from mailfleet_sender.contract.rate import Rate

from .errors import DemoError
from .installation import ROOT, clean, install, kubectl, use_cluster
from .oracle import Books, Limit
from .people import people
from .progress import Line, follow
from .shop import shop
from .why import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

RELAY, CAMPAIGN = ROOT / "examples/relay.yaml", ROOT / "examples/campaign.yaml"
NAME = "autumn-news"
DATABASE = "postgresql://shop:shoppassword@127.0.0.1:{port}/shop"

console = Console()


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f"[{time.monotonic() - began:5.1f} s] {what}", highlight=False, markup=False)


def fill(rows: int) -> None:
    """The table of subscribers."""
    with kubectl.forward("service/postgres", 5432) as port, shop(DATABASE.format(port=port)) as database:
        found = database.fill(people(rows))
    if found != rows:
        raise DemoError(f"the table has {found} rows after COPY, not {rows}")


def watch(rows: int, rate: Rate) -> dict[str, Any]:
    """The progress line; the status at the end."""
    seconds = 180 + 2 * rows / rate.per_second
    with kubectl.watch("emailcampaign", NAME) as following, Line(console, rows) as line:
        status, versions = follow(line, following, seconds=seconds)
    console.print(f"  planned was the sum of all other terms in each of {versions} versions of the status")
    return status


def books(rows: int, rate: Rate, recipients: dict[str, int]) -> Books:
    """The table by SELECT and the sink's log, read when all is over."""
    with kubectl.forward("service/postgres", 5432) as port, shop(DATABASE.format(port=port)) as database:
        expected = database.expected()
    with kubectl.forward("service/sink", 8025) as port:
        log = _get(port, "/accepted").decode().splitlines()
    accepted = [(entry["time"], entry["recipient"]) for entry in map(json.loads, log)]
    return Books(rows, recipients, expected, accepted, Limit(rate.per_second, rate.burst))


def show(status: dict[str, Any]) -> None:
    """What a person wants to see when it is over."""
    _say("$ kubectl get emailcampaigns", kubectl("get", "emailcampaigns"))
    _say(f"$ kubectl get emailcampaign {NAME} -o jsonpath={{.status}}", yaml.safe_dump(status, sort_keys=False))
    with kubectl.forward("service/sink", 8025) as port:
        mail = _get(port, "/messages/last")
    parsed = BytesParser(policy=policy.default).parsebytes(mail)
    _say("one received mail, as it came", mail.decode("utf-8", "replace"))
    _say("the same, decoded", f"To: {parsed['to']}\nSubject: {parsed['subject']}\n\n{_text(parsed)}")


def demo(rows: int) -> int:
    """The whole demonstration.

    Returns:
        the exit status: 0 if the books hold.
    """
    rate = Rate.parse(yaml.safe_load(RELAY.read_text(encoding="utf-8"))["spec"]["limits"]["rate"])
    with step("what an earlier demonstration left is gone"):
        clean()
    with step("Postgres, Redis, the SMTP sink and Mailfleet are installed and ready"):
        install()
    with step(f"the table shop.public.subscribers has {rows} rows"):
        fill(rows)
    console.print(f"$ kubectl apply -f {RELAY.relative_to(ROOT)} -f {CAMPAIGN.relative_to(ROOT)}", highlight=False)
    console.print(kubectl("apply", "-f", str(RELAY), "-f", str(CAMPAIGN)).rstrip(), highlight=False)
    status = watch(rows, rate)
    show(status)
    result = books(rows, rate, status.get("recipients") or {})
    _say(
        "the sink's log against a SELECT of the table",
        f"the SELECT names {len(result.expected)} addresses, the sink accepted {len(result.accepted)} mails for "
        f"{len(result.arrived)}: {result.lost} lost, {result.strangers} strangers, {result.duplicates} duplicates",
    )
    faults = result.faults()
    for fault in faults:
        console.print(f"does not hold: {fault}", highlight=False, markup=False)
    console.print(result.last_line(), highlight=False, markup=False, soft_wrap=True)
    return 1 if faults else 0


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=120) as answer:
        body: bytes = answer.read()
        return body


def _text(mail: Any) -> str:
    part = mail.get_body(("plain", "html"))
    return str(part.get_content()) if part else ""


def _say(title: str, text: str) -> None:
    console.print(f"\n{title}", highlight=False, markup=False, style="bold")
    console.print(text.rstrip(), highlight=False, markup=False, soft_wrap=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--recipients", type=int, default=20_000, help="rows of the table (default: 20000)")
    parser.add_argument("--down", action="store_true", help="remove what it installed, and do no more")
    arguments = parser.parse_args()
    try:
        use_cluster()
        if arguments.down:
            clean()
            return 0
        return demo(arguments.recipients)
    except (DemoError, OSError, psycopg2.Error) as error:
        console.print(f"\n{error}\n", highlight=False, markup=False, style="red")
        console.print(explain(kubectl, NAME), highlight=False, markup=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
