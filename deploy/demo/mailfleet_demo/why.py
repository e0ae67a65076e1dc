"""What explains that something did not come true: conditions, events, pods, and the last words of the logs."""

from __future__ import annotations

import subprocess

from .installation import NAMESPACE, OPERATOR
from .kubectl import Kubectl

LINES = 25


def explain(kubectl: Kubectl, campaign: str) -> str:
    """All that a person would look at first. Never raises: it is read when much is broken already.

    Args:
        kubectl: in the campaign's namespace.
        campaign: name of the EmailCampaign.
    """
    conditions = (
        'jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\\n"}{end}{.status.recipients}'
    )
    senders = ("logs", "--selector", f"mailfleet.dev/campaign={campaign}", "--tail", str(LINES), "--prefix")
    looks = {
        "campaign": ("get", "emailcampaigns", campaign, "-o", conditions),
        "relays": ("get", "emailrelays", "-o", "wide"),
        "pods and jobs": ("get", "jobs,pods", "-o", "wide"),
        "events": ("get", "events", "--sort-by=.lastTimestamp"),
        "planner and senders": senders,
    }
    told = [f"--- {what}\n{_look(kubectl, *command)}" for what, command in looks.items()]
    operator = ("logs", f"deployment/{OPERATOR}", "--all-containers", "--tail", str(LINES))
    return "\n".join([*told, f"--- operator\n{_look(Kubectl(NAMESPACE), *operator)}"])


def _look(kubectl: Kubectl, *arguments: str) -> str:
    command = kubectl.command(*arguments, "--request-timeout=20s")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "\n".join((done.stdout.strip() or done.stderr.strip() or "(nothing)").splitlines()[-2 * LINES :])
