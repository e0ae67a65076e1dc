"""The texts of the Lua scripts. Redis runs each call as one step, and keeps them by their SHA-1 (EVALSHA)."""

from __future__ import annotations

from importlib.resources import files

RESERVE = (files(__package__) / "reserve.lua").read_text()
"""Permits for one pod."""
LIMITS = (files(__package__) / "limits.lua").read_text()
"""An account's limits, unless a newer version is there."""
USAGE = (files(__package__) / "usage.lua").read_text()
"""What is used of an account's quota, when Redis has lost it."""
STATE = (files(__package__) / "state.lua").read_text()
"""All that is known of an account."""
