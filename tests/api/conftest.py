"""The project's definitions on a real API server."""

from __future__ import annotations

import contextlib
import functools
import itertools
from typing import TYPE_CHECKING

import pytest

from custom_resources import CRDS
from kube import KubectlError
from services import wait_for

if TYPE_CHECKING:
    from kube import ControlPlane

KINDS = ("emailcampaign", "emailrelay")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> ControlPlane:
    """The API server with `emailcampaigns` and `emailrelays`."""
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(CRDS))
    # Discovery and the schemas behind `kubectl explain` follow a moment later.
    wait_for("kubectl explain knows both", lambda: all(map(functools.partial(_explained, control_plane), KINDS)))
    return control_plane


def _explained(control_plane: ControlPlane, kind: str) -> bool:
    with contextlib.suppress(KubectlError):
        return bool(control_plane.kubectl("explain", f"{kind}.spec"))
    return False


@pytest.fixture
def namespace(api: ControlPlane) -> str:
    """A fresh namespace for one test."""
    name = f"marketing-{next(_numbers)}"
    api.kubectl("create", "namespace", name)
    return name
