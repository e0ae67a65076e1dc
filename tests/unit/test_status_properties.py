"""Whatever is observed: a status is small, names no address, fits its definition, and estimates what it knows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jsonschema
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from custom_resources import CRDS
from mailfleet_operator import events, plan, status
from mailfleet_operator.conditions import Type, false, parse_time, true
from mailfleet_operator.observation import (
    LedgerView,
    Observation,
    PodView,
    Refusal,
    Skipped,
    Status,
    WaveView,
)
from mailfleet_operator.pace import Pace, Sample
from mailfleet_operator.words import clipped
from mailfleet_sender.contract.accounts import (
    EndReason,
    Failure,
    Report,
    ReportReason,
    RunState,
    Totals,
    WaveKind,
)
from observations import NOW, ago, campaign, ledger, observation, plan_job, pod, relay, run, send_job, started

LARGEST = 2**63 - 1
ADDRESSES = (
    "erika.mustermann@example.org",
    "<o'neil+tag@mail.example.co.uk>",
    '"john doe"@example.com',
    "postmaster@[192.0.2.7]",
    "jörg@exämple.de",
    "root@localhost",
)
SECRET = re.compile(r"mustermann|o'neil|john doe|postmaster|jörg|root@|192\.0\.2\.7")
NUMBERS = st.integers(0, LARGEST // 16) | st.sampled_from([0, 1, LARGEST // 16])
RARELY = st.sampled_from([*[False] * 5, True])
PIECES = (
    *ADDRESSES,
    '"' * 300,
    "<&>" * 99,
    "\\" * 300,
    "ä" * 300,
    "\0\n\x9f",
    "refused by the relay, as often",
    "451 4.7.1",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=4).map(" ".join)
TIMES = st.integers(-(10**6), 10**6).map(lambda s: NOW + timedelta(seconds=s))


def schema() -> dict[str, Any]:
    """That of the status, with no other field allowed anywhere: what the API server would prune."""
    versions = yaml.safe_load((CRDS / "emailcampaigns.mailfleet.dev.yaml").read_text())["spec"]["versions"]
    found: dict[str, Any] = versions[0]["schema"]["openAPIV3Schema"]["properties"]["status"]

    def close(node: dict[str, Any]) -> None:
        if "properties" in node:
            node["additionalProperties"] = False
        for child in node.get("properties", {}).values():
            close(child)
        if "items" in node:
            close(node["items"])

    close(found)
    return found


SCHEMA = schema()


@st.composite
def totals(draw: st.DrawFn) -> Totals:
    """Terms that add up."""
    names = ("sent", "failed", "suppressed", "skipped", "uncertain", "cancelled", "deferred", "remaining")
    terms = {name: draw(NUMBERS) for name in names}
    return Totals(planned=sum(terms.values()), **terms)


@st.composite
def ledgers(draw: st.DrawFn) -> LedgerView:
    """Any state of a run, with any report of anybody."""
    state = draw(st.sampled_from([*[RunState.OPEN] * 6, *RunState]))
    row = run(
        state,
        started_at=draw(st.none() | TIMES),
        ended_at=draw(st.none() | TIMES),
        end_reason=draw(st.none() | st.sampled_from([str(r) for r in EndReason])),
        snapshot_current=draw(st.booleans()),
    )
    if draw(st.integers(0, 9)) == 0:
        row = replace(row, definition_hash="other")
    waves = st.builds(
        WaveView,
        number=st.integers(1, 2**31 - 1),
        kind=st.sampled_from(WaveKind),
        ranges=st.integers(1, 10_000),
        finished=st.integers(0, 10_000),
        open=st.integers(0, 10_000),
        active=st.integers(0, 10_000),
    )
    reports = st.builds(
        Report,
        run=st.just(5),
        reporter=st.sampled_from([f"{send_job().name}-0-abcde", f"{plan_job().name}-0-abcde", "unheard"]),
        reason=st.sampled_from(ReportReason),
        message=TEXTS,
        at=TIMES,
    )
    failures = st.builds(Failure, code=TEXTS, count=NUMBERS, sample=TEXTS)
    return replace(
        ledger(),
        run=draw(st.sampled_from([*[row] * 9, None])),
        totals=draw(totals()),
        waves=tuple(draw(st.lists(waves, max_size=3, unique_by=lambda w: w.number))),
        due=draw(NUMBERS),
        next_due=draw(st.none() | TIMES),
        orphans=draw(st.booleans()),
        late=draw(NUMBERS),
        reports=tuple(draw(st.lists(reports, max_size=3))),
        skipped=tuple(draw(st.lists(st.builds(Skipped, st.text("abc", max_size=9), NUMBERS), max_size=6))),
        file_read_at=draw(st.none() | TIMES),
        failures=draw(st.none() | st.lists(failures, max_size=5).map(tuple)),
    )


FULLEST = replace(
    ledger(),
    run=run(ended_at=NOW),
    totals=Totals(**dict.fromkeys(Totals.__dataclass_fields__, LARGEST)),
    waves=tuple(WaveView(2**31 - 1, WaveKind.REPAIR, 2**31, 2**61, 2**61, 2**61) for _ in range(2)),
    next_due=NOW,
    failures=tuple(Failure("9.999.999", LARGEST, "<" * 300) for _ in range(5)),
)


def pods(job_pod: PodView) -> st.SearchStrategy[PodView]:
    """A pod in any trouble."""
    reasons = ["CreateContainerConfigError", "ErrImagePull", "RunContainerError", "ContainerCreating"]
    return st.builds(
        replace,
        st.just(job_pod),
        phase=st.sampled_from(["Pending", "Running", "Failed", "Succeeded"]),
        waiting_reason=st.none() | st.sampled_from(reasons),
        waiting_message=TEXTS,
        unschedulable=st.none() | TEXTS,
        exit_code=st.none() | st.sampled_from([0, 1, 75, 78, 137]),
        exit_reason=st.none() | st.sampled_from(["Error", "OOMKilled"]),
        last_words=TEXTS,
        finished_at=st.none() | TIMES,
    )


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Any."""
    spec: dict[str, Any] = {"suspend": draw(RARELY), "cancel": draw(RARELY), "runId": draw(st.sampled_from("1119"))}
    if draw(st.booleans()):
        spec["schedule"] = {
            "windows": [{"days": ["Mon"], "from": "08:00", "to": "20:00"}],
            "startTime": "2026-12-01T09:00:00Z",
            "endTime": draw(st.sampled_from(["2026-12-01T07:59:00Z", "2026-12-30T00:00:00Z"])),
        }
    before = {**started(sent=draw(st.sampled_from([0, 0, 0, LARGEST]))), "failures": [{"code": "5.1.1", "count": 1}]}
    before["estimatedCompletionTime"] = "2026-11-30T08:00:00Z"
    view = replace(campaign(draw(st.sampled_from([before, {}])), **spec), generation=LARGEST)
    view = draw(st.sampled_from([*[view] * 9, replace(view, spec=None, definition=None, invalid=draw(TEXTS))]))
    send, planner = send_job(), plan_job(failed_reason=draw(st.none() | st.just("DeadlineExceeded")), ended_at=ago(60))
    refusals = st.builds(
        Refusal, namespace=st.just("marketing"), job=st.sampled_from([send.name, planner.name]), message=TEXTS, at=TIMES
    )
    done = draw(st.integers(0, 10**9))
    return observation(
        campaign=view,
        ledger=draw(ledgers()) if draw(st.integers(0, 9)) else None,
        ledger_trouble=draw(TEXTS),
        relay=draw(
            st.sampled_from([None, relay("1/d"), relay("100000/s"), replace(relay(), relay=None, invalid="bad")])
        ),
        jobs=tuple(draw(st.lists(st.sampled_from([send, planner]), unique=True))),
        pods=tuple(draw(st.lists(pods(pod(send, 0)) | pods(pod(planner, 0)), max_size=3))),
        refusals=tuple(draw(st.lists(refusals, max_size=2))),
        limiter_trouble=draw(st.none() | TEXTS),
        pace=draw(st.sampled_from([Pace(), Pace((Sample(ago(20), 0), Sample(NOW, done)), 0, 0, ago(done % 1_000))])),
        quota_room_at=draw(st.none() | TIMES),
        quota_short_at=draw(st.none() | TIMES),
        quota_left=draw(st.none() | NUMBERS),
        image=draw(st.sampled_from(["sender:1", "registry.example.com/mailfleet/sender@sha256:" + "0" * 64])),
    )


@st.composite
def moving(draw: st.DrawFn) -> Observation:
    """A run that is being sent, at any rate and with anything left."""
    left, late = draw(totals()), draw(st.sampled_from([0, 0, 1]))
    if not draw(st.integers(0, 3)):
        left = replace(left, planned=left.planned - left.remaining, remaining=0)
    found = replace(ledger(), totals=left, next_due=draw(st.none() | TIMES), due=late)
    pace = Pace((Sample(ago(20), 0), Sample(NOW, draw(st.integers(0, 10**6)))), 0, 0, NOW)
    windows = {"windows": [{"days": ["Mon"], "from": "08:00", "to": "20:00"}]}
    view = campaign(started(sent=0), **draw(st.sampled_from([{}, {"schedule": windows}])))
    return observation(campaign=view, ledger=found, pace=pace)


def of(o: Observation) -> dict[str, Any]:
    return status.of_campaign(o, plan.plan(o))


@given(observations() | moving())
def test_a_status_and_its_events_keep_their_promises(o: Observation) -> None:
    said = of(o)
    text = json.dumps(said, ensure_ascii=False)
    assert status.size(said) < 4_096
    assert not SECRET.search(text), text
    assert not re.search(r"[^\s\"]@(?!sha256:)", text), text
    jsonschema.validate(said, SCHEMA)
    speaks_of_this_generation(said, o.campaign.generation)
    estimates_what_it_knows(said, o)
    told = events.of_change(o.campaign.status.conditions, Status(said).conditions)
    assert len({e.reason for e in told}) == len(told), "one Event a reason"
    assert not any(SECRET.search(e.message) for e in told)


def speaks_of_this_generation(said: dict[str, Any], generation: int) -> None:
    assert [c["type"] for c in said["conditions"]] == [str(t) for t in Type]
    assert all(c["reason"] and c["lastTransitionTime"] for c in said["conditions"])
    assert {c["observedGeneration"] for c in said["conditions"]} == {said["observedGeneration"]} == {generation}


def estimates_what_it_knows(said: dict[str, Any], o: Observation) -> None:
    """An estimate lies ahead, and is of a run that goes on."""
    if (at := parse_time(said.get("estimatedCompletionTime"))) is None:
        return
    assert o.now <= at < o.now + timedelta(days=4_000)
    assert o.ledger
    assert o.ledger.run
    assert o.ledger.run.state is RunState.OPEN
    assert not o.suspended
    assert o.pace.per_second > 0 or not o.ledger.totals.remaining


@given(st.fixed_dictionaries({t: st.tuples(st.booleans(), TEXTS) for t in Type}), ledgers())
@example(dict.fromkeys(Type, (True, "ä" * 300)), FULLEST)
@example(dict.fromkeys(Type, (True, "<>" * 300)), FULLEST)
@example(dict.fromkeys(Type, (False, '"' * 300)), FULLEST)
def test_a_status_is_small_whatever_is_said(said: dict[Type, tuple[bool, str]], view: LedgerView) -> None:
    make = {True: true, False: false}
    conditions = tuple(make[holds](t, "ReasonOfAsManyLettersAsThere", text) for t, (holds, text) in said.items())
    o = observation(campaign=replace(campaign(started(sent=0), runId="1"), generation=LARGEST), ledger=view)
    found = status.of_campaign(o, plan.Plan((), conditions))
    assert status.size(found) < 4_096
    jsonschema.validate(found, SCHEMA)


@given(observations())
def test_what_does_not_change_is_not_written_again(o: Observation) -> None:
    first = of(o)
    again = of(replace(o, campaign=replace(o.campaign, status=Status(first))))
    lasting = {k: v for k, v in first.items() if k not in {"conditions", "phase"}}
    assert {k: v for k, v in again.items() if k not in {"conditions", "phase"}} == lasting
    third = of(replace(o, campaign=replace(o.campaign, status=Status(again))))
    assert third == again


@given(st.text(), st.integers(0, 300))
def test_words_of_others_are_cut_to_a_size_on_one_line(text: str, size: int) -> None:
    cut = clipped(text, size)
    assert len(cut.encode()) <= size
    assert len(cut.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", cut)


@given(st.text(alphabet='abc .@<>:"', max_size=60), st.sampled_from(ADDRESSES), st.text(alphabet=" ab.<", max_size=20))
def test_an_address_among_words_is_not_seen(before: str, address: str, after: str) -> None:
    assert not SECRET.search(clipped(f"{before} {address} {after}", 500))


def test_a_digest_is_no_address() -> None:
    image = "registry.example.com/mailfleet/sender@sha256:" + "0" * 64
    view = pod(send_job(), phase="Pending", waiting_reason="ErrImagePull", waiting_message="")
    said = of(observation(pods=(view,), image=image, pace=Pace()))
    (stalled,) = [c for c in said["conditions"] if c["type"] == "Stalled"]
    assert f"@sha256:{'0' * 64}" in stalled["message"]
