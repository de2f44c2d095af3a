-- Health of a writ.dev Machine: a host that commands can be run on, as Writ saw it last.
--
--   Healthy      Writ was let in, and commands can be started; or nobody wants it looked at before one is
--                (spec.probe.intervalSeconds: 0), as waiting for a look that waits for a command would be for ever
--   Degraded     Misconfigured: a person has to mend something (another host key, a login that is refused)
--   Suspended    spec.suspend is true
--   Progressing  it was not looked at since its last change, or is Offline. Offline is no failure: a machine that is away
--                comes back by itself, and what is to run there waits for it. A sync must not fail because a host is
--                being rebooted at that moment; it goes on when the host is back.
--
-- Uses no Lua library but base and table, which is all that a script in argocd-cm has.

local hs = { status = "Progressing", message = "Waiting for Writ to look at the machine" }

if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Pending deletion"
  if obj.metadata.finalizers ~= nil and #obj.metadata.finalizers > 0 then
    hs.message = "Pending deletion; blocked by finalizers: " .. table.concat(obj.metadata.finalizers, ", ")
  end
  return hs
end

if obj.spec.suspend == true then
  hs.status = "Suspended"
  hs.message = "spec.suspend is true: Writ opens no connection, and queued executions keep waiting"
  return hs
end

local status = obj.status or {}
local is_probed = obj.spec.probe == nil or obj.spec.probe.intervalSeconds ~= 0
local is_current = status.observedGeneration ~= nil and status.observedGeneration == obj.metadata.generation

if is_current and status.phase ~= nil then
  hs.message = status.phase
  if status.message ~= nil then
    hs.message = hs.message .. ": " .. status.message
  end
end

if is_current and status.phase == "Online" then
  hs.status = "Healthy"
elseif is_current and status.phase == "Misconfigured" then
  hs.status = "Degraded"
elseif not is_probed then
  hs.status = "Healthy"
  if is_current and status.phase ~= nil and status.phase ~= "Unknown" then
    hs.message = "Looked at when a command is to run there (spec.probe.intervalSeconds is 0); the last time: " .. hs.message
  else
    hs.message = "Looked at when a command is to run there (spec.probe.intervalSeconds is 0)"
  end
end
return hs
