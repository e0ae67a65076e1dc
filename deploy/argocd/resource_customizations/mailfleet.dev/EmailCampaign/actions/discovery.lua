local status = obj.status or {}
local over, complete = false, false
for _, c in ipairs(status.conditions or {}) do
  if c.status == "True" and (c.type == "Complete" or c.type == "Failed") then
    over = true
    complete = c.type == "Complete"
  end
end
local suspended = obj.spec.suspend == true
local cancelled = obj.spec.cancel == true

-- Who failed can be sent to once more while the run is open or Complete, if it is known by which codes, and once at a time.
local retry = obj.spec.retryFailed or {}
local known = retry.codes ~= nil
for _, failure in ipairs(status.failures or {}) do
  known = known or failure.code ~= "Uncertain"
end
local failed = status.recipients ~= nil and (status.recipients.failed or 0) > 0
local asked = (retry.generation or 0) > (status.retryFailedGeneration or 0)

local actions = {}
actions["suspend"] = {["disabled"] = over or suspended or cancelled, ["iconClass"] = "fa fa-fw fa-pause", ["displayName"] = "Suspend"}
actions["resume"] = {["disabled"] = over or not suspended or cancelled, ["iconClass"] = "fa fa-fw fa-play", ["displayName"] = "Resume"}
actions["cancel"] = {["disabled"] = over or cancelled, ["iconClass"] = "fa fa-fw fa-stop", ["displayName"] = "Cancel for good"}
actions["retry-failed"] = {
  ["disabled"] = (over and not complete) or cancelled or not failed or not known or asked,
  ["iconClass"] = "fa fa-fw fa-redo",
  ["displayName"] = "Retry failed recipients"
}
return actions
