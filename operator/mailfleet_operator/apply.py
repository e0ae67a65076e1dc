"""Does what `plan` decided, in order. Every action may be repeated; the first that cannot be done now ends the
round, and the next tick plans anew from what is there then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from mailfleet_sender.contract.accounts import PauseReason
from mailfleet_sender.errors import LimiterUnavailable
from mailfleet_sender.limiter import AccountLimits, Brake

from . import actions, manifests
from .boundaries import Boundaries
from .conditions import Condition, Type, true
from .errors import ClusterError, ObjectConflictError, ObjectGoneError
from .relay_plan.conditions import unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mailfleet_sender.contract.campaign import Campaign
    from mailfleet_sender.limiter import AccountState, LimiterAdmin

    from .cluster import Cluster
    from .ledger import Ledger
    from .memory import CampaignMemory
    from .observation import CampaignView, Observation, RelayView
    from .relay_plan import RelayObservation, Said
    from .settings import Settings

log = structlog.get_logger()

TELL_AGAIN_SECONDS = 10.0
"""A Redis that was emptied learns of a pause again within this time."""
QUIET = (actions.TellLimiter, actions.ForgetInLimiter, actions.RememberScaling, actions.RecordStart)
"""Actions after which there is nothing new to look at."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of it.

    Attributes:
        conditions: of what could not be done; they count before those of the plan.
        again: something was changed that is worth another look at once.
    """

    conditions: tuple[Condition, ...] = ()
    again: bool = False


class Hands:
    """Ledger, limiter and cluster, for doing. Blocking: called from a worker thread, for one campaign at a time."""

    def __init__(self, ledger: Ledger, limiter: LimiterAdmin, cluster: Cluster, settings: Settings) -> None:
        self._ledger, self._limiter, self._cluster, self._settings = ledger, limiter, cluster, settings
        self.limiter_trouble: str | None = None
        self.boundaries = Boundaries(settings.die_at, settings.died_folder)

    def apply(self, o: Observation, planned: tuple[actions.Action, ...], memory: CampaignMemory) -> Applied:
        """Do them in order.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        again = False
        for action in planned:
            try:
                self.boundaries.before(_name(action))
                done = self._do(o, action, memory)
                self.boundaries.after(_name(action))
            except (ObjectGoneError, ObjectConflictError) as error:
                log.info("came too late", action=_name(action), why=str(error), **_who(o))
                return Applied(again=True)
            except ClusterError as error:
                log.warning("Kubernetes refused", action=_name(action), why=str(error), **_who(o))
                return Applied((refused(error),), again=again)
            if done and not isinstance(action, QUIET):
                log.info("done", action=_name(action), what=str(action), **_who(o))
                again = True
        return Applied(again=again)

    def delete_jobs(self, namespace: str, deletions: tuple[actions.DeleteJob, ...]) -> None:
        """Free a namespace of our Jobs."""
        for job in deletions:
            self._cluster.delete_job(namespace, job.name, job.uid)
            log.info("done", action="DeleteJob", namespace=namespace, job=job.name, why=job.why)

    def publish(self, relay: RelayView) -> str | None:
        """Bring a relay's settings to ledger and limiter.

        Returns:
            what was in the way, or None.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        if (settings := relay.relay) is None:
            return relay.invalid
        version = self._ledger.save_relay(settings)
        self._with_limiter(partial(self._limiter.write_limits, settings.account, version, AccountLimits.of(settings)))
        return self.limiter_trouble

    def try_relay(
        self, o: RelayObservation, planned: tuple[actions.CreatePreflightJob | actions.DeleteJob, ...]
    ) -> Said | None:
        """Do what a relay's plan says; what Kubernetes said if it refused."""
        relay = o.relay
        try:
            for action in planned:
                self.boundaries.before(_name(action))
                match action:
                    case actions.CreatePreflightJob(made_for, attempt, after):
                        manifest = manifests.preflight_job(
                            relay, self._settings.image, made_for=made_for, attempt=attempt, after=after
                        )
                        self._cluster.create_job(manifest)
                    case actions.DeleteJob(name, uid, _):
                        self._cluster.delete_job(relay.namespace, name, uid)
                self.boundaries.after(_name(action))
                log.info("done", action=_name(action), what=str(action), namespace=relay.namespace, relay=relay.name)
        except ClusterError as error:
            log.warning("Kubernetes refused", why=str(error), namespace=relay.namespace, relay=relay.name)
            reason = "PodsRejected" if error.status in {403, 422} else "ClusterUnavailable"
            return unknown(reason, f"Kubernetes refuses the preflight's Job: {error}")
        return None

    def survey(self, accounts: Iterable[str]) -> dict[str, AccountState]:
        """See whether the limiter answers, and what it knows of these accounts; nothing, if it does not."""
        found: dict[str, AccountState] = {}

        def ask() -> None:
            self._limiter.ping()
            found.update({account: self._limiter.state(account) for account in accounts})

        self._with_limiter(ask)
        return found

    def forget(self, account: str, campaign: str) -> None:
        """Take a campaign that is gone out of the limiter."""
        self._with_limiter(lambda: self._limiter.forget(account, campaign))

    def _with_limiter(self, call: Callable[[], object]) -> bool:
        """Redis may be away: then nothing is sent, nothing is wrong, and a condition says so."""
        try:
            call()
        except LimiterUnavailable as error:
            self.limiter_trouble = str(error)
            return False
        self.limiter_trouble = None
        return True

    def _do(self, o: Observation, action: actions.Action, memory: CampaignMemory) -> bool:
        """One action; whether it changed something."""
        match action:
            case actions.TellLimiter() | actions.ForgetInLimiter():
                return self._tell_limiter(o.campaign, action, memory)
            case actions.RememberScaling():
                memory.scaling = action.memory
                return True
            case actions.RecordStart():
                return False  # `reconcile` writes it with the status
            case (
                actions.CreatePlanJob()
                | actions.CreateWaveJob()
                | actions.DeleteJob()
                | actions.ScaleJob()
                | actions.SuspendJob()
                | actions.FailPod()
            ):
                return self._in_cluster(o, action)
            case (
                actions.EndStep()
                | actions.PassStep()
                | actions.PauseRun()
                | actions.ResumeRun()
                | actions.ReleaseBrake()
            ):
                return self._steer(o, action)
            case _:
                return self._in_ledger(o, action, memory)

    def _tell_limiter(
        self,
        campaign: CampaignView,
        action: actions.TellLimiter | actions.ForgetInLimiter,
        memory: CampaignMemory,
    ) -> bool:
        name = f"{campaign.namespace}/{campaign.name}"
        if isinstance(action, actions.ForgetInLimiter):
            account = action.account
            if not memory.forgotten and self._with_limiter(lambda: self._limiter.forget(account, name)):
                memory.told, memory.forgotten = None, True
            return False
        if memory.told == action and time.monotonic() - memory.told_at < TELL_AGAIN_SECONDS:
            return False
        tell = partial(
            self._limiter.set_campaign,
            action.account,
            name,
            weight=action.weight,
            paused=action.paused,
            open_until=action.open_until,
            reopens=action.reopens,
            brake=Brake(action.brake.max_failed_percent, action.brake.minimum_sample) if action.brake else None,
        )
        if memory.told and (before := memory.told.account) != action.account:
            self._with_limiter(lambda: self._limiter.forget(before, name))
        if self._with_limiter(tell):
            memory.told, memory.told_at, memory.forgotten = action, time.monotonic(), False
        return True

    def _release_brake(self, campaign: CampaignView, account: str) -> bool:
        """Whether the limiter has heard it."""
        name = f"{campaign.namespace}/{campaign.name}"
        return self._with_limiter(lambda: self._limiter.release_brake(account, name))

    def _in_cluster(self, o: Observation, action: actions.Action) -> bool:
        campaign, image = o.campaign, self._settings.image
        match action:
            case actions.CreatePlanJob(run, attempt):
                return self._cluster.create_job(manifests.plan_job(campaign, image, run=run, attempt=attempt))
            case actions.CreateWaveJob() if o.relay and o.relay.relay:
                self._ledger.save_relay(o.relay.relay)  # its senders read it first of all
                manifest = manifests.send_job(
                    campaign,
                    o.relay,
                    image,
                    run=action.run,
                    wave=action.wave,
                    ranges=action.ranges,
                    parallelism=action.parallelism,
                    suspended=action.suspended,
                )
                return self._cluster.create_job(manifest)
            case actions.DeleteJob(name, uid, _):
                self._cluster.delete_job(campaign.namespace, name, uid)
            case actions.ScaleJob(name, uid, parallelism):
                self._cluster.patch_job(campaign.namespace, name, uid, {"parallelism": parallelism})
            case actions.SuspendJob(name, uid, suspend):
                self._cluster.patch_job(campaign.namespace, name, uid, {"suspend": suspend})
            case actions.FailPod(name, uid, node):
                message = f"node {node} is lost; declared failed by mailfleet, its range goes to another sender"
                self._cluster.fail_pod(campaign.namespace, name, uid, message)
            case _:
                return False
        return True

    def _in_ledger(self, o: Observation, action: actions.Action, memory: CampaignMemory) -> bool:
        campaign, runs = o.campaign, self._ledger.runs
        done: object = None
        match action:
            case actions.StartRun(run, definition_hash, range_size):
                done = runs.start(run, definition_hash, range_size)
            case actions.MakeRepairWave(run, wave):
                done = runs.repair_wave(run, wave)
            case actions.MakeRetryWave(run, range_size):
                done = runs.retry_wave(run, range_size)
            case actions.RetryFailed(run, generation, codes, range_size):
                done = runs.retry_failed(run, generation, codes, range_size)
            case actions.SettleRanges(run):
                done = runs.settle_all(run)
            case actions.AbsorbLate(run):
                done = runs.absorb_late(run)
            case actions.CompleteRun(run):
                done = runs.complete(run)
            case actions.CloseRun(run, into, reason, fence):
                done = runs.close(run, into, reason, fence=fence)
            case _ if campaign.spec and campaign.definition:
                done = self._define(campaign, campaign.spec.run_id, campaign.definition, action, memory)
        return bool(done)

    def _steer(
        self,
        o: Observation,
        action: actions.EndStep | actions.PassStep | actions.PauseRun | actions.ResumeRun | actions.ReleaseBrake,
    ) -> bool:
        """Let a run go on, or pause it."""
        runs = self._ledger.runs
        match action:
            case actions.EndStep(run, step):
                return runs.end_step(run, step)
            case actions.PassStep(run, step):
                return runs.pass_step(run, step)
            case actions.PauseRun(run, reason, message, at):
                return runs.pause(run, reason, self._with_code(run, reason, message), at)
            case actions.ResumeRun(run, account, until):
                # The limiter first: its brake would close again what the ledger has let go.
                return self._release_brake(o.campaign, account) and runs.resume(run, until)
            case actions.ReleaseBrake(account):
                self._release_brake(o.campaign, account)
                return False

    def _with_code(self, run: int, reason: PauseReason, message: str) -> str:
        """A brake's figures with the code that most failures have; the relay's words speak for themselves."""
        code = self._ledger.runs.frequent_failure(run) if reason is PauseReason.BRAKE_APPLIED else None
        return f"{message}, most of them with {code}" if code else message

    def _define(
        self, campaign: CampaignView, run_id: str, definition: Campaign, action: actions.Action, memory: CampaignMemory
    ) -> bool:
        """Actions that say in the ledger which run is meant and what it sends."""
        runs, where = self._ledger.runs, (campaign.namespace, campaign.name)
        approved_step = campaign.spec.canary.approved_step if campaign.spec and campaign.spec.canary else None
        match action:
            case actions.SupersedeRun(fence=fence):
                return runs.supersede(*where, run_id, fence=fence)
            case actions.EnsureRun():
                runs.ensure(*where, run_id, definition, approved_step=approved_step)
                done = True
            case actions.EditRun(run):
                done = runs.edit(run, definition, approved_step=approved_step)
            case actions.AmendRun(run):
                # The policy changes nothing that is looked at here.
                done = not runs.amend(run, definition, approved_step=approved_step)
            case _:
                return False
        memory.amended = campaign.generation
        return done


def refused(error: ClusterError) -> Condition:
    """What a campaign says of a request that Kubernetes refused."""
    reason = "PodsRejected" if error.status in {403, 422} else "ClusterUnavailable"
    return true(Type.STALLED, reason, f"Kubernetes refuses what the campaign needs: {error}")


def _name(action: actions.Action | actions.CreatePreflightJob) -> str:
    return type(action).__name__


def _who(o: Observation) -> dict[str, str]:
    return {"namespace": o.campaign.namespace, "campaign": o.campaign.name}
