-- Health of a writ.dev Whitelist: which commands may run.
--
--   Healthy      every rule is in force
--   Degraded     Stalled: a rule is broken, and with some nothing is allowed in the namespace until it is mended
--   Progressing  it was not looked at since its last change; or it has rules with subjects while Writ cannot be sure of
--                who asks (RequesterKnown is False), so that they allow nobody. That is so for some seconds after Writ's
--                admission policies were installed, hence no failure; where it stays so, the message says what is missing.
--
-- Uses no Lua library but base and table, which is all that a script in argocd-cm has.

local hs = { status = "Progressing", message = "Waiting for Writ to look at the rules" }

if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Pending deletion"
  if obj.metadata.finalizers ~= nil and #obj.metadata.finalizers > 0 then
    hs.message = "Pending deletion; blocked by finalizers: " .. table.concat(obj.metadata.finalizers, ", ")
  end
  return hs
end

local status = obj.status or {}
if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return hs
end

local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end

if found.Stalled ~= nil and found.Stalled.status == "True" then
  hs.status = "Degraded"
  hs.message = found.Stalled.message
elseif found.RequesterKnown ~= nil and found.RequesterKnown.status ~= "True" then
  hs.message = found.RequesterKnown.message
elseif found.Ready ~= nil and found.Ready.status == "True" then
  hs.status = "Healthy"
  hs.message = found.Ready.message
end
return hs
