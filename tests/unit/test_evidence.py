"""What the end-to-end tests keep of a node that forgets: the part that needs no cluster."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from e2e.evidence import Evidence
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path


def log(cluster: Path, pod: str, text: str) -> Path:
    """Write a container's log where the kubelet has it; the pod's folder."""
    folder = cluster / "pod-logs" / f"shop_{pod}_uid-{pod}"
    (folder / "sender").mkdir(parents=True)
    (folder / "sender" / "0.log").write_text(text)
    return folder


def test_a_log_outlives_its_pod_with_all_that_was_written_to_it(tmp_path: Path) -> None:
    log(tmp_path, "before", "older than the tests")
    with Evidence(tmp_path) as evidence:
        folder = log(tmp_path, "gone", "first\n")
        wait_for("it is kept", lambda: "uid-gone" in evidence.logs())
        with (folder / "sender" / "0.log").open("a") as file:
            file.write("to user1@shop.example\n")
        shutil.rmtree(folder)
        assert evidence.logs()["uid-gone"] == {"sender"}
        assert [text for place, _, text in evidence.texts() if place == "log"] == ["first\nto user1@shop.example\n"]
        assert [thing for _, _, thing, _ in evidence.found()] == ["user1@shop.example"]
        assert evidence.found(within="elsewhere") == []
        assert evidence.failure is None
    assert not (tmp_path / "evidence").exists()
