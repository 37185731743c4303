-- How Argo CD sees an IoTPipeline: Healthy if messages cross, Degraded if it waits for somebody.
local status = obj.status
if status == nil or status.conditions == nil then
  return {status = "Progressing", message = "waiting for the operator"}
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready
if conditions.Suspended ~= nil and conditions.Suspended.status == "True" then
  return {status = "Suspended", message = conditions.Suspended.message}
end
if ready == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this spec yet"}
end
if ready.status == "True" then
  return {status = "Healthy", message = ready.message}
end
if ready.reason == "Hibernated" then
  return {status = "Suspended", message = ready.message}
end
local stalled = conditions.Stalled
if stalled ~= nil and stalled.status == "True" then
  return {status = "Degraded", message = stalled.reason .. ": " .. stalled.message}
end
return {status = "Progressing", message = ready.reason .. ": " .. ready.message}
