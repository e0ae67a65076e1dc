"""The operator's rules are pure: they import under a hook that refuses every library that can do IO."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = [
    "accounts",
    "actions",
    "conditions",
    "delays",
    "events",
    "manifests",
    "names",
    "observation",
    "pace",
    "plan",
    "relay_plan",
    "resources",
    "scaling",
    "status",
    "views",
    "windows",
    "words",
]
REFUSED = [
    "aiohttp",
    "alembic",
    "asyncio",
    "concurrent.futures",
    "http.client",
    "kopf",
    "kubernetes",
    "psycopg2",
    "redis",
    "requests",
    "select",
    "smtplib",
    "socket",
    "sqlalchemy",
    "ssl",
    "subprocess",
    "urllib3",
]
HOOK = """
import sys
import pydantic, pydantic.alias_generators
pydantic.create_model("First", x=(int, 0))  # pydantic looks for plugins at its first model: its own affair
for name in [m for m in sys.modules if m.split(".")[0] in {refused}]:
    del sys.modules[name]

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == r or name.startswith(r + ".") for r in {refused}):
            raise ImportError("IO in the rules: " + name)

sys.meta_path.insert(0, Refuse())
import {module}
"""


def imported(module: str) -> subprocess.CompletedProcess[str]:
    code = HOOK.format(refused=REFUSED, module=module)
    folders = f"{ROOT / 'operator'}:{ROOT / 'sender'}"
    return subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": folders}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_without_any_io_library(module: str) -> None:
    done = imported(f"mailfleet_operator.{module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["cluster", "queue"])
def test_the_hook_refuses_a_module_that_does_io(module: str) -> None:
    done = imported(f"mailfleet_operator.{module}")
    assert "IO in the rules" in done.stderr
