-- Health of a writ.dev Machine: a host for commands, by Writ's last observation.
--
--   Healthy      Writ logged in, and can start commands. Also a machine without probes (spec.probe.intervalSeconds: 0):
--                only a command would observe it, and the command may wait for this health
--   Degraded     Misconfigured: the machine needs manual repair (another host key, a refused login)
--   Suspended    spec.suspend is true
--   Progressing  Writ has not probed it since its last change, or it is Offline. Offline is no failure: the machine
--                comes back by itself, and executions wait for it. A sync must not fail during the reboot of a host. It
--                continues when the host is back.
--
-- Uses only the Lua libraries base and table, because a script in argocd-cm has no others.

local hs = { status = "Progressing", message = "Waiting for Writ to probe the machine" }

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
    hs.message = "Writ connects only to run a command (spec.probe.intervalSeconds is 0); last result: " .. hs.message
  else
    hs.message = "Writ connects only to run a command (spec.probe.intervalSeconds is 0)"
  end
end
return hs
