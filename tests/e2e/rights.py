"""What an account may do, by its roles, and what it did, by the API server's audit log. Pure.

Entries of the log: https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

FORBIDDEN = 403
DECISION = "authorization.k8s.io/decision"


class Right(NamedTuple):
    """One verb on one resource, e.g. ("batch", "jobs", "create"); a subresource is written as pods/status."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{self.group and '.' + self.group}"


@dataclass(frozen=True, slots=True)
class Role:
    """Roles by what binds them: kind of the role, its namespace (empty for a cluster's), its name."""

    kind: str
    namespace: str
    name: str


def is_bound(binding: dict[str, Any], account: tuple[str, str]) -> bool:
    """Whether a binding names this service account (namespace, name)."""
    return any(
        s["kind"] == "ServiceAccount" and (s.get("namespace"), s["name"]) == account
        for s in binding.get("subjects") or ()
    )


def role_of(binding: dict[str, Any]) -> Role:
    """The role that a binding gives."""
    kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
    return Role(kind, binding["metadata"]["namespace"] if kind == "Role" else "", name)


def granted(rules: Iterable[dict[str, Any]]) -> set[Right]:
    """Each right of a role's rules; a wildcard stands for itself, and is never used."""
    return {
        Right(group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups") or ("",)
        for resource in rule.get("resources") or rule.get("nonResourceURLs") or ()
        for verb in rule["verbs"]
    }


def account_of(entry: dict[str, Any]) -> tuple[str, str]:
    """Namespace and name of the service account that asked."""
    _, _, namespace, name = entry["user"]["username"].split(":")
    return namespace, name


def right_of(entry: dict[str, Any]) -> Right | None:
    """What a request needed; None for what is no resource, such as a look at /apis."""
    if not (about := entry.get("objectRef")):
        return None
    resource = about["resource"] + (f"/{about['subresource']}" if "subresource" in about else "")
    return Right(about.get("apiGroup", ""), resource, entry["verb"])


def used(entries: Iterable[dict[str, Any]]) -> set[Right]:
    """The rights without which some request would have been refused."""
    return {right for e in entries if is_allowed(e) and (right := right_of(e))}


def is_allowed(entry: dict[str, Any]) -> bool:
    """Whether its roles let the account ask that; also if it was refused later, by admission."""
    return bool((entry.get("annotations") or {}).get(DECISION) == "allow")  # none: refused before, as too many at once


def refused(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The requests that were answered with 403: without the right, or by admission."""
    return [e for e in entries if (e.get("responseStatus") or {}).get("code") == FORBIDDEN]
