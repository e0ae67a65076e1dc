"""`make performance`: docs/performance.md, from what the benchmarks left in build/; see decision 0101.

usage: page.py [FOLDER]
FOLDER holds the JSON files, build/ if left out. No figure stands in the template: all come from these files.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from measuring import BUILD
from results import goals, last_line, median, peers, prices, rate_line, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from results import Results

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
TEMPLATE = Path(__file__).parent / "page.md"
SOURCES = {
    "bench": "make bench",
    "bench-ledger": "make bench-ledger",
    "bench-render": "make bench-render",
    "bench-limiter": "make bench-limiter",
    "bench-plan": "make bench-plan",
    "bench-memory": "make memory",
}
"""Files in build/, and what makes them."""
BUSY = 0.1
"""Use of all cores by others, before the measurement, above which the page says that the machine was not its own."""
Document = dict[str, Any]


# --- how it is written ---------------------------------------------------------------------------------
def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def chart(title: str, axis: str, bars: Sequence[tuple[str, float]]) -> str:
    """A bar for each, as a block of mermaid that GitHub draws."""
    top = round_up(max(value for _, value in bars))
    names = ", ".join(f'"{name}"' for name, _ in bars)
    values = ", ".join(plain(value) for _, value in bars)
    return (
        f'```mermaid\nxychart-beta horizontal\n  title "{title}"\n  x-axis [{names}]\n'
        f'  y-axis "{axis}" 0 --> {plain(top)}\n  bar [{values}]\n```'
    )


def plain(value: float) -> str:
    """A number as mermaid reads it: without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def round_up(value: float) -> float:
    """The end of an axis: the next number of one or one and a half digits that is not below."""
    unit = 1.0
    while unit * 10 <= value:
        unit *= 10
    while unit > value:
        unit /= 10
    return next(unit * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if unit * step >= value)


def signed(value: float) -> str:
    """A difference in microseconds."""
    return f"{value:+.0f}"


# --- one section each: from a document, text -------------------------------------------------------------
def speeds(results: Results, delay: int) -> str:
    """All senders behind one delay, with a chart."""
    measured = {name: median(runs) for name, runs in results[delay].items()}
    rows = []
    for name, m in measured.items():
        each = [run.per_second for run in results[delay][name]]
        ratios = [f"{m.per_second / measured[peer].per_second:.1f}" for peer in ("bullmq", "go")]
        rows.append(
            (f"`{name}`", f"{m.per_second:,.0f}", f"{min(each):,.0f} to {max(each):,.0f}", *ratios, f"{m.cpu_us:.0f}",
             f"{m.rss_mb:.0f}", f"{m.postgres_us:.1f}", f"{m.redis_us:.1f}", f"{m.sink_us:.1f}",
             "right" if m.right else "**WRONG**")
        )  # fmt: skip
    head = ("sender", "messages/s", "rounds", "x BullMQ", "x Go", "CPU us", "peak RSS, MB", "Postgres us", "Redis us",
            "sink us", "count and hash")  # fmt: skip
    bars = [(name, m.per_second) for name, m in measured.items() if name != "floor" and "+" not in name]
    return f"{table(head, rows)}\n\n{chart(f'Messages a second, {delay} ms away', 'messages a second', bars)}"


def features(results: Results) -> str:
    """The price of each feature, with a chart."""
    found = prices(results)
    plain = median(results[0]["pipelined"]).cpu_us
    rows = [(f"`{p.name}`", f"{p.share - 1:+.0%}", signed(p.cpu_us), f"{p.lapsed:.2f}") for p in found]
    bars = [("pipelined", plain), *((p.name.removeprefix("pipelined"), plain + p.cpu_us) for p in found)]
    return (
        f"{table(('sender', 'messages/s', 'CPU us a message', 'permits lapsed a message'), rows)}\n\n"
        f"{chart('CPU of the sender, us a message', 'us a message', bars)}"
    )


def ledger(document: Document) -> str:
    """Ways to keep a ledger, with a chart."""
    rows, bars = [], []
    for name, way in document["ways"].items():
        rate, client, postgres = (
            statistics.median(run[column] for run in way["runs"])
            for column in ("per_second", "client_us", "postgres_us")
        )
        rows.append((name, way["batch"], f"{rate:,.0f}", f"{client:.1f}", f"{postgres:.1f}"))
        bars.append((name, client + postgres))
    head = ("way", "rows a transaction", "rows/s", "sender's CPU us a row", "Postgres' CPU us a row")
    return f"{table(head, rows)}\n\n{chart('CPU of both sides, us a row', 'us a row', bars)}"


def rendering(document: Document) -> str:
    """Microseconds to make a mail."""
    made = document["microseconds"]
    rows = [(name, f"{us:,.1f}", f"{1e6 / us:,.0f}") for name, us in made.items()]
    return table(("made by", "us a mail", "mails/s of one core"), rows)


def limiter(document: Document) -> str:
    """What was promised and seen."""
    rows = [(one["of"], one["seen"], "yes" if one["holds"] else "**no**") for one in document["promises"]]
    return table(("what is done", "what was seen", "holds"), rows)


def plans(document: Document) -> str:
    """Audiences planned."""
    rows = [
        (
            f"{p['recipients']:,}" + " of a CSV file" * (p.get("source") == "csv"),
            f"{p['seconds']:.1f}",
            f"{p['rss_mb']:.0f}",
            "right" if p["right"] else "**WRONG**",
        )
        for p in document["plans"]
    ]
    return table(("recipients", "seconds", "planner's peak RSS, MB", "counts and keys"), rows)


def memory(document: Document) -> str:
    """One sender, few and many recipients."""
    rows = [(f"{p['recipients']:,}", f"{p['rss_mb']:.1f}") for p in document["peaks"]]
    return table(("recipients of one sender", "peak RSS, MB"), rows)


def machines(documents: Mapping[str, Document]) -> str:
    """Where each was measured, when, and what else the machine did before."""
    head = ("measured by", "at (UTC)", "processor", "memory, GB", "system", "Python", "Postgres", "used by others")
    rows = []
    for name, command in SOURCES.items():
        m = documents[name]["machine"]
        rows.append(
            (f"`{command}`", m["moment"], f"{m['processors']} x {m['processor']}", m["memory_gb"], m["system"],
             m["python"], m["postgres"], f"{m['others']:.0%}")
        )  # fmt: skip
    busy = [f"`{SOURCES[name]}`" for name in SOURCES if documents[name]["machine"]["others"] > BUSY]
    note = (
        f"\n\n**Something else ran on the machine before {', '.join(busy)}: measure again before you rely on it.**"
        if busy
        else ""
    )
    return table(head, rows) + note


def page(documents: Mapping[str, Document]) -> str:
    """The page as text."""
    bench = documents["bench"]
    results, options = read(bench), bench["options"]
    judged = [(g.says, f"{g.value:.2f}", g.wanted, "yes" if g.holds else "**no**") for g in goals(results)]
    compared = [
        (p.name, bench["peers"][p.name], f"{p.per_second:,.0f}", f"{p.known[0]:,}", f"{p.share:.0%}",
         "**void**" if p.void else "yes")
        for p in peers(results)
    ]  # fmt: skip
    sweeps = [
        f"- {name}: " + ", ".join(f"{workers} workers {rate:,.0f}/s" for workers, rate in rates.items())
        for name, rates in bench["sweep"].items()
    ]
    values = {
        "last_line": last_line(results),
        "rate_line": rate_line(results),
        "machines": machines(documents),
        "recipients": f"{options['recipients']:,}",
        "rounds": options["rounds"],
        "connections": options["connections"],
        "goals": table(("what", "measured", "wanted", "holds"), judged),
        "peers": table(("peer", "made of", "messages/s", "first judged at", "ratio", "usable"), compared),
        "sweeps": "\n".join(sweeps),
        "near": speeds(results, 0),
        "far": "\n\n".join(f"### {delay} ms away\n{speeds(results, delay)}" for delay in results if delay),
        "features": features(results),
        "ledger": ledger(documents["bench-ledger"]),
        "rendering": rendering(documents["bench-render"]),
        "limiter": limiter(documents["bench-limiter"]),
        "plans": plans(documents["bench-plan"]),
        "memory": memory(documents["bench-memory"]),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def wrong(documents: Mapping[str, Document]) -> list[str]:
    """Senders that did not send what they had to send: of such a run no page is made."""
    results = read(documents["bench"])
    return [f"{name} at {d} ms" for d, senders in results.items() for name, m in senders.items() if not median(m).right]


def main() -> int:
    """Write the page; exit status 1 if there is nothing to write it from."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else BUILD
    if missing := [name for name in SOURCES if not (folder / f"{name}.json").exists()]:
        print(f"run {', '.join(f'`{SOURCES[name]}`' for name in missing)} first: {folder} lacks what they write")
        return 1
    documents = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in SOURCES}
    if bad := wrong(documents):
        print(f"run `make bench` again: count or hash is wrong of {', '.join(bad)}")
        return 1
    PAGE.write_text(page(documents), encoding="utf-8")
    print(f"{PAGE}: {last_line(read(documents['bench']))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
