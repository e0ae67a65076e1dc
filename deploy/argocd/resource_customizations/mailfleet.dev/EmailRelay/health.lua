-- The status follows kstatus in this: observedGeneration, and a condition Ready, which is Unknown until a preflight has
-- connected to the relay (operator/mailfleet_operator/relay_plan). Throttled is no trouble: it is told beside.
local hs = {}
local ready, throttled

if obj.status == nil or obj.status.observedGeneration == nil or obj.status.observedGeneration < obj.metadata.generation then
  hs.status = "Progressing"
  hs.message = "Waiting for the Mailfleet operator"
  return hs
end

if obj.status.conditions ~= nil then
  for _, c in ipairs(obj.status.conditions) do
    if c.type == "Ready" then
      ready = c
    elseif c.type == "Throttled" and c.status == "True" then
      throttled = c
    end
  end
end

if ready == nil then
  hs.status = "Progressing"
  hs.message = "Waiting for the Mailfleet operator"
  return hs
end

hs.message = ready.message or ready.reason or "Ready"
if ready.status == "True" then
  hs.status = "Healthy"
  if throttled ~= nil then
    hs.message = hs.message .. "; " .. (throttled.message or throttled.reason or "throttled")
  end
elseif ready.status == "False" then
  hs.status = "Degraded"
  hs.message = (ready.reason or "NotReady") .. ": " .. hs.message
else
  hs.status = "Progressing"
end
return hs
