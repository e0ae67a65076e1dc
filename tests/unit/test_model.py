"""The operator in a small world of its own, in virtual time: whatever happens to it, the promises hold, and it ends.

The world is tests/world/: the real observe, plan, apply and status between a modelled API server, ledger and limiter.
`make nightly` tries many more examples.
"""

from __future__ import annotations

import inspect
import logging
import os
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mailfleet_operator import actions, plan
from mailfleet_operator.conditions import time_text
from mailfleet_operator.errors import ClusterError
from mailfleet_operator.plan import Step, canary
from mailfleet_sender.ledger import Runs
from mailfleet_sender.limiter import LimiterAdmin
from world.clock import BEGIN
from world.ledger import ModelLedger
from world.limiter import ModelLimiter
from world.world import BRAKE, CANARY, NAME, SPEC, World, ledger_unavailable, virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mailfleet_operator.observation import Observation
    from mailfleet_operator.plan import Policy

STEPS = 7
EXAMPLES = int(os.environ.get("MAILFLEET_MODEL_EXAMPLES", "1000"))


def at(seconds: float) -> str | None:
    return time_text(BEGIN + timedelta(seconds=seconds))


EDITS: dict[str, dict[str, Any]] = {
    "cancel": {"cancel": True},
    "weight": {"weight": 7},
    "fewer senders": {"senders": {"maxReplicas": 1}},
    "more senders": {"senders": {"minReplicas": 2, "maxReplicas": 5}},
    "windows": {"schedule": {"windows": [{"from": "09:00", "to": "10:00"}]}},
    "starts later": {"schedule": {"startTime": at(300)}},
    "must start soon": {"schedule": {"startTime": at(20), "startingDeadlineSeconds": 60}},
    "ends soon": {"schedule": {"endTime": at(90)}},
    "no schedule": {"schedule": None},
    "retry failed": {"retryFailed": {"generation": 1, "codes": ["550"]}},
    "retry failed again": {"retryFailed": {"generation": 2, "codes": ["550"]}},
    "another message": {"message": {"from": "a@example.com", "subject": "other", "text": "t"}},
    "the first message": {"message": SPEC["message"]},
    "another database": {"recipients": {"table": {"databaseSecretRef": {"name": "b", "key": "url"}, "name": "people"}}},
    "a canary": {"canary": CANARY},
    "a canary by hand": {"canary": {**CANARY, "approval": "Manual"}},
    "no canary": {"canary": None},
    "step 1 is approved": {"canary": {"approvedStep": 1}},
    "step 2 is approved": {"canary": {"approvedStep": 2}},
    "a brake": {"brake": BRAKE},
    "no brake": {"brake": None},
    "pauses of the first minute end": {"resumeTime": at(60)},
    "pauses of the first hour end": {"resumeTime": at(3600)},
    "run 2": {"runId": "2", "canary": {"approvedStep": None}},
    "run 3": {"runId": "3", "canary": {"approvedStep": None}, "cancel": False},
}
MOODS = [["sent"], ["sent", "deferred"], ["failed", "sent", "sent"], ["deferred"], ["sent", "failed", "deferred"],
         ["failed"], ["sent", "sent", "refused"], ["refused"]]  # fmt: skip
PARTS: list[dict[str, Any]] = [{}, {"canary": CANARY}, {"canary": CANARY, "brake": BRAKE}, {"brake": BRAKE}]
AGAIN = [*PARTS, {"canary": {**CANARY, "approvedStep": 1}}]
WRITES = ("close", "complete", "start", "repair_wave", "retry_wave", "retry_failed", "ensure", "edit", "supersede")
numbers = st.integers(0, 7)


def happens(**arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule, and some ticks after it: without them most of what happens would happen at one moment."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def both(self: Life, then: int, **drawn: Any) -> None:
            function(self, **drawn)
            for _ in range(then):
                self.world.tick()

        both.__name__ = function.__name__
        return cast("Callable[..., None]", rule(then=st.integers(0, 4), **arguments)(both))

    return decorate


class Life(RuleBasedStateMachine):
    """A campaign and all that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(ticks=st.integers(0, 14), moods=st.sampled_from(MOODS), parts=st.sampled_from(PARTS))
    def so_far(self, ticks: int, moods: list[str], parts: dict[str, Any]) -> None:
        """How far it had come when the first thing happened."""
        self.world.fleet.moods = moods
        self.world.edit(**parts)
        for _ in range(ticks):
            self.world.tick()

    # --- time passes ------------------------------------------------------------------------------------
    @happens(seconds=st.sampled_from([16, 65, 400, 3600]))
    def a_long_time_passes(self, seconds: int) -> None:
        self.world.tick(seconds)

    # --- a person ---------------------------------------------------------------------------------------
    @happens(change=st.sampled_from(sorted(EDITS)))
    def edit(self, change: str) -> None:
        self.world.edit(**EDITS[change])

    @happens(suspended=st.booleans())
    def pause(self, suspended: bool) -> None:
        self.world.edit(suspend=suspended)

    @happens()
    def do_what_the_status_asks_for(self) -> None:
        self.world.do_as_told()

    @happens()
    def delete_the_campaign(self) -> None:
        self.world.api.remove("emailcampaigns", NAME)

    @precondition(lambda self: self.world.campaign is None)
    @happens(run_id=st.sampled_from(["1", "2"]), parts=st.sampled_from(AGAIN))
    def apply_it_again(self, run_id: str, parts: dict[str, Any]) -> None:
        self.world.apply({**SPEC, "runId": run_id, **parts})

    @happens(which=numbers, how=st.sampled_from(["background", "foreground", "orphan"]))
    def delete_a_job(self, which: int, how: str) -> None:
        api, jobs = self.world.api, sorted(self.world.api.objects["jobs"])
        if not jobs:
            return
        name = jobs[which % len(jobs)]
        if how == "foreground":
            api.mark_deleted("jobs", name)
            return
        uid = api.objects["jobs"][name]["metadata"]["uid"]
        for pod in self.world.fleet.pods.values():
            body = api.get("pods", pod.name)
            if how == "orphan" and pod.job_uid == uid and body:
                api.put("pods", {**body, "metadata": {**body["metadata"], "orphan": True}})
        api.remove("jobs", name)

    @happens()
    def a_second_operator_by_mistake(self) -> None:
        if len(self.world.operators) < 2:
            self.world.operators.append(None)

    # --- faults -----------------------------------------------------------------------------------------
    @happens(half_calls=st.integers(1, 24))
    def the_operator_will_die(self, half_calls: int) -> None:
        self.the_operator_dies(half_calls)

    def the_operator_dies(self, half_calls: int) -> None:
        for operator in self.world.operators[:1]:
            if operator:
                operator.wire.fuse = half_calls

    @happens()
    def an_answer_of_the_ledger_is_lost(self) -> None:
        self.lose(WRITES, ledger_unavailable)

    def lose(self, names: tuple[str, ...], error: Any) -> None:
        for operator in self.world.operators[:1]:
            if operator:
                operator.wire.lose_answers_of(names, error)

    @happens(status=st.sampled_from([0, 409, 429, 500, 503]), count=st.integers(1, 4))
    def the_api_server_refuses(self, status: int, count: int) -> None:
        for operator in self.world.operators:
            if operator:
                operator.refusals[:] = [status] * count

    @happens(method=st.sampled_from(["POST", "PATCH", "DELETE"]))
    def an_answer_of_the_api_server_is_lost(self, method: str) -> None:
        self.lose((method,), lambda: ClusterError(0, "the model lost the answer"))

    @happens(kind=st.sampled_from(["emailcampaigns", "jobs", "pods"]), held=st.booleans())
    def a_watch_lags(self, kind: str, held: bool) -> None:
        for operator in self.world.operators:
            if operator:
                (operator.watches.held.add if held else operator.watches.held.discard)(kind)

    @happens(which=numbers)
    def a_pod_dies(self, which: int) -> None:
        if alive := [p for p in self.world.fleet.pods.values() if p.process]:
            pod = alive[which % len(alive)]
            self.world.fleet.end(pod, 137)

    @happens(which=numbers)
    def a_pod_is_evicted(self, which: int) -> None:
        if alive := [p for p in self.world.fleet.pods.values() if not p.ended]:
            self.world.fleet.delete_pod(alive[which % len(alive)])

    @happens(which=numbers)
    def a_sender_gives_up(self, which: int) -> None:
        alive = [p for p in self.world.fleet.pods.values() if p.process and p.component == "sender" and not p.claimed]
        if alive:
            pod = alive[which % len(alive)]
            if pod.range is None:
                self.world.fleet.end(pod, 78)

    @happens(lives=st.booleans())
    def a_node_is_lost(self, lives: bool) -> None:
        self.world.lose_node(lives=lives)

    @happens(away=st.booleans())
    def the_ledger(self, away: bool) -> None:
        self.world.fleet.ledger_away = away

    @happens(away=st.booleans(), emptied=st.booleans())
    def the_limiter(self, away: bool, emptied: bool) -> None:
        self.world.limiter.away = away
        if emptied:
            self.world.limiter.empty()

    @happens(seconds=st.sampled_from([60, 900]))
    def the_quota_is_used_up(self, seconds: int) -> None:
        self.world.limiter.exhausted_until = self.world.clock.now + timedelta(seconds=seconds)

    @happens(seconds=st.sampled_from([-7200, -30, 0, 30, 7200]))
    def the_operators_clock_jumps(self, seconds: int) -> None:
        self.world.clock.offset = seconds

    @happens(moods=st.sampled_from(MOODS))
    def the_relay(self, moods: list[str]) -> None:
        self.world.fleet.moods = moods

    @happens(count=st.integers(1, 2))
    def planners_fail(self, count: int) -> None:
        self.world.fleet.planners_fail = count

    # --- what must hold ---------------------------------------------------------------------------------
    def the_operator_comes_to_rest(self) -> None:
        self.world.make_reachable()
        self.world.converge()
        self.world.check_rest()

    @invariant()
    def promises(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """The faults end, so the operator comes to rest; and whatever holds the run is taken away, so it ends."""
        self.the_operator_comes_to_rest()
        self.world.end_faults()
        self.world.until_ended()
        self.world.converge(2)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Virtual time, and no log: it would cost more than the operator."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with virtual_time():
        yield
    structlog.reset_defaults()


def life(machine: type[Life] = Life, examples: int = EXAMPLES, **changes: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
            **changes,
        ),
    )


@pytest.mark.hypothesis
@pytest.mark.timeout(7200)
def test_whatever_happens_the_promises_hold_and_it_ends() -> None:
    life()


# --- the model can fail: each of these changes of a rule is caught ---------------------------------------------


def without(*names: str) -> tuple[Policy, ...]:
    """The policies without some of them."""
    left = tuple(p for p in plan.POLICIES if p.__module__.rpartition(".")[2] not in names)
    assert len(left) == len(plan.POLICIES) - len(names)
    return left


def altered(name: str, change: Callable[[Observation, Step | None], Step | None]) -> tuple[Policy, ...]:
    """The policies, with what one of them says changed."""

    def policy(o: Observation, old: Policy) -> Step | None:
        return change(o, old(o))

    return tuple(partial(policy, old=p) if p.__module__.rpartition(".")[2] == name else p for p in plan.POLICIES)


def no_repair(o: Observation, step: Step | None) -> Step | None:
    return step and replace(step, actions=tuple(a for a in step.actions if not isinstance(a, actions.MakeRepairWave)))


def starts_unrecorded(o: Observation, step: Step | None) -> Step | None:
    """The ledger starts without status.startTime: an edit may come in between."""
    if step and step.actions and isinstance(step.actions[0], actions.RecordStart) and o.ledger and o.ledger.run:
        return replace(step, actions=(actions.StartRun(o.ledger.run.id, o.ledger.run.definition_hash, 4),))
    return step


def tells_no_pause(o: Observation, step: Step | None) -> Step | None:
    tell = actions.TellLimiter
    return step and replace(
        step, actions=tuple(replace(a, paused=False) if isinstance(a, tell) else a for a in step.actions)
    )


def adopts_what_is_suspended(o: Observation, step: Step | None) -> Step | None:
    """Jobs are suspended and never resumed."""
    kept = [a for a in step.actions if not (isinstance(a, actions.SuspendJob) and not a.suspend)] if step else []
    return step and replace(step, actions=tuple(kept))


def forever_new(o: Observation, step: Step | None) -> Step | None:
    """A Job's size goes to and fro."""
    jobs = [j for j in o.own_jobs if j.component == "sender" and not j.over and not j.deleting]
    return Step(tuple(actions.ScaleJob(j.name, j.uid, 3 - j.parallelism % 2) for j in jobs))


class Again(Life):
    """A campaign that was deleted under way and is applied again with another runId."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        for _ in range(12):
            self.world.tick()
        self.world.api.remove("emailcampaigns", NAME)
        self.world.apply({**SPEC, "runId": "2"})


class Dying(Life):
    """The operator died when it had started the run."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        self.world.tick()
        while operator := self.world.operators[0]:
            operator.wire.dies_after = "start"
            self.world.tick()


class Paused(Life):
    """A pause of a run under way."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        for _ in range(8):
            self.world.tick()
        self.world.edit(suspend=True)
        for _ in range(3):
            self.world.tick()


class Failing(Life):
    """A canary of which all fail."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        self.world.fleet.moods = ["failed"]
        self.world.edit(canary=CANARY)
        for _ in range(12):
            self.world.tick()


class Renewed(Life):
    """A canary of which all fail, of a campaign that was applied anew with what was approved for the run before."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        self.world.fleet.moods = ["failed"]
        for _ in range(3):
            self.world.tick()
        self.world.api.remove("emailcampaigns", NAME)
        self.world.apply({**SPEC, "runId": "2", "canary": {**CANARY, "approvedStep": 1}})
        for _ in range(12):
            self.world.tick()


class Braked(Life):
    """The brake has closed, or is about to."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        self.world.fleet.moods = ["failed"]
        self.world.edit(brake=BRAKE)
        for _ in range(8):
            self.world.tick()


class Refused(Life):
    """The relay refuses the sender."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        self.world.fleet.moods = ["sent", "sent", "refused"]
        for _ in range(8):
            self.world.tick()


class Unheard(Life):
    """It was cancelled, and then a node was lost on which a sender lives on."""

    @initialize()
    def so_far(self) -> None:  # type: ignore[override]
        for _ in range(8):
            self.world.tick()
        self.world.edit(cancel=True)
        self.world.lose_node(lives=True)
        self.world.tick()


def waits_for_every_lease(o: Observation, step: Step | None) -> Step | None:
    return step and replace(
        step, actions=tuple(replace(a, fence=False) if isinstance(a, actions.CloseRun) else a for a in step.actions)
    )


def passes_everything(o: Observation, step: Step | None) -> Step | None:
    """A canary's bounds are not looked at."""
    now = canary.present(o)
    if step and now and now.ended_at and not step.actions and o.ledger and o.ledger.run and not o.held:
        return Step((actions.PassStep(o.ledger.run.id, now.number),))
    return step


def takes_any_approval(o: Observation, step: Step | None) -> Step | None:
    """What was approved before the run counts for it."""
    now, wanted = canary.present(o), o.campaign.spec.canary if o.campaign.spec else None
    if step and now and wanted and now.number <= (wanted.approved_step or 0):
        return passes_everything(o, step)
    return step


def never_resumes(o: Observation, step: Step | None) -> Step | None:
    return step and replace(step, actions=())


MUTATIONS: dict[str, Callable[[], tuple[Policy, ...]]] = {
    "no Repair wave": lambda: altered("waves", no_repair),
    "a start that is not recorded": lambda: altered("start", starts_unrecorded),
    "pods of lost nodes are waited for": lambda: without("lost_node"),
    "a pause suspends no Job": lambda: without("suspension"),
    "a pause is never taken back": lambda: altered("suspension", adopts_what_is_suspended),
    "the limiter hears of no pause": lambda: altered("limiter", tells_no_pause),
    "an older run goes on": lambda: without("superseded"),
    "what has ended is left alone": lambda: without("ended"),
    "the deferred are forgotten": lambda: without("retry"),
    "nobody completes a run": lambda: without("completion"),
    "sizes go to and fro": lambda: altered("senders", forever_new),
    "a canary passes out of its bounds": lambda: altered("canary", passes_everything),
    "an approval of before the run counts": lambda: altered("canary", takes_any_approval),
    "no step of a canary passes": lambda: without("canary"),
    "a brake that has closed is not written down": lambda: without("brake"),
    "a refusal of the sender is not heard": lambda: without("sender_fault"),
    "resumeTime ends no pause": lambda: altered("pause", never_resumes),
    "who lives on a lost node is waited for": lambda: altered("cancel", waits_for_every_lease),
}


MACHINES = {
    "an older run goes on": Again,
    "a start that is not recorded": Dying,
    "a pause suspends no Job": Paused,
    "a pause is never taken back": Paused,
    "the limiter hears of no pause": Paused,
    "a canary passes out of its bounds": Failing,
    "an approval of before the run counts": Renewed,
    "no step of a canary passes": Failing,
    "a brake that has closed is not written down": Braked,
    "a refusal of the sender is not heard": Refused,
    "resumeTime ends no pause": Braked,
    "who lives on a lost node is waited for": Unheard,
}
"""Where in a life a change shows soonest; the others show in any."""


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_it_can_fail(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "POLICIES", MUTATIONS[mutation]())
    machine = MACHINES.get(mutation, Life)
    with pytest.raises(AssertionError):
        life(machine, 300, phases=[Phase.generate], database=None, report_multiple_bugs=False, print_blob=False)


def test_what_the_model_does_not_know_it_says() -> None:
    world = World()
    world.tick()
    operator = world.operators[0]
    assert operator
    with pytest.raises(AssertionError, match="knows no halt_canary, which is not even one of Runs"):
        operator.runs.halt_canary(1)
    with pytest.raises(AssertionError, match="knows no repair"):
        world.limiter.repair()
    with pytest.raises(AssertionError, match="knows no PUT"):
        world.api.request("PUT", "/api/v1/namespaces/marketing/emailrelays/ses", {})


@pytest.mark.parametrize(("model", "real"), [(ModelLedger, Runs), (ModelLimiter, LimiterAdmin)])
def test_the_model_has_the_signatures_of_what_it_stands_for(model: type, real: type) -> None:
    """What is asked by the same names takes the same arguments."""
    shared = [n for n in vars(model) if not n.startswith("_") and callable(getattr(real, n, None))]
    assert len(shared) >= 5
    for name in shared:
        ours, theirs = (list(inspect.signature(getattr(c, name)).parameters) for c in (model, real))
        assert ours == theirs, name
