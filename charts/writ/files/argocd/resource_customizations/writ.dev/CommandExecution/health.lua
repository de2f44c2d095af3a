-- Health of a writ.dev CommandExecution: one command on one machine, run at most once; its status is the record.
--
--   Healthy      the command ended with exit code 0
--   Degraded     it finished in any other way, which is final: a sync wave or hook that waits for it fails
--   Suspended    a person has suspended its machine: it waits, and is no failure until its starting deadline
--   Progressing  everything else. A phase that this script does not know (a newer Writ) is Degraded if the condition
--                Stalled is true, and never Healthy: a waiting wave is visible and harmless, but a wave must not
--                continue after a command that did not run.
--
-- Uses only the Lua libraries base and table, because a script in argocd-cm has no others.

local hs = { status = "Progressing", message = "Waiting for the first status of Writ" }

local failed = {
  Rejected = true,
  Failed = true,
  TimedOut = true,
  Cancelled = true,
  Expired = true,
  LaunchFailed = true,
  OutcomeUnknown = true,
}

local status = obj.status or {}
local is_finished = status.phase == "Succeeded" or failed[status.phase] == true

local function is_hook()
  for _, finalizer in ipairs(obj.metadata.finalizers or {}) do
    if finalizer == "argocd.argoproj.io/hook-finalizer" then
      return true
    end
  end
  return false
end

-- Argo CD holds a deleted hook until the hook has a verdict. So a finished hook needs one.
local is_deleted = obj.metadata.deletionTimestamp ~= nil
if is_deleted and not (is_finished and is_hook()) then
  hs.message = "Pending deletion"
  if obj.metadata.finalizers ~= nil and #obj.metadata.finalizers > 0 then
    hs.message = "Pending deletion; blocked by finalizers: " .. table.concat(obj.metadata.finalizers, ", ")
  end
  return hs
end

-- A deletion increments the generation. Nothing else increments it after the end.
if not is_deleted and (status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation) then
  return hs
end

if status.phase ~= nil then
  hs.message = status.phase
  if status.reason ~= nil then
    hs.message = hs.message .. " (" .. status.reason .. ")"
  end
  if status.message ~= nil then
    hs.message = hs.message .. ": " .. status.message
  end
end

if status.phase == "Succeeded" then
  hs.status = "Healthy"
elseif failed[status.phase] then
  hs.status = "Degraded"
elseif status.phase == "Queued" and status.reason == "MachineSuspended" then
  hs.status = "Suspended"
elseif status.phase ~= "Pending" and status.phase ~= "Queued" and status.phase ~= "Dispatched" and status.phase ~= "Running" then
  for _, condition in ipairs(status.conditions or {}) do
    if condition.type == "Stalled" and condition.status == "True" then
      hs.status = "Degraded"
    end
  end
end
return hs
