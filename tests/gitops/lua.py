"""Lua 5.1 as a script of argocd-cm has it: base, table, os.time and os.date; no string, no math, no io."""

from __future__ import annotations

from typing import Any

import lupa.lua51 as lupa

_NARROW = """
getmetatable('').__index = nil
string, math, io, debug, coroutine, package, dofile, loadfile = nil
os = {time = os.time, date = os.date}
require = function(name) if name == 'os' then return os end error('module ' .. name .. ' not found') end
"""


def run(script: str, obj: dict[str, Any]) -> Any:
    """What the script returns for this object."""
    lua = lupa.LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute(_NARROW)
    lua.globals().obj = _to_lua(lua, obj)
    return _to_python(lua.execute(script))


def _to_lua(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _to_lua(lua, part) for key, part in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, part) for part in value])
    return value


def _to_python(value: Any) -> Any:
    if lupa.lua_type(value) != "table":
        return value
    keys = list(value.keys())
    if keys and all(isinstance(key, int) for key in keys):
        return [_to_python(value[key]) for key in sorted(keys)]
    return {key: _to_python(value[key]) for key in keys}
