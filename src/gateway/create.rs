//! Creates executions on behalf of callers: the order of the checks, the rate, and idempotency.
//!
//! The order is the same for each call that runs a command, so that nobody learns what they may not see: credential,
//! form of the request, right in the namespace, Machine, rate. The policy decides later, in the controller.

use std::time::{Duration, Instant};

use http::HeaderMap;
use kube::api::ObjectMeta;
use uuid::Uuid;

use crate::api::{CommandExecution, CommandExecutionSpec};
use crate::cluster::{ActingError, AsRequester, ClusterError};
use crate::execution::digest;
use crate::interactive::InteractiveClient;

use super::caller::Caller;
use super::error::ApiError;
use super::names::NewName;
use super::state::{Gateway, MachineName};
use super::wait::EndWatch;

/// Header with the key of an idempotent call.
const KEY_HEADER: &str = "idempotency-key";
/// Pauses after creates without an answer. Each create has a deadline of its own.
const CREATE_PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::ZERO];
/// Maximum length of an Idempotency-Key.
const MAX_KEY: usize = 128;

/// An execution that exists now.
pub struct Created {
    /// The execution, as it was when it was created or found.
    pub execution: CommandExecution,
    /// Subscription to its end, from before its creation.
    pub end: EndWatch,
    /// True if an earlier call with the same Idempotency-Key created it.
    pub is_replay: bool,
    /// Client of an interactive execution, from before its creation. `None` for other executions.
    pub client: Option<InteractiveClient>,
}

/// Request to create an execution.
pub struct NewExecution<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// The Machine, which exists.
    pub machine: &'a MachineName,
    /// The command and its limits.
    pub spec: CommandExecutionSpec,
    /// Key of an idempotent call.
    pub key: Option<&'a str>,
}

/// Returns the Idempotency-Key of a request.
///
/// # Errors
/// The key is empty, too long, or has characters that cannot be printed.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let is_absent = headers.get(KEY_HEADER).is_none();
        return if is_absent { Ok(None) } else { Err(ApiError::malformed("Idempotency-Key must be sent once")) };
    };
    let key = value.to_str().unwrap_or_default();
    check_key("Idempotency-Key", key)?;
    Ok(Some(key.to_owned()))
}

/// Checks an idempotency key, which `field` of a request has.
///
/// # Errors
/// The key is empty, too long, or has characters that cannot be printed.
pub fn check_key(field: &str, key: &str) -> Result<(), ApiError> {
    if !key.is_empty() && key.len() <= MAX_KEY && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(ApiError::malformed(format!("{field} must have 1 to {MAX_KEY} printable ASCII characters without blanks")))
}

/// Name of a new execution, with the caller and the request that it belongs to.
struct OwnName<'a> {
    caller: &'a Caller,
    namespace: &'a str,
    name: &'a NewName,
    spec: &'a CommandExecutionSpec,
}

/// Result of creating an execution.
enum CreateOutcome {
    Created(Box<CommandExecution>),
    /// An execution with this name exists, and this call did not create it.
    Taken,
    /// The API server stored nothing.
    Refused(ActingError),
    /// The execution perhaps exists.
    Unknown,
}

impl Gateway {
    /// Creates an execution, or joins the execution of an earlier call with the same key. Counts the command first.
    ///
    /// # Errors
    /// 409 if the key belongs to another request, 429 over the rate, or the API server refuses the execution.
    pub async fn create_execution(&self, new: NewExecution<'_>) -> Result<Created, ApiError> {
        let NewExecution { caller, machine, spec, key } = new;
        let namespace = machine.namespace.as_str();
        if !self.may_act() {
            return Err(ApiError::unavailable("the gateway may not act for callers; its log has the missing right"));
        }
        let requester = self.acting().for_caller(&caller.user).await?;
        let name = match key {
            Some(key) => NewName::of_key(caller.name(), namespace, key),
            None => NewName::unique(self.cluster().now(), Uuid::new_v4().as_u128()),
        };
        let end = self.watch_end(namespace, &name.name);
        // Before the creation, because the controllers let the execution start only with its client.
        let client = match spec.session {
            Some(_) => Some(
                self.interactive()
                    .connect(namespace, &name.name)
                    .map_err(|error| ApiError::unavailable(error.to_string()).about(namespace, &name.name))?,
            ),
            None => None,
        };
        if key.is_some()
            && let Some(execution) = self.find_replayed(caller, namespace, &name.name, &spec).await?
        {
            return Ok(Created { execution, end: end.without_viewer(), is_replay: true, client: None });
        }
        let counted = self.count_command(caller, 1)?;
        let own = OwnName { caller, namespace, name: &name, spec: &spec };
        match self.create_once(&requester, &own).await {
            CreateOutcome::Created(execution) => Ok(Created { execution: *execution, end, is_replay: false, client }),
            CreateOutcome::Taken if key.is_some() => {
                self.rate().give_back(&caller.rate_key(), counted);
                let replayed = self.find_replayed(caller, namespace, &name.name, &spec).await?;
                let gone = || ApiError::unavailable("the execution of this Idempotency-Key has just been deleted");
                Ok(Created {
                    execution: replayed.ok_or_else(gone)?,
                    end: end.without_viewer(),
                    is_replay: true,
                    client: None,
                })
            }
            CreateOutcome::Refused(error) => {
                self.rate().give_back(&caller.rate_key(), counted);
                Err(ApiError::from(error).about(namespace, &name.name))
            }
            CreateOutcome::Taken | CreateOutcome::Unknown => {
                Err(ApiError::outcome_unknown().about(namespace, &name.name))
            }
        }
    }

    /// Counts commands of a caller.
    ///
    /// # Errors
    /// 429 with the time that is left.
    pub fn count_command(&self, caller: &Caller, commands: usize) -> Result<Instant, ApiError> {
        let (now, limit) = (Instant::now(), self.limit_for(caller));
        let allowed = usize::try_from(limit).unwrap_or(usize::MAX);
        let taken = self.rate().take(&caller.rate_key(), commands, allowed, now);
        taken.map(|()| now).map_err(|left| ApiError::too_many(limit, left))
    }

    /// Creates an execution under a name that belongs to this call, or to its key. Repeats a create without an answer:
    /// the API server stores only one object with this name.
    async fn create_once(&self, requester: &AsRequester, own: &OwnName<'_>) -> CreateOutcome {
        let metadata = ObjectMeta {
            name: Some(own.name.name.clone()),
            generate_name: own.name.generate_name.clone(),
            ..ObjectMeta::default()
        };
        let execution = CommandExecution { metadata, spec: own.spec.clone(), status: None };
        let mut is_sent = false;
        for pause in CREATE_PAUSES {
            match requester.create(own.namespace, &execution).await {
                Ok(stored) => return CreateOutcome::Created(Box::new(stored)),
                Err(ActingError::Cluster(ClusterError::Conflict { .. })) if is_sent => return self.find_own(own).await,
                Err(ActingError::Cluster(ClusterError::Conflict { .. })) => return CreateOutcome::Taken,
                Err(ActingError::Cluster(error)) if error.is_ambiguous() => {
                    is_sent |= !error.is_unsent();
                    tracing::warn!(namespace = own.namespace, name = own.name.name, %error, "create without an answer");
                    if !is_sent {
                        return CreateOutcome::Refused(error.into());
                    }
                }
                // An earlier create of this call perhaps arrives later.
                Err(_) if is_sent => return CreateOutcome::Unknown,
                Err(error) => return CreateOutcome::Refused(error),
            }
            tokio::time::sleep(pause).await;
        }
        self.find_own(own).await
    }

    /// Finds the execution of a create without an answer.
    async fn find_own(&self, own: &OwnName<'_>) -> CreateOutcome {
        match self.find_replayed(own.caller, own.namespace, &own.name.name, own.spec).await {
            Ok(Some(execution)) => CreateOutcome::Created(Box::new(execution)),
            _ => CreateOutcome::Unknown,
        }
    }

    /// Finds the execution of an earlier call with the same key.
    ///
    /// # Errors
    /// 409 if the execution is of another caller, or of another request.
    async fn find_replayed(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
        spec: &CommandExecutionSpec,
    ) -> Result<Option<CommandExecution>, ApiError> {
        let execution = match self.cluster().execution(namespace, name).await {
            Ok(execution) => execution,
            Err(ClusterError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let requester = execution.spec.requested_by.as_ref();
        let is_own = requester.is_some_and(|requester| {
            let uid = caller.user.uid.as_deref().unwrap_or_default();
            requester.username == caller.name() && (requester.uid.is_empty() || uid.is_empty() || requester.uid == uid)
        });
        if is_own && digest(&execution.spec) == digest(spec) {
            return Ok(Some(execution));
        }
        let message = "this Idempotency-Key belongs to another request; use another key for another command";
        Err(ApiError::new(http::StatusCode::CONFLICT, "Conflict", "IdempotencyKeyReused", message))
    }
}
