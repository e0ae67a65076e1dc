-- The status follows kstatus in this: observedGeneration, and a condition Stalled that is True where somebody must act.
-- Its conditions (Planned, Sending, Suspended, Throttled, Stalled, Complete, Failed) are all there from the first write on:
-- operator/mailfleet_operator/conditions.py. A campaign may send for days, so it is Healthy once it is accepted and planned, and
-- holds up no sync wave; Progressing is only what will be over in minutes.
local under_way = "Healthy"
local hs = {}
local conditions = {}

if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, c in ipairs(obj.status.conditions) do
    conditions[c.type] = c
  end
end

local function is(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

local function words(kind)
  return conditions[kind].message or conditions[kind].reason or kind
end

-- Rough on purpose: Argo CD does not look again because of a status write, so an exact figure would be an old one.
local function done()
  local r = obj.status.recipients
  if r == nil or r.planned == nil or r.planned == 0 then
    return ""
  end
  local percent = (r.planned - (r.remaining or 0) - (r.deferred or 0)) * 100 / r.planned
  return ", " .. (percent - percent % 10) .. " % or more are done"
end

-- A status of an older spec says nothing about this one.
if obj.status == nil or obj.status.observedGeneration == nil or obj.status.observedGeneration < obj.metadata.generation then
  hs.status = "Progressing"
  hs.message = "Waiting for the Mailfleet operator"
  return hs
end

for _, kind in ipairs({"Failed", "Stalled"}) do
  if is(kind) then
    hs.status = "Degraded"
    hs.message = (conditions[kind].reason or kind) .. ": " .. words(kind)
    return hs
  end
end

if is("Complete") then
  hs.status = "Healthy"
  hs.message = words("Complete")
elseif is("Suspended") and (conditions["Suspended"].reason == "BrakeApplied"
    or conditions["Suspended"].reason == "SenderFault") then
  -- The brake or the relay has paused it: somebody must mend the cause.
  hs.status = "Degraded"
  hs.message = conditions["Suspended"].reason .. ": " .. words("Suspended")
elseif is("Suspended") then
  hs.status = "Suspended"
  hs.message = words("Suspended")
elseif conditions["Sending"] ~= nil and conditions["Sending"].reason == "WaitingForApproval" then
  -- A canary step waits for a person, as a paused Rollout does.
  hs.status = "Suspended"
  hs.message = words("Sending")
elseif not is("Planned") then
  hs.status = "Progressing"
  hs.message = conditions["Planned"] ~= nil and words("Planned") or "Waiting for the Mailfleet operator"
elseif is("Sending") then
  hs.status = under_way
  hs.message = "Sending" .. done()
  if is("Throttled") then
    hs.message = hs.message .. "; " .. words("Throttled")
  end
else
  hs.status = under_way
  hs.message = conditions["Sending"] ~= nil and words("Sending") or "Planned"
end
return hs
