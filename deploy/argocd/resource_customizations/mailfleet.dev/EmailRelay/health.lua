-- The status follows kstatus in this: observedGeneration, and a condition Ready
-- (operator/mailfleet_operator, status of relays).
local hs = {}

if obj.status == nil or obj.status.observedGeneration == nil or obj.status.observedGeneration < obj.metadata.generation then
  hs.status = "Progressing"
  hs.message = "Waiting for the Mailfleet operator"
  return hs
end

if obj.status.conditions ~= nil then
  for _, c in ipairs(obj.status.conditions) do
    if c.type == "Ready" and c.status == "True" then
      hs.status = "Healthy"
      hs.message = c.message or c.reason
      return hs
    end
    if c.type == "Ready" and c.status == "False" then
      hs.status = "Degraded"
      hs.message = (c.reason or "NotReady") .. ": " .. (c.message or "")
      return hs
    end
  end
end

hs.status = "Progressing"
hs.message = "Waiting for the Mailfleet operator"
return hs
