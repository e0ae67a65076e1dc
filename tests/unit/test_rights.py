"""What an account may do and what it did, compared as the end-to-end tests do in the end."""

from __future__ import annotations

from typing import Any

from e2e.rights import Right, Role, account_of, granted, is_bound, refused, role_of, used


def entry(verb: str, resource: str, *, group: str = "", code: int = 200, allowed: bool = True) -> dict[str, Any]:
    resource, _, sub = resource.partition("/")
    about = {"resource": resource, "apiGroup": group, **({"subresource": sub} if sub else {})}
    return {
        "verb": verb,
        "user": {"username": "system:serviceaccount:shop:mailfleet-operator"},
        "objectRef": about,
        "responseStatus": {"code": code},
        "annotations": {"authorization.k8s.io/decision": "allow" if allowed else "forbid"},
    }


def test_rights_that_are_granted_and_used_are_the_same() -> None:
    rules = [{"apiGroups": ["", "batch"], "resources": ["pods/status", "jobs"], "verbs": ["patch", "list"]}]
    entries = [
        entry(verb, resource, group=group)
        for group in ("", "batch")
        for resource in ("pods/status", "jobs")
        for verb in ("patch", "list")
    ]
    assert granted(rules) == used(entries)
    assert granted(rules) - used(entries[1:]) == {Right("", "pods/status", "patch")}


def test_a_wildcard_is_never_used() -> None:
    rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]}]
    assert granted(rules) - used([entry("list", "jobs", group="batch")]) == {Right("batch", "jobs", "*")}


def test_a_refused_request_uses_no_right_and_a_missing_object_does() -> None:
    denied, missing = entry("list", "secrets", code=403, allowed=False), entry("patch", "events", code=404)
    looked = {**entry("get", "pods"), "objectRef": None}  # /apis
    assert used([denied, missing, looked]) == {Right("", "events", "patch")}
    assert refused([denied, missing, looked]) == [denied]


def test_a_binding_names_its_role_and_its_accounts() -> None:
    binding = {
        "metadata": {"namespace": "shop", "name": "b"},
        "roleRef": {"kind": "Role", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "mailfleet-operator"}],
    }
    assert account_of(entry("get", "pods")) == ("shop", "mailfleet-operator")
    assert is_bound(binding, ("shop", "mailfleet-operator"))
    assert not is_bound(binding, ("shop", "default"))
    assert role_of(binding) == Role("Role", "shop", "operator")
