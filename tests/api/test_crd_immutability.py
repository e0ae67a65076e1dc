"""From the first claim on (status.startTime) a run is what it is; a new runId, after its end, is another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from custom_resources import campaign
from kube import KubectlError

if TYPE_CHECKING:
    from kube import ControlPlane

STARTED = "2026-11-24T03:00:00Z"
# Each field that is fixed, and a change of it.
FIXED = {
    "recipients": {"recipients": {"table": {"name": "others"}}},
    "recipients.exclude": {"recipients": {"exclude": [{"table": {"name": "staff"}}]}},
    "recipients.duplicateAddresses": {"recipients": {"duplicateAddresses": "Send"}},
    "message": {"message": {"subject": "Winter"}},
    "message, a header more": {"message": {"headers": {"X-A": "b"}}},
    "relayRef": {"relayRef": {"name": "other"}},
    "rangeSize": {"rangeSize": 1000},
    "canary": {"canary": {"steps": [{"recipients": 100}]}},
}
FREE = {
    "suspend": {"suspend": True},
    "cancel": {"cancel": True},
    "schedule": {"schedule": {"endTime": STARTED, "startTime": "2026-11-01T08:00:00Z", "startingDeadlineSeconds": 60}},
    "schedule.windows": {
        "schedule": {
            "windows": [{"from": "08:00", "to": "20:00"}, {"days": ["Sat"], "from": "22:00", "to": "24:00"}],
            "timeZone": "America/Argentina/Buenos_Aires",
        }
    },
    "retryFailed": {"retryFailed": {"generation": 1, "codes": ["4.7.0", "554", "Uncertain"]}},
    "weight": {"weight": 7},
    "senders": {"senders": {"maxReplicas": 3}},
    "retry": {"retry": {"initialDelaySeconds": 5, "maxDelaySeconds": 60}},
    "brake": {"brake": {"maxFailedPercent": 1, "minimumSample": 50}},
    "resumeTime": {"resumeTime": STARTED},
    "onUncertain": {"onUncertain": "Resend"},
    "ttlSecondsAfterFinished": {"ttlSecondsAfterFinished": 60},
}


class Campaign:
    """A campaign on the API server, edited by a person and by the operator."""

    def __init__(self, api: ControlPlane, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(campaign()))

    def edit(self, spec: dict[str, Any]) -> str:
        """Change the spec.

        Raises:
            KubectlError: it was refused; the message says why.
        """
        return self._patch({"spec": spec})

    def status(self, status: dict[str, Any]) -> None:
        """Write the status, as the operator does."""
        self._patch({"status": status}, "--subresource=status")

    def starts(self, run: str = "1") -> None:
        self.status({"startTime": STARTED, "runId": run, "conditions": []})

    def ends(self, condition: str) -> None:
        last = {"type": condition, "status": "True", "lastTransitionTime": STARTED, "reason": "Done", "message": ""}
        self.status({"conditions": [last]})

    def _patch(self, patch: dict[str, Any], *options: str) -> str:
        return self.api.kubectl(
            "patch",
            "emailcampaign",
            "autumn-news",
            "-n",
            self.namespace,
            "--type=merge",
            "-p",
            json.dumps(patch),
            *options,
        )


@pytest.fixture
def sending(api: ControlPlane, namespace: str) -> Campaign:
    """A campaign of which sending has begun."""
    made = Campaign(api, namespace)
    made.starts()
    return made


@pytest.mark.parametrize("change", FIXED.values(), ids=FIXED)
def test_everything_may_change_before_sending_begins(api: ControlPlane, namespace: str, change: dict[str, Any]) -> None:
    made = Campaign(api, namespace)
    made.status({"phase": "Planned", "runId": "1"})
    made.edit(change)
    made.edit({"runId": "2"})


@pytest.mark.parametrize(("field", "change"), FIXED.items(), ids=FIXED)
def test_definition_is_fixed_once_sending_has_begun(sending: Campaign, field: str, change: dict[str, Any]) -> None:
    name = field.split(",", maxsplit=1)[0].split(".", maxsplit=1)[0]
    with pytest.raises(KubectlError, match=rf"spec\.{name}: Forbidden: .*cannot change once sending has begun"):
        sending.edit(change)


def test_removing_the_range_size_is_a_change_as_well(api: ControlPlane, namespace: str) -> None:
    made = Campaign(api, namespace)
    made.edit({"rangeSize": 1000})
    made.starts()
    with pytest.raises(KubectlError, match="rangeSize cannot change once sending has begun"):
        made.edit({"rangeSize": None})


@pytest.mark.parametrize("change", FREE.values(), ids=FREE)
def test_policy_may_change_while_sending(sending: Campaign, change: dict[str, Any]) -> None:
    sending.edit(change)


def test_run_id_is_fixed_while_the_run_is_under_way(sending: Campaign) -> None:
    with pytest.raises(
        KubectlError,
        match=r"spec\.runId: Forbidden: this run is under way: .* only when the run is Complete or Failed",
    ):
        sending.edit({"runId": "2"})
    with pytest.raises(KubectlError, match="this run is under way"):  # a new definition does not help either
        sending.edit({"runId": "2", **FIXED["message"]})


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_condition_that_does_not_hold_ends_nothing(sending: Campaign, status: str) -> None:
    sending.status(
        {
            "conditions": [
                {"type": "Complete", "status": status, "lastTransitionTime": STARTED, "reason": "R", "message": ""}
            ]
        }
    )
    with pytest.raises(KubectlError, match="this run is under way"):
        sending.edit({"runId": "2"})


@pytest.mark.parametrize("condition", ["Complete", "Failed"])
def test_run_id_may_change_when_the_run_has_ended_and_the_definition_with_it(sending: Campaign, condition: str) -> None:
    sending.ends(condition)
    with pytest.raises(KubectlError, match="cannot change once sending has begun"):  # the same run stays what it was
        sending.edit(FIXED["message"])
    sending.edit({"runId": "2", **FIXED["message"], **FIXED["recipients"], **FIXED["relayRef"], **FIXED["rangeSize"]})


def test_cancel_is_taken_back_by_a_new_run_alone(sending: Campaign) -> None:
    sending.edit({"cancel": True})
    with pytest.raises(KubectlError, match=r"spec\.cancel: Forbidden: cancel cannot be taken back"):
        sending.edit({"cancel": False})
    with pytest.raises(KubectlError, match=r"spec\.cancel: Forbidden: cancel cannot be taken back"):
        sending.edit({"cancel": None})
    sending.ends("Failed")
    sending.edit({"cancel": False, "runId": "2"})


CANARY = {"steps": [{"recipients": 100}, {"percent": 5}], "approval": "Manual"}


@pytest.fixture
def in_canary(api: ControlPlane, namespace: str) -> Campaign:
    """A campaign of which the first step is being sent."""
    made = Campaign(api, namespace)
    made.edit({"canary": CANARY})
    made.starts()
    return made


@pytest.mark.parametrize(
    "change",
    [
        None,
        {"steps": [{"recipients": 100}]},
        {"maxFailedPercent": 100},
        {"maxDeferredPercent": 100},
        {"pauseSeconds": 0},
        {"approval": "Automatic"},
    ],
)
def test_a_canary_is_fixed_once_sending_has_begun(in_canary: Campaign, change: dict[str, Any] | None) -> None:
    with pytest.raises(KubectlError, match=r"spec\.canary: Forbidden: canary cannot change once sending has begun"):
        in_canary.edit({"canary": change})


def test_what_is_approved_only_rises(in_canary: Campaign) -> None:
    in_canary.edit({"canary": {"approvedStep": 1}})
    in_canary.edit({"canary": {"approvedStep": 2}})
    with pytest.raises(KubectlError, match=r"spec\.canary\.approvedStep: Forbidden: approvedStep only rises"):
        in_canary.edit({"canary": {"approvedStep": 1}})
    with pytest.raises(KubectlError, match="approvedStep is the number of a step, and there are not so many"):
        in_canary.edit({"canary": {"approvedStep": 3}})


def test_what_was_approved_in_one_run_is_not_approved_in_the_next(in_canary: Campaign) -> None:
    in_canary.edit({"canary": {"approvedStep": 1}})
    in_canary.ends("Complete")
    with pytest.raises(
        KubectlError, match=r"approvedStep approves a step of one run: leave it out together with a new"
    ):
        in_canary.edit({"runId": "2"})
    in_canary.edit({"runId": "2", "canary": {"approvedStep": None, "steps": [{"percent": 1}]}})
    in_canary.edit({"canary": {"approvedStep": 1}})


def test_the_time_that_ends_a_pause_only_rises(sending: Campaign) -> None:
    sending.edit({"resumeTime": "2026-12-01T08:00:00Z"})
    sending.edit({"resumeTime": "2026-12-01T08:00:00Z", "weight": 9})
    sending.edit({"resumeTime": "2026-12-01T10:00:00+01:00"})
    with pytest.raises(KubectlError, match=r"spec\.resumeTime: Forbidden: resumeTime only rises"):
        sending.edit({"resumeTime": "2026-12-01T09:59:59+01:00"})


def test_new_run_may_be_mended_until_it_starts_itself(sending: Campaign) -> None:
    sending.ends("Complete")
    sending.edit({"runId": "2"})
    # The status still speaks of run 1: of run 2 nothing is sent yet.
    sending.edit(FIXED["message"])
    sending.starts("2")
    with pytest.raises(KubectlError, match="the message cannot change once sending has begun"):
        sending.edit({"message": {"subject": "Spring"}})
    with pytest.raises(KubectlError, match="this run is under way"):
        sending.edit({"runId": "3"})


def test_status_without_a_run_speaks_of_the_present_one(api: ControlPlane, namespace: str) -> None:
    made = Campaign(api, namespace)
    made.status({"startTime": STARTED})
    with pytest.raises(KubectlError, match="this run is under way"):
        made.edit({"runId": "2"})


def test_status_is_written_whatever_the_spec_says(sending: Campaign) -> None:
    sending.status({"progress": "1/2", "recipients": {"sent": 1}})


def test_applying_the_same_manifest_again_changes_nothing(sending: Campaign) -> None:
    told = sending.api.kubectl(
        "apply", "--server-side", "--force-conflicts", "-n", sending.namespace, "-f", "-", stdin=json.dumps(campaign())
    )
    assert "serverside-applied" in told
