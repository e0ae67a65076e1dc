-- One above the generation that was done last, so that two clicks are one retry.
local retry = obj.spec.retryFailed or {}
if retry.codes == nil then
  retry.codes = {}
  for _, failure in ipairs(obj.status.failures or {}) do
    if failure.code ~= "Uncertain" then
      table.insert(retry.codes, failure.code)
    end
  end
end
retry.generation = (obj.status.retryFailedGeneration or 0) + 1
obj.spec.retryFailed = retry
return obj
