"""`make scaling-page`: docs/scaling.md, from simulations of the control law; see decision 0096.

The law is the operator's own, the fleet is tests/simulated_fleet.py. No figure stands in the template.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from page import plain, round_up, table

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from mailfleet_operator import scaling  # noqa: E402
from mailfleet_operator.scaling import Bounds  # noqa: E402
from simulated_fleet import TICK, Moment, Scene, simulate, steps, turns  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE, TEMPLATE = ROOT / "docs" / "scaling.md", Path(__file__).parent / "scaling.md"
HOUR = 3600
POINTS = 60


@dataclass(frozen=True, slots=True)
class Story:
    """One simulation, in words."""

    title: str
    words: str
    scene: Scene


STORIES = (
    Story(
        "1/s",
        "One sender is plenty.",
        Scene(lambda _: 1.0, lambda _: 400.0),
    ),
    Story(
        "10,000/s",
        "A sender does 700/s here; 20 are asked for first, since nothing was measured.",
        Scene(lambda _: 10_000.0, lambda _: 700.0, bounds=Bounds(1, 40)),
    ),
    Story(
        "Raised from 200/s to 2,000/s, and back",
        "A sender does 300/s. The fleet grows within minutes, for permits are left unused; it shrinks without hurry.",
        Scene(steps(200, 2_000, 200, every=HOUR / 3), lambda _: 300.0),
    ),
    Story(
        "A relay that throttles",
        "From minute 20 to 40 the limiter gives half of the limit, as it does after replies of the relay that ask"
        " for it. More senders are tried once, gain nothing, and that is all.",
        Scene(lambda _: 1_000.0, lambda _: 300.0, steps(1.0, 0.5, 1.0, every=HOUR / 3)),
    ),
    Story(
        "A relay that becomes slow",
        "A sender does 300/s, from minute 20 on 80/s, from minute 40 on 300/s again.",
        Scene(lambda _: 1_000.0, steps(300.0, 80.0, 300.0, every=HOUR / 3)),
    ),
    Story(
        "Another campaign on the same relay",
        "From minute 20 to 40 another campaign takes 700/s of the 1,000/s: what is left needs fewer senders, but none"
        " is taken away before the others are known to suffice.",
        Scene(lambda _: 1_000.0, lambda _: 200.0, others=steps(0.0, 700.0, 0.0, every=HOUR / 3)),
    ),
    Story(
        "Figures that shake",
        "What is measured lies up to 20 % below the truth, at random.",
        Scene(lambda _: 1_000.0, lambda _: 300.0, noise=0.2, seed=4),
    ),
)


def lines(title: str, axis: str, *series: Sequence[float]) -> str:
    """Lines over the minutes, as a block of mermaid that GitHub draws."""
    top = round_up(max(max(values) for values in series))
    drawn = "\n".join(f"  line [{', '.join(plain(v) for v in values)}]" for values in series)
    return (
        f'```mermaid\nxychart-beta\n  title "{title}"\n  x-axis "minutes" 0 --> {HOUR // 60}\n'
        f'  y-axis "{axis}" 0 --> {plain(top)}\n{drawn}\n```'
    )


def thinned(moments: Sequence[Moment], field: str) -> list[float]:
    """A value a minute: the mean, or of senders the last."""
    size = len(moments) // POINTS
    parts = [[float(getattr(m, field)) for m in moments[i : i + size]] for i in range(0, size * POINTS, size)]
    return [part[-1] if field == "asked" else sum(part) / len(part) for part in parts]


def told(story: Story, moments: Sequence[Moment]) -> str:
    """One section."""
    rates = lines("limit, and what is sent", "a second", thinned(moments, "limit"), thinned(moments, "rate"))
    senders = lines("senders asked for", "senders", thinned(moments, "asked"))
    return f"## {story.title}\n{story.words}\n\n{rates}\n\n{senders}"


def summary(found: Sequence[tuple[Story, list[Moment]]]) -> str:
    """What came of all of them."""
    rows = []
    for story, moments in found:
        last = moments[-300 // TICK :]
        share = sum(m.rate for m in last) / sum(m.limit for m in last)
        sizes = [m.asked for m in moments]
        turned = turns(moments)
        shortest = min((gap for _, gap in turned), default=None)
        rows.append(
            (story.title, f"{min(sizes)} to {max(sizes)}", sizes[-1], f"{share:.0%}", len(turned),
             f"{shortest} s" if shortest else "-")
        )  # fmt: skip
    head = (
        "simulation",
        "senders",
        "at the end",
        "of the limit, last 5 min",
        "changes of direction",
        "shortest time between two",
    )
    return table(head, rows)


def page() -> str:
    """The page as text."""
    found = [(story, simulate(story.scene, HOUR)) for story in STORIES]
    values = {
        "summary": summary(found),
        "stories": "\n\n".join(told(story, moments) for story, moments in found),
        "starved": f"{scaling.STARVED:.0%}",
        "saturated": f"{scaling.SATURATED:.0%}",
        "grow": f"{scaling.GROW_AFTER.total_seconds():.0f}",
        "shrink": f"{scaling.SHRINK_AFTER.total_seconds():.0f}",
        "turn": f"{scaling.TURN_AFTER.total_seconds():.0f}",
        "floor": f"{scaling.FLOOR_HOLDS.total_seconds() / 60:.0f}",
        "assumed": f"{scaling.ASSUMED_PER_SECOND:.0f}",
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def main() -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
