-- Health of a writ.dev Whitelist: which commands may run.
--
--   Healthy      every rule is in force
--   Degraded     Stalled: a rule is invalid. An invalid Deny also blocks every command of the namespace
--   Progressing  Writ has not read it since its last change. Or it has rules with subjects, and Writ cannot verify
--                requesters (RequesterKnown is False), so these rules allow nobody. This lasts some seconds after the
--                installation of Writ's admission policies, so it is no failure. If it lasts longer, the message says
--                what is missing.
--
-- Uses only the Lua libraries base and table, because a script in argocd-cm has no others.

local hs = { status = "Progressing", message = "Waiting for Writ to read the rules" }

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
